"""`mitml4 doctor`: the checks, as a list or as JSON lines, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click

from mitml4.cli.console import Console
from mitml4.cli.options.sections import Command
from mitml4.encoding import to_line
from mitml4.errors import ExitCode
from mitml4.printable import printable
from mitml4.screen.terminal import wants_color
from mitml4.session.doctor.check import Check

__all__ = ["doctor"]

_SIGNS: Final = {"ok": ("✓", "green"), "fail": ("✗", "red"), "skip": ("–", "yellow")}
_TITLES: Final = {"ca": "certificate authority"}
_NAME_WIDTH: Final = 20


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  mitml4 doctor
  sudo mitml4 doctor
  mitml4 doctor --json | jq -r 'select(.state=="fail") | .remedy[]'
""",
)
@click.option(
    "--ca-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Directory of the certificate authority. Default: $XDG_DATA_HOME/mitml4.",
)
@click.option("--json", is_flag=True, help="Print each check as one line of JSON.")
@click.pass_obj
def doctor(console: Console, /, *, ca_dir: Path | None, json: bool) -> ExitCode:
    """Say whether this machine can intercept, and what to do where not.

    It checks the kernel, the tools, privileges, firewall rules and settings, and the certificate
    authority. It prints a remedy for each failure and, at the end, whether `intercept` and `run`
    would work. It tests in temporary namespaces: nothing on this machine is changed. Some checks
    need root. Exits with 3 if neither of the two can work.
    """
    from mitml4.session.doctor.examination import examine

    checks = list(examine(ca_dir))
    if json:
        lines: Iterable[str] = (to_line(asdict(each)) for each in checks)
    else:
        styled = sys.stdout is not None and wants_color(console.color, sys.stdout)
        lines = _list(checks, styled=styled)
    console.data("".join(f"{line}\n" for line in lines))
    verdicts = [each.state for each in checks if each.group == "verdict"]
    return ExitCode.CANNOT if set(verdicts) == {"fail"} else ExitCode.DONE


def _list(checks: Iterable[Check], *, styled: bool) -> Iterator[str]:
    """The checks in their groups. Each remedy is one line, to copy and paste."""
    group = None
    for check in checks:
        if check.group != group:
            group = check.group
            yield _styled(_TITLES.get(group, group), styled, bold=True)
        sign, color = _SIGNS[check.state]
        mark = _styled(sign, styled, fg=color)
        yield f"  {mark} {check.name:<{_NAME_WIDTH}} {printable(check.found)}"
        for command in check.remedy:
            yield " " * (_NAME_WIDTH + 5) + _styled(printable(command), styled, fg="cyan")


def _styled(text: str, styled: bool, *, fg: str | None = None, bold: bool | None = None) -> str:
    return click.style(text, fg=fg, bold=bold) if styled else text
