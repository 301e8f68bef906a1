"""Man pages, in the language of man(7)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from generating.pages import VARIABLES, Option, Page
from mitml4 import __version__
from mitml4.cli.main import COMMANDS, PROGRAM


def man_page(page: Page) -> str:
    lines = [
        ".\\\" Made by tools/generate.py from the command line's definition.",
        f'.TH {page.file.upper()} 1 "" "{PROGRAM} {__version__}" "User Commands"',
        *(".SH NAME", f"{roff(page.file)} \\- {roff(_as_phrase(page.summary))}"),
        *(
            ".SH SYNOPSIS",
            f".B {roff(page.name)}",
            roff(page.usage.removeprefix(page.name + " ")),
        ),
        ".SH DESCRIPTION",
        roff(page.summary),
    ]
    for paragraph in page.text:
        lines += [".PP", roff(paragraph)]
    for title, options in page.sections.items():
        lines.append(".SH OPTIONS" if title == "Options" else f'.SH "{title.upper()} OPTIONS"')
        for option in options:
            lines += [".TP", _roff_usage(option), roff(option.help)]
    if page.commands:
        lines.append(".SH COMMANDS")
        for name, summary in page.commands:
            reference = f".BR {roff(f'{page.file}-{name}')} (1)"
            lines += [".TP", reference, roff(summary)]
    if page.keys:
        lines += [".SH KEYS OF THE LIVE TABLE", *_roff_list(iter(page.keys))]
    lines += [".SH EXIT STATUS", *_roff_list(iter(page.exit_status))]
    lines += [".SH ENVIRONMENT", *_roff_list(_variables(page))]
    lines += [".SH EXAMPLES", ".nf", *map(roff, page.examples), ".fi"]
    if related := _related(page):
        lines += [".SH SEE ALSO", ",\n".join(f".BR {roff(name)} (1)" for name in related)]
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
    names = ", ".join(f"\\fB{roff(name)}\\fR" for name in option.names)
    return names + (f" \\fI{roff(option.value)}\\fR" if option.value else "")


def _roff_list(items: Iterator[tuple[str, str]]) -> list[str]:
    lines = []
    for term, text in items:
        lines += [".TP", f".B {roff(term)}", roff(text)]
    return lines


def roff(text: str) -> str:
    """Escape text for roff: code between backquotes becomes bold, hyphens stay hyphens, and no line
    is a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)
    text = re.sub(r"[^\x00-\x7f]", lambda char: f"\\[u{ord(char[0]):04X}]", text)
    return f"\\&{text}" if text.startswith((".", "'")) else text
