"""`mitml4 detect`: captures → events or a table, and the exit code."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mitml4.cli.console import Console
from mitml4.cli.interrupted_reading import Interruption
from mitml4.cli.options import Command, SectionOption, capture_files_options, shown_options
from mitml4.cli.values import File
from mitml4.errors import ExitCode, UsageError, cannot_read
from mitml4.signals import ending_signals

if TYPE_CHECKING:
    from mitml4.capture.tls.secrets import Secrets
    from mitml4.filter.expression import Filter
    from mitml4.sinks.tcp_reader import TcpReader

__all__ = ["detect"]


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  mitml4 detect traffic.pcapng --keylog keys.log
  mitml4 detect *.pcap --json | jq -c 'select(.type=="flow.close") | .stack'
  tcpdump -w - | mitml4 detect -
""",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE…", type=File(str))
@click.option(
    "--json", is_flag=True, cls=SectionOption, section="Output",
    help="Print the events as JSON lines, also on a terminal.",
)  # fmt: skip
@capture_files_options
@shown_options
@click.option(
    "--jobs", type=click.IntRange(min=1, max=64), metavar="N", cls=SectionOption, section="Input",
    help="Use up to N processes, where the output is only JSON lines: each reads one of several"
    " captures, or follows a share of the flows of a single one. Without it, as many as there are"
    " processors, if the captures are large.",
)  # fmt: skip
@click.option(
    "--no-tunnels", is_flag=True, cls=SectionOption, section="Input",
    help="Do not look into tunnels: IP-in-IP, GRE, VXLAN, Geneve, GTP, Teredo and L2TP.",
)  # fmt: skip
@click.option(
    "--keylog", type=File(), metavar="FILE", cls=SectionOption, section="Input",
    help="Decrypt TLS with the secrets of this key log (SSLKEYLOGFILE's format), in addition to"
    " those in a pcapng.",
)  # fmt: skip
@click.pass_obj
def detect(
    console: Console,
    /,
    files: tuple[str, ...],
    *,
    json: bool,
    jobs: int | None,
    no_tunnels: bool,
    keylog: Path | None,
    har: Path | None,
    pcap_plain: Path | TcpReader | None,
    filter: Filter | None,
    **given: Any,
) -> int:
    """Name the protocol stack of each flow of TCP and UDP in captures.

    FILE is a pcap or pcapng capture, plain or compressed (.gz, .zst); - is standard input. The
    output is a table on a terminal, otherwise the same events as of `intercept`, as JSON lines.
    """
    from mitml4.capture.reassembly import MAX_FLOWS
    from mitml4.capture.tls.secrets import Secrets
    from mitml4.cli.capture_reading import CaptureReading, process_count
    from mitml4.cli.configure import refuse_one_file_for_two, shown
    from mitml4.session.detect import CaptureSession
    from mitml4.session.reporting.hub import Hub
    from mitml4.session.reporting.outputs import capture_outputs

    inputs = [*map(Path, files), *([keylog] if keylog else [])]
    refuse_one_file_for_two({"har": har, "pcap_plain": pcap_plain}, inputs)
    settings = shown(**given)
    secrets = Secrets()
    if keylog:
        _read_keylog(keylog, secrets)
    outputs = capture_outputs(
        as_json=json, color=console.color, headers=settings.headers, har=har, plain=pcap_plain
    )
    is_shared = not (filter or settings.payload)  # they need what is known of all flows
    count = process_count(files, jobs, is_shared=is_shared) if outputs.are_lines else 1
    if har:  # an archive has headers, also where the events have none
        settings = replace(settings, headers=True)
    _tune_gc()
    hub = Hub(outputs.sinks, condition=filter if count == 1 else None)
    session = CaptureSession(hub, tunnels=not no_tunnels, shown=settings, secrets=secrets)
    session.start()
    interruption = Interruption(ending_signals())
    with interruption:
        reading = CaptureReading(session, outputs, interruption, console)
        if count == 1:
            failure = reading.in_turn(files)
        elif len(files) == 1:
            failure = reading.shared(files[0], count)
        else:
            failure = reading.at_once(files, count, filter)
    ended_by = interruption.by
    session.stop(ended_by.name if ended_by else failure.message if failure else "done")
    outputs.finish()
    if session.cut_short:
        console.say(
            f"{session.cut_short:,} flows were not followed to their end:"
            f" more than {MAX_FLOWS:,} at a time, or the memory limit was reached"
        )
    if ended_by:
        return 128 + ended_by
    return ExitCode.FAILED if failure else ExitCode.DONE


def _tune_gc() -> None:
    """Collect cyclic garbage rarely: flows leave next to none, and a collection traverses what all
    of them keep. At 20,000 objects, that took a twentieth of the time of a GB of short flows. The
    objects that exist by now stay in use, and are excluded."""
    gc.freeze()
    gc.set_threshold(200_000)


def _read_keylog(path: Path, secrets: Secrets) -> None:
    """Raises UsageError for a file without TLS secrets."""
    try:
        with path.open("rb") as lines:
            found = sum(map(secrets.add, lines))
    except OSError as error:
        raise cannot_read(UsageError, path, error) from error
    if not found:
        raise UsageError(
            f"no TLS secrets in {path}",
            hint="a key log is what SSLKEYLOGFILE=keys.txt makes curl and browsers write",
        )
