"""Generate the completions, the man pages, the command-line reference and the JSON Schema.

    python tools/generate.py           write them
    python tools/generate.py --check   exit 1 if one of them is not up to date

The only sources are the click commands and the classes of events. The result does not depend on the
width of the terminal, the user's language, or the date.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import ShellComplete, get_completion_class

from mitml4 import __version__
from mitml4.cli.main import COMMANDS, COMPLETE_VARIABLE, ENVIRONMENT_PREFIX, PROGRAM, cli
from mitml4.cli.options import section_of
from mitml4.errors import ExitCode
from mitml4.schema import json_schema

ROOT: Final = Path(__file__).parent.parent
COMPLETIONS: Final = {"bash": "mitml4.bash", "zsh": "_mitml4", "fish": "mitml4.fish"}

LIMITS: Final = (
    "`intercept`, `run` and `proxy` raise their limit of descriptors (`ulimit -n`) as far as "
    "possible. The number of connections is limited by half of the descriptors, and by a quarter "
    "of the memory at 32 KiB for each connection.",
    "One client gets half of them, and half of its half towards one server. With `run`, where all "
    "connections come from one command, one server gets half of all. With `proxy`, all clients of "
    "a loopback address share half of them, wherever they connect to.",
    "Half of each share is intercepted, at most as many as fit into a quarter of the memory at "
    "256 KiB each. Further connections are relayed unseen, and reported as passed through "
    "(`too many connections`). With `--block` they are inspected, but their TLS is not decrypted.",
    "A client's connections above its share are refused. A note says so once, and the summary "
    "states their number.",
    "`detect` writes every event of a capture, however many there are, and its memory does not "
    "grow with them. (The events of live flows are limited, because other flows would wait.)",
    "With `intercept`, one client may start 1,000 connections to one server at once and 500 a "
    "second, and twice as many to all servers. The SYNs of further connections are dropped, and "
    "the client retransmits them.",
    "For the requests of an HTTP/1 connection that wait for their responses (pipelining) there are "
    "256 KiB of memory, enough for some 130 large or 400 small ones. With more of them the "
    "connection is relayed unseen, and a `flow.error` reports it.",
    "`intercept` reads the rules of others at its start. If a firewall that is loaded during a "
    "session drops intercepted connections, new ones pass by unseen until that changes; with "
    "`--block` they time out. A line on standard error reports it, with the rule to add.",
)

EXIT_STATUS: Final = (
    (
        str(int(ExitCode.DONE)),
        "Success; also if Ctrl-C or the reader of its output ended a session.",
    ),
    (str(int(ExitCode.FAILED)), "Failure; also if an output could not be written completely."),
    (str(int(ExitCode.USAGE)), "The command line is wrong."),
    (str(int(ExitCode.CANNOT)), "This machine cannot do it: privilege, kernel, a missing tool."),
    (
        "130",
        "Ctrl-C interrupted `detect`, or another command before its session had started."
        " `detect` exits with 143 after SIGTERM, and 129 after SIGHUP.",
    ),
)

VALUES: Final = {"integer": "N", "integer range": "N", "filename": "FILE"}
"""click's names for the values of its types, and ours."""

VARIABLES: Final = (
    (
        "XDG_DATA_HOME",
        "The certificate authority is in mitml4/ below it; ~/.local/share if unset or relative.",
    ),
    (
        "SUDO_USER",
        "Set by sudo(8): the user whose authority is used, and who owns the output files.",
    ),
    ("HOME", "~; the home of the user database if unset, empty or relative."),
    ("NO_COLOR", "If set, colours are not used, unless --color says otherwise."),
)


@dataclass(frozen=True)
class Option:
    """An option, as every page shows it."""

    names: tuple[str, ...]
    value: str
    help: str
    variable: str | None
    values: str
    """The values that the variable may have."""

    @classmethod
    def of(cls, option: click.Option, path: tuple[str, ...]) -> Option:
        remarks = [option.help or ""]
        if option.required:
            remarks.append("Required.")
        if default := _default(option):
            remarks.append(f"Default: {default}.")
        return cls(
            names=tuple(option.opts) + tuple(option.secondary_opts),
            value=_value(option),
            help=" ".join(remarks),
            variable=_variable(option, path),
            values=_values(option),
        )

    @property
    def usage(self) -> str:
        return ", ".join(self.names) + (f" {self.value}" if self.value else "")


