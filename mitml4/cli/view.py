"""`mitml4 view`: the flows of a file, as a report or as lines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mitml4.cli.console import Console
from mitml4.cli.options import Command, SectionOption
from mitml4.cli.values import File, Parsed, parse_condition, parse_output
from mitml4.errors import ExitCode, MitmError

if TYPE_CHECKING:
    from mitml4.filter.expression import Filter
    from mitml4.view.report import Report

__all__ = ["view"]


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  mitml4 view events.jsonl
  mitml4 view events.jsonl --html report.html
  mitml4 view traffic.pcapng --keylog keys.log --filter 'status:5xx' --html failures.html
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
    "--tunnels", is_flag=True, cls=SectionOption, section="Input",
    help="Also decode IP-in-IP, GRE, VXLAN and GTP tunnels of a capture.",
)  # fmt: skip
@click.option(
    "--payload", is_flag=True, cls=SectionOption, section="Input",
    help="Show what the flows of a capture said: bodies, messages, and the bytes of other innermost"
    " protocols, 64 KiB of each.",
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
    tunnels: bool,
    payload: bool,
) -> int:
    """Show the flows of a file, or write a report of them.

    FILE has the events that a session wrote (-o), or is a capture; it may be compressed (.gz,
    .zst). The output is a line for each flow, or with --html a report.
    """
    from mitml4.reading import read
    from mitml4.view.outline import line_of
    from mitml4.view.report import Report

    report = Report(os.path.basename(file)) if html else None
    failure: MitmError | None = None
    try:
        for flow in read(file, keylog=keylog, tunnels=tunnels, payload=payload):
            if filter and not filter.matches(flow):
                continue
            if report:
                report.add(flow)
            else:
                console.data(f"{line_of(flow)}\n")
    except MitmError as error:
        failure = error
    if report and html:
        if failure:
            report.note = f"The file could not be read to its end: {failure.message}"
        if not failure or report.summary.flows:
            _write(report, html)
            console.say(f"report: {html}")
    if failure:
        console.error(failure)
    return ExitCode.FAILED if failure else ExitCode.DONE


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
