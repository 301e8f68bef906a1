"""A command, as every page shows it: its definition by click, as plain data."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import click

from mitml4.cli.main import COMMANDS, ENVIRONMENT_PREFIX, PROGRAM, cli
from mitml4.cli.options import section_of
from mitml4.errors import ExitCode

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
    default = option.default
    return " ".join(default) if isinstance(default, list) else str(default)


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
