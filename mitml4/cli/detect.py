"""`mitml4 detect`: captures → events or a table, and the exit code."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

import click

from mitml4.cli.console import Console
from mitml4.cli.interrupted_reading import InterruptedReadError, Interruptible, Interruption
from mitml4.cli.options import Command, SectionOption, capture_files_options, shown_options
from mitml4.cli.progress import progress_of, progress_of_all
from mitml4.cli.values import File
from mitml4.errors import CaptureError, ExitCode, UsageError, cannot_read
from mitml4.signals import ending_signals

if TYPE_CHECKING:
    from mitml4.capture.tls.secrets import Secrets
    from mitml4.filter.expression import Filter
    from mitml4.session.detect import CaptureOutcome, CaptureSession
    from mitml4.session.reporting.outputs import CaptureOutputs
    from mitml4.sinks.tcp_reader import TcpReader

__all__ = ["detect"]

_WORTH_PROCESSES: Final = 32 << 20
"""Captures of this number of bytes take some tenths of a second; to start processes takes one."""


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
    help="Read up to N captures at a time, each in a process, where the output is only JSON lines."
    " Without it, as many as there are processors, if the captures are large.",
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
    count = _process_count(files, jobs) if outputs.are_lines else 1
    if har:  # an archive has headers, also where the events have none
        settings = replace(settings, headers=True)
    _tune_gc()
    hub = Hub(outputs.sinks, condition=filter if count == 1 else None)
    session = CaptureSession(hub, tunnels=not no_tunnels, shown=settings, secrets=secrets)
    session.start()
    interruption = Interruption(ending_signals())
    with interruption:
        if count == 1:
            failure = _read_in_turn(files, session, outputs, interruption, console)
        else:
            failure = _read_at_once(files, count, session, filter, interruption, console)
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


def _process_count(files: Sequence[str], jobs: int | None) -> int:
    """How many processes read these captures: one if any is a pipe, of which the events are printed
    as they come."""
    if not all(map(os.path.isfile, files)):
        return 1
    if jobs is None:
        is_worth_it = sum(map(os.path.getsize, files)) >= _WORTH_PROCESSES
        jobs = len(os.sched_getaffinity(0)) if is_worth_it else 1
    return min(jobs, len(files))


def _read_in_turn(
    files: Sequence[str],
    session: CaptureSession,
    outputs: CaptureOutputs,
    interruption: Interruption,
    console: Console,
) -> CaptureError | None:
    """Read all captures, in this process. Returns what was wrong first."""
    failure: CaptureError | None = None

    def before_waiting() -> None:
        """The next packets may come much later, so nothing waits for them."""
        outputs.flush()
        interruption.check()

    for name in files:
        before_read = interruption.check if os.path.isfile(name) else before_waiting
        try:
            with _opened(name) as stream, progress_of(stream, _shown(name), console.color) as shown:
                _read(session, shown, name, interruption, before_read)
        except InterruptedReadError:
            break
        except CaptureError as error:
            outputs.flush()
            console.error(error)
            failure = failure or error
    return failure


def _read_at_once(
    files: Sequence[str],
    count: int,
    session: CaptureSession,
    condition: Filter | None,
    interruption: Interruption,
    console: Console,
) -> CaptureError | None:
    """The same, in so many processes."""
    from mitml4.session.capture_processes import CaptureProcesses

    failure: CaptureError | None = None
    read = partial(_read_for_another, session, condition)
    with (
        CaptureProcesses(files, count, read, lambda: interruption.by) as processes,
        progress_of_all(files, console.color) as is_done,
    ):
        for capture in processes.captures():
            assert capture.outcome
            session.add(capture.outcome, capture.lines())
            if error := capture.outcome.failure:
                console.error(error)
                failure = failure or error
            is_done(capture.name)
    return failure


def _read_for_another(
    like: CaptureSession, condition: Filter | None, name: str, send: Callable[[bytes], object]
) -> CaptureOutcome:
    """Read a capture as `like` would, in another process than that of `like`."""
    from mitml4.session.capture_processes import STOP
    from mitml4.session.detect import CaptureSession
    from mitml4.session.reporting.hub import Hub
    from mitml4.session.reporting.outputs import lines_for_another

    sink = lines_for_another(send, headers=like.shown.headers)
    hub = Hub([sink], condition=condition)
    session = CaptureSession(hub, tunnels=like.tunnels, shown=like.shown, secrets=like.secrets)
    failure: CaptureError | None = None
    with Interruption([STOP]) as interruption:
        try:
            with _opened(name) as stream:
                _read(session, stream, name, interruption, interruption.check)
        except InterruptedReadError:
            pass
        except CaptureError as error:
            failure = error
        sink.finish()
    return session.outcome(failure)


def _read(
    session: CaptureSession,
    stream: BinaryIO,
    name: str,
    interruption: Interruption,
    before_read: Callable[[], None],
) -> None:
    """Raises CaptureError where the capture is broken or the reading was interrupted."""
    from mitml4.capture.files.reader import read_packets

    packets = read_packets(
        cast("BinaryIO", Interruptible(stream, interruption)),
        _shown(name),
        on_secrets=session.add_secrets,
        on_comment=session.add_comment,
        on_read=before_read,
    )
    session.read(packets)


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


def _shown(name: str) -> str:
    return "standard input" if name == "-" else name


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        if sys.stdin is None:  # the calling process has closed it
            raise CaptureError("standard input is closed", hint="mitml4 detect FILE.pcap")
        yield sys.stdin.buffer
        return
    try:
        stream = Path(name).open("rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise cannot_read(CaptureError, name, error) from error
    with stream:
        yield stream