@dataclass(frozen=True)
class Page:
    """A command, as every page shows it."""

    path: tuple[str, ...]
    """`("mitml4", "ca", "show")`."""
    usage: str
    summary: str
    text: tuple[str, ...]
    """Paragraphs."""
    sections: dict[str, list[Option]]
    examples: tuple[str, ...]
    commands: tuple[tuple[str, str], ...]
    """Names and summaries of its commands."""
    exit_status: tuple[tuple[str, str], ...]
    keys: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        return " ".join(self.path)

    @property
    def file(self) -> str:
        return "-".join(self.path)


HELP: Final = Option(("-h", "--help"), "", "Show the help and exit.", None, "")


def pages(command: click.Command = cli, path: tuple[str, ...] = (PROGRAM,)) -> Iterator[Page]:
    """The page of a command, and those of its subcommands."""
    children = _children(command)
    summary, *text = _paragraphs(command.help or "")
    sections: dict[str, list[Option]] = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            option = Option.of(parameter, path)
            sections.setdefault(section_of(parameter), []).append(option)
    sections.setdefault("Options", []).append(HELP)
    arguments = [_argument(item) for item in command.params if isinstance(item, click.Argument)]
    yield Page(
        path=path,
        usage=" ".join([*path, "[OPTIONS]", *arguments, *(["COMMAND …"] if children else [])]),
        summary=summary,
        text=tuple(text),
        sections=sections,
        examples=_examples(command),
        commands=tuple((name, _paragraphs(child.help or "")[0]) for name, child in children),
        exit_status=getattr(command, "exit_status", ()) or EXIT_STATUS,
        keys=getattr(command, "keys", ()),
    )
    for name, child in children:
        yield from pages(child, (*path, name))


def _children(command: click.Command) -> list[tuple[str, click.Command]]:
    if command is cli:
        return [(name, entry.load()) for name, entry in COMMANDS.items()]
    return list(command.commands.items()) if isinstance(command, click.Group) else []


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n")]


def _examples(command: click.Command) -> tuple[str, ...]:
    lines = inspect.cleandoc((command.epilog or "").replace("\b", "")).partition("Examples:\n")[2]
    return tuple(line.strip() for line in lines.splitlines() if line.strip())


def _argument(argument: click.Argument) -> str:
    name = argument.metavar or (argument.name or "").upper()
    if argument.nargs != 1 and not name.endswith("…"):
        name += "…"
    return name if argument.required else f"[{name}]"


def _value(option: click.Option) -> str:
    if option.is_flag or option.count:
        return ""
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice):
        return "|".join(map(str, option.type.choices))
    return VALUES.get(option.type.name, option.type.name.upper())


def _default(option: click.Option) -> str | None:
    if isinstance(option.show_default, str):
        return option.show_default
    if not option.show_default:
        return None
    if option.secondary_opts:
        return (option.opts if option.default else option.secondary_opts)[0]
    return str(option.default)


def _variable(option: click.Option, path: tuple[str, ...]) -> str | None:
    if not option.allow_from_autoenv or not option.expose_value:
        return None
    return "_".join([ENVIRONMENT_PREFIX, *path[1:], option.name or ""]).upper().replace("-", "_")


def _values(option: click.Option) -> str:
    """What the option's variable means."""
    name = option.opts[-1]
    if option.secondary_opts:
        return f"1 for {name}, 0 for {option.secondary_opts[-1]}."
    if option.is_flag:
        return f"1 for {name}."
    if option.count:
        return f"How many times {name} is given."
    return f"The value of {name}" + (
        "; several are separated by spaces." if option.multiple else "."
    )


# --- man pages: man(7) -------------------------------------------------------------------------


