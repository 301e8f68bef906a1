"""`mitml4 view`: the flows of a file, as a report or as lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from mitml4.cli.console import Console
from mitml4.cli.options import Command, SectionOption
from mitml4.cli.values import File, Parsed, parse_condition, parse_output
from mitml4.errors import ExitCode, MitmError, UsageError
from mitml4.screen.keyboard import has_keyboard
from mitml4.screen.keys import VIEW_KEYS
from mitml4.screen.terminal import is_terminal, width_of

if TYPE_CHECKING:
    from mitml4.filter.expression import Filter
    from mitml4.model.flow import Flow
    from mitml4.view.report import Report

__all__ = ["view"]


@click.command(
    cls=Command,
    keys=VIEW_KEYS,
    epilog="""\b
Examples:
  mitml4 view events.jsonl --html report.html
  mitml4 view traffic.pcapng --keylog keys.log --filter 'status:5xx' --html failures.html
  ssh router mitml4 intercept --iface eth0 --json | mitml4 view -
""",
)
@click.argument("file", metavar="FILE", type=File(str))
@click.option(
    "--html", type=File(parse_output), metavar="FILE", cls=SectionOption, section="Output",
    help="Write a report to this file, as a page of HTML that needs no network: the flows with "
    "their times, layers and requests, what was passed through and why, hosts and certificates. An "
    "existing file is replaced.",
)  # fmt: skip
@click.option(
    "--filter", type=Parsed("expr", parse_condition), cls=SectionOption, section="Output",
    help="Show only the flows that match, such as 'host:*.example.com status:5xx'. docs/filter.md "
    "describes the language.",
)  # fmt: skip
@click.option(
    "--keylog", type=File(), metavar="FILE", cls=SectionOption, section="Input",
    help="Decrypt the TLS of a capture with the secrets of this key log, in addition to those in a "
    "pcapng.",
)  # fmt: skip
@click.option(
    "--no-tunnels", is_flag=True, cls=SectionOption, section="Input",
    help="Do not look into tunnels of a capture: IP-in-IP, GRE, VXLAN, Geneve, GTP, Teredo and"
    " L2TP.",
)  # fmt: skip
@click.option(
    "--payload", is_flag=True, cls=SectionOption, section="Input",
    help="Show what the flows of a capture said: bodies, messages, and the bytes of other innermost"
    " protocols, 64 KiB of each.",
)  # fmt: skip
@click.option(
    "--show-secrets", is_flag=True, cls=SectionOption, section="Input",
    help="Show the values of Authorization, Proxy-Authorization, Cookie and Set-Cookie of a"
    " capture, and passwords, instead of redacting them. What a session has redacted stays so.",
)  # fmt: skip
@click.pass_obj
def view(
    console: Console,
    /,
    file: str,
    *,
    html: Path | None,
    filter: Filter | None,
    keylog: Path | None,
    no_tunnels: bool,
    payload: bool,
    show_secrets: bool,
) -> int:
    """Show the flows of a file, or write a report of them.

    FILE has the events that a session wrote (-o), or is a capture; it may be compressed (.gz,
    .zst); - is standard input, whose flows are shown as they close. On a terminal the flows can be
    browsed, opened, filtered and sorted by keys. Otherwise the output is a line for each flow. With
    --html it is a report.
    """
    from mitml4.reading import read, read_stream

    how: dict[str, Any] = {
        "keylog": keylog,
        "tunnels": not no_tunnels,
        "payload": payload,
        "show_secrets": show_secrets,
    }
    is_stdin = file == "-"
    name = "standard input" if is_stdin else os.path.basename(file)
    flows = read_stream(_standard_input(), name, **how) if is_stdin else read(file, **how)
    if filter:
        flows = (flow for flow in flows if filter.matches(flow))
    keys_from = _terminal() if is_stdin else None
    if html:
        failure = _write_report(console, name, flows, html)
    elif is_terminal(sys.stdout) and has_keyboard(keys_from):
        from mitml4.view.terminal import browse

        failure = browse(
            name,
            flows,
            sys.stdout.fileno(),
            console.color,
            keys_from=keys_from,
            is_slow=is_stdin,
        )
    else:
        failure = _list(console, flows)
    if failure:
        console.error(failure)
    return ExitCode.FAILED if failure else ExitCode.DONE


def _standard_input() -> BinaryIO:
    """Without a buffer, whose lock a thread would hold at the end. Raises UsageError."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError(
            "there is nothing to read on standard input",
            hint="mitml4 intercept --iface eth0 --json | mitml4 view -",
        )
    return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)


def _terminal() -> int:
    """The terminal whose keyboard a person uses while standard input is a file; -1: none."""
    try:
        return os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return -1


def _list(console: Console, flows: Iterator[Flow]) -> MitmError | None:
    """Write a line for each flow. Returns what ended the reading, if anything did."""
    from mitml4.view.listing import listing

    reading = Reading(flows)
    if reading.is_empty and reading.failure:
        return reading.failure
    for line in listing(reading, width_of(sys.stdout)):
        console.data(f"{line}\n")
    return reading.failure


def _write_report(
    console: Console, name: str, flows: Iterator[Flow], path: Path
) -> MitmError | None:
    """Write a report of what can be read. Returns what ended the reading, if anything did."""
    from mitml4.view.report import Report

    report = Report(name)
    reading = Reading(flows)
    for flow in reading:
        report.add(flow)
    if reading.failure:
        report.note = f"The file could not be read to its end: {reading.failure.message}"
    if not reading.failure or report.summary.flows:
        _write(report, path)
        console.say(f"report: {path}")
    return reading.failure


def _write(report: Report, path: Path) -> None:
    """Raises MitmError."""
    from mitml4.sinks.files import OutputFile, open_file

    file = OutputFile(open_file(path), str(path))
    try:
        for part in report.page():
            file.write([part.encode("utf-8", "backslashreplace")])
        file.close()
    except OSError as error:
        raise file.failure(error) from error


class Reading:
    """Flows that end where the file cannot be read any further."""

    def __init__(self, flows: Iterator[Flow]) -> None:
        self.failure: MitmError | None = None
        self._flows = self._until_failure(flows)
        first = next(self._flows, None)
        self.is_empty = first is None
        if first is not None:
            self._flows = chain([first], self._flows)

    def __iter__(self) -> Iterator[Flow]:
        return self._flows

    def _until_failure(self, flows: Iterator[Flow]) -> Iterator[Flow]:
        try:
            yield from flows
        except MitmError as error:
            self.failure = error
