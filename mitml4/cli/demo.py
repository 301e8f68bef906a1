"""`mitml4 demo`: options → the lab's tour → what was seen, and the exit code."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Final

import click
import trio
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mitml4.errors import ExitCode, MachineError, MitmError
from mitml4.lab.privilege import become_root_of_a_user_namespace
from mitml4.lab.tour import TourReport, take_tour

__all__ = ["demo"]

_TOOLS: Final = {"ip": "iproute2", "nft": "nftables", "curl": "curl"}
_SECONDS_TO_LOOK: Final = 0.7

_WELCOME: Final = """\
A lab in network namespaces: client ── router ── server. mitml4 intercepts in the router.
"""


@click.command(
    epilog="""\b
Examples:
  mitml4 demo
  mitml4 demo --json | jq -c 'select(.type=="flow.close") | .stack'
"""
)
@click.option("--json", "as_json", is_flag=True, help="Print the events as JSON lines.")
def demo(*, as_json: bool) -> None:
    """Watch mitml4 at work in a lab of its own.

    Real clients visit web servers, proxies, a mail server and more, in network namespaces that
    nothing else uses; `mitml4 intercept` stands between them. Neither the network nor this
    machine's settings are touched. Needs no root where users may make namespaces.
    """
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    _require_tools()
    if os.geteuid() != 0:
        become_root_of_a_user_namespace()
    talk = Console(stderr=True, highlight=False)
    if sys.stdout.isatty() and not as_json:
        talk.print(_WELCOME)
        report = _take(_SECONDS_TO_LOOK, show_table=True)
    else:
        report = _take(0.0, show_table=False)
    _print(report, talk)
    if report.leftovers or not all(seen.as_expected for seen in report.seen):
        sys.exit(ExitCode.FAILED)


def _require_tools() -> None:
    missing = [package for tool, package in _TOOLS.items() if shutil.which(tool) is None]
    if missing:
        raise MachineError(
            f"the demo needs what is not installed: {', '.join(missing)}",
            hint=f"sudo apt install {' '.join(missing)}",
        )


def _take(pause_s: float, *, show_table: bool) -> TourReport:
    async def tour() -> TourReport:
        return await take_tour(pause_s=pause_s, copy_events=None if show_table else _print_line)

    try:
        return trio.run(tour)
    except BaseExceptionGroup as group:
        raise _sole_error(group) from group


def _print_line(line: str) -> None:
    print(line, flush=True)


def _sole_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error in a nursery's group that is for the user; the group itself if there is more."""
    ours, other = group.split((MitmError, BrokenPipeError))
    if ours is None or other is not None:
        return group
    error: BaseException = ours
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _print(report: TourReport, talk: Console) -> None:
    table = Table("client", "stack seen", "what the client got", box=None, pad_edge=False)
    for seen in report.seen:
        stacks = ", ".join(" › ".join(stack) or "(nothing)" for stack in seen.stacks)
        style = "green" if seen.as_expected else "red"
        table.add_row(seen.visit.title, Text(stacks, style=style), Text(seen.outcome))
    talk.print()
    talk.print(table)
    talk.print()
    if report.interrupted:
        talk.print("Ended early.")
    if report.leftovers:
        talk.print("[red]Something was left behind:[/red]")
        talk.print(Text(report.leftovers))
    else:
        talk.print("Rules, routes and settings are as they were before.")