def man_page(page: Page) -> str:
    lines = [
        ".\\\" Made by tools/generate.py from the command line's definition.",
        f'.TH {page.file.upper()} 1 "" "{PROGRAM} {__version__}" "User Commands"',
        *(".SH NAME", f"{_roff(page.file)} \\- {_roff(_as_phrase(page.summary))}"),
        *(
            ".SH SYNOPSIS",
            f".B {_roff(page.name)}",
            _roff(page.usage.removeprefix(page.name + " ")),
        ),
        ".SH DESCRIPTION",
        _roff(page.summary),
    ]
    for paragraph in page.text:
        lines += [".PP", _roff(paragraph)]
    for title, options in page.sections.items():
        lines.append(".SH OPTIONS" if title == "Options" else f'.SH "{title.upper()} OPTIONS"')
        for option in options:
            lines += [".TP", _roff_usage(option), _roff(option.help)]
    if page.commands:
        lines.append(".SH COMMANDS")
        for name, summary in page.commands:
            reference = f".BR {_roff(f'{page.file}-{name}')} (1)"
            lines += [".TP", reference, _roff(summary)]
    if page.keys:
        lines += [".SH KEYS OF THE LIVE TABLE", *_roff_list(iter(page.keys))]
    lines += [".SH EXIT STATUS", *_roff_list(iter(page.exit_status))]
    lines += [".SH ENVIRONMENT", *_roff_list(_variables(page))]
    lines += [".SH EXAMPLES", ".nf", *map(_roff, page.examples), ".fi"]
    if related := _related(page):
        lines += [".SH SEE ALSO", ",\n".join(f".BR {_roff(name)} (1)" for name in related)]
    return "\n".join(lines).replace("(1),\n", "(1) ,\n") + "\n"


def _variables(page: Page) -> Iterator[tuple[str, str]]:
    for options in page.sections.values():
        for option in options:
            if option.variable:
                yield option.variable, option.values
    yield from VARIABLES


def _related(page: Page) -> list[str]:
    if len(page.path) == 1:
        return [f"{PROGRAM}-{name}" for name in COMMANDS]
    return ["-".join(page.path[:-1]), *([PROGRAM] if len(page.path) > 2 else [])]


def _as_phrase(summary: str) -> str:
    return summary[:1].lower() + summary[1:].removesuffix(".")


def _roff_usage(option: Option) -> str:
    names = ", ".join(f"\\fB{_roff(name)}\\fR" for name in option.names)
    return names + (f" \\fI{_roff(option.value)}\\fR" if option.value else "")


def _roff_list(items: Iterator[tuple[str, str]]) -> list[str]:
    lines = []
    for term, text in items:
        lines += [".TP", f".B {_roff(term)}", _roff(text)]
    return lines


def _roff(text: str) -> str:
    """Escape text for roff: code between backquotes becomes bold, hyphens stay hyphens, and no line
    is a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)
    text = re.sub(r"[^\x00-\x7f]", lambda char: f"\\[u{ord(char[0]):04X}]", text)
    return f"\\&{text}" if text.startswith((".", "'")) else text


# --- the reference: Markdown -------------------------------------------------------------------


def reference() -> str:
    lines = [
        "<!-- Made by tools/generate.py from the command line's definition. -->",
        "",
        "# The command line",
        "",
        "Data goes to standard output, messages to standard error. Options of `mitml4` itself come",
        "before the command. Every option can be set by an environment variable; values of a",
        "repeatable option are separated by spaces. An empty variable counts as unset.",
        "",
    ]
    for page in pages():
        lines += _reference_of(page)
    lines += ["## Exit status", ""]
    lines += [f"- `{code}`: {text}" for code, text in EXIT_STATUS]
    lines += ["", "## Limits", ""]
    lines += [f"- {text}" for text in LIMITS]
    lines += ["", "## Environment", ""]
    lines += [f"- `{name}`: {text}" for name, text in VARIABLES]
    return "\n".join(lines) + "\n"


def _reference_of(page: Page) -> Iterator[str]:
    yield from (f"## {page.name}", "", f"`{page.usage}`", "", page.summary, "")
    for paragraph in page.text:
        yield from (_markdown(paragraph), "")
    for name, summary in page.commands:
        anchor = f"{page.name} {name}".replace(" ", "-")
        yield f"- [`{name}`](#{anchor}): {summary}"
    if page.commands:
        yield ""
    for title, options in page.sections.items():
        yield from (f"**{title}**", "")
        for option in options:
            variable = f" (`{option.variable}`)" if option.variable else ""
            yield f"- `{option.usage}`: {_markdown(option.help)}{variable}"
        yield ""
    if page.keys:
        yield from ("**Keys of the live table**", "")
        yield from (f"- `{keys}`: {_markdown(text)}" for keys, text in page.keys)
        yield ""
    if page.exit_status is not EXIT_STATUS:
        yield from ("**Exit status**", "")
        yield from (f"- `{code}`: {_markdown(text)}" for code, text in page.exit_status)
        yield ""
    yield from ("```sh", *page.examples, "```", "")


def _markdown(text: str) -> str:
    """Escape prose for Markdown; only code between backquotes is markup."""
    return re.sub(r"[*<]", r"\\\g<0>", text)


# --- the events: Markdown ----------------------------------------------------------------------


EVENTS_INTRODUCTION: Final = """\
<!-- Made by tools/generate.py from the classes of the events. -->

