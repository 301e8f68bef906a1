"""`mitml4 demo`: options → the lab's tour → a report, and the exit code."""

from __future__ import annotations

import os
import shutil
import sys
from functools import partial
from typing import Final

import click
import trio
from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

from mitml4.cli.console import Console
from mitml4.errors import ExitCode, MachineError
from mitml4.lab.privilege import become_root_of_a_user_namespace
from mitml4.lab.tour import TourReport, take_tour
from mitml4.screen.terminal import is_terminal, wants_color

__all__ = ["demo"]

_TOOLS: Final = {"ip": "iproute2", "nft": "nftables", "curl": "curl"}
_SECONDS_TO_LOOK: Final = 0.7


@click.command(
    epilog="""\b
Examples:
  mitml4 demo
  mitml4 demo --json | jq -c 'select(.type=="flow.close") | .stack'
"""
)
@click.option("--json", is_flag=True, help="Print the events as JSON lines.")
@click.pass_obj
def demo(console: Console, /, *, json: bool) -> ExitCode:
    """Show mitml4 at work in a lab of network namespaces.

    Real clients connect to web servers, proxies, a mail server and others, and `mitml4 intercept`
    intercepts them. Neither the network nor this machine's settings are touched. Needs no root
    where users may create namespaces.
    """
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    _require_tools()
    if os.geteuid() != 0:
        become_root_of_a_user_namespace()
    if is_terminal(sys.stdout) and not json:
        tour = partial(take_tour, pause_s=_SECONDS_TO_LOOK, copy_events=None)
    else:
        tour = partial(take_tour, pause_s=0.0, copy_events=lambda line: console.data(f"{line}\n"))
    report = trio.run(partial(tour, color=console.color))
    if console.verbosity >= 0:
        _print(report, console)
    as_expected = all(seen.as_expected for seen in report.seen)
    return ExitCode.DONE if as_expected and not report.leftovers else ExitCode.FAILED


def _require_tools() -> None:
    missing = [package for tool, package in _TOOLS.items() if shutil.which(tool) is None]
    if missing:
        raise MachineError(
            f"the demo needs packages that are not installed: {', '.join(missing)}",
            hint=f"sudo apt install {' '.join(missing)}",
        )


def _print(report: TourReport, console: Console) -> None:
    """Print each client, the stacks seen, the outcome, and what is left. It goes to standard
    error."""
    table = Table(box=None, pad_edge=False)
    table.add_column("client", no_wrap=True)
    table.add_column("stack seen", no_wrap=True)
    table.add_column("what the client got")
    for seen in report.seen:
        stacks = ", ".join(" › ".join(stack) or "(nothing)" for stack in seen.stacks)
        style = "green" if seen.as_expected else "red"
        table.add_row(seen.visit.title, Text(stacks, style=style), Text(seen.outcome))
    talk = RichConsole(
        stderr=True, highlight=False, no_color=not wants_color(console.color, sys.stderr)
    )
    talk.print(table)
    talk.print()
    if report.interrupted:
        talk.print("Ended early.")
    if report.leftovers:
        talk.print("[red]Something was left behind:[/red]")
        talk.print(Text(report.leftovers))
    else:
        talk.print("Rules, routes and settings are as they were before.")