# The events

`--json` and `-o` write one compact JSON object per line. Each has `type`, `time` (RFC 3339, UTC,
microseconds), `v` (1), and all fields of its type; unknown values are `null`. Fields may be added
in later versions, but are never removed. Addresses are `{"ip": "…", "port": n}`; durations (`…_s`)
are in seconds, sizes in bytes; bytes that are not UTF-8 become `\\xNN`. `mitml4 schema` prints the
JSON Schema, with the type of each field.
"""


def events_page() -> str:
    schema = json_schema()
    definitions = schema["$defs"]
    lines = [
        EVENTS_INTRODUCTION,
        "| type | when | fields besides `type`, `time` and `v` |",
        "|---|---|---|",
    ]
    for item in schema["oneOf"]:
        event = _definition(item, definitions)
        names = [name for name in event["properties"] if name not in ("type", "time", "v")]
        kind = event["properties"]["type"]["const"]
        lines.append(f"| `{kind}` | {_cell(event)} | {_names(names)} |")
    lines += ["", "## `details` of `flow.layer`, by protocol", ""]
    lines += ["Protocols that are only named have none.", ""]
    lines += ["| protocol | content | fields |", "|---|---|---|"]
    for rule in definitions["flow.layer"]["allOf"]:
        protocol = rule["if"]["properties"]["protocol"]["const"]
        details = _definition(rule["then"]["properties"]["details"]["anyOf"][0], definitions)
        lines.append(f"| `{protocol}` | {_cell(details)} | {_names(list(details['properties']))} |")
    return "\n".join(lines) + "\n"


def _definition(reference: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    definition: dict[str, Any] = definitions[reference["$ref"].removeprefix("#/$defs/")]
    return definition


def _cell(definition: dict[str, Any]) -> str:
    return _markdown(definition["description"]).replace("|", "\\|")


def _names(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


# --- everything --------------------------------------------------------------------------------


def completion(shell: str) -> str:
    """click's script, which is the same in all its versions that we support."""
    kind = get_completion_class(shell)
    assert kind is not None
    # Not kind.source: the one for bash runs the bash that is installed on this machine.
    script = ShellComplete.source(kind(cli, {}, PROGRAM, COMPLETE_VARIABLE))
    return "\n".join(line.rstrip() for line in script.strip().splitlines()) + "\n"


def generated() -> dict[str, str]:
    """Every file, by its path below the project's root."""
    files = {f"completions/{name}": completion(shell) for shell, name in COMPLETIONS.items()}
    files |= {f"man/{page.file}.1": man_page(page) for page in pages()}
    files["docs/cli.md"] = reference()
    files["docs/events.md"] = events_page()
    files["docs/events.schema.json"] = (
        json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    )
    return files


def stale(root: Path) -> list[str]:
    """Files that are missing, outdated, or superfluous."""
    files = generated()
    made = {path.relative_to(root).as_posix() for path in root.glob("man/*")}
    made |= {path.relative_to(root).as_posix() for path in root.glob("completions/*")}
    wrong = {name for name, text in files.items() if _read(root / name) != text}
    return sorted(wrong | (made - files.keys()))


def write(root: Path) -> None:
    for name in stale(root):
        if text := generated().get(name):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        else:
            (root / name).unlink()


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        if names := stale(ROOT):
            print(f"error: not up to date: {', '.join(names)}", file=sys.stderr)
            sys.exit("hint: python tools/generate.py")
    elif sys.argv[1:]:
        sys.exit("usage: generate.py [--check]")
    else:
        write(ROOT)


if __name__ == "__main__":
    main()
