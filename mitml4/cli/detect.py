"""`mitml4 detect`: captures → events or a table, and the exit code."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self, cast

import click

from mitml4.cli.console import Console
from mitml4.cli.options import Command, SectionOption, capture_files_options, shown_options
from mitml4.cli.values import File
from mitml4.errors import CaptureError, ExitCode, UsageError, cannot_read
from mitml4.printable import printable
from mitml4.screen.terminal import Color, is_terminal, wants_color, width_of
from mitml4.signals import ending_signals

if TYPE_CHECKING:
    from mitml4.capture.tls.secrets import Secrets
    from mitml4.filter.expression import Filter
    from mitml4.sinks.tcp_reader import TcpReader

__all__ = ["detect"]

_NARROW: Final = 72
"""Columns; below them the progress bar has no room for sizes and times."""


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
    "--no-tunnels", is_flag=True, cls=SectionOption, section="Input",
    help="Do not look into tunnels: IP-in-IP, GRE, VXLAN, Geneve, GTP, Teredo and L2TP.",
)  # fmt: skip
@click.option(
    "--keylog", type=click.Path(path_type=Path), metavar="FILE", cls=SectionOption, section="Input",
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
    from mitml4.capture.files.reader import read_packets
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
    if har:  # an archive has headers, also where the events have none
        settings = replace(settings, headers=True)
    _tune_gc()
    hub = Hub(outputs.sinks, condition=filter)
    detection = CaptureSession(hub, tunnels=not no_tunnels, shown=settings, secrets=secrets)
    detection.start()
    interruption = _Interruption()

    def before_read() -> None:
        outputs.flush()
        interruption.check()

    def read(name: str) -> None:
        with _opened(name) as stream, _progress(stream, name, console.color) as counted:
            packets = read_packets(
                cast("BinaryIO", _Interruptible(counted, interruption)),
                _shown(name),
                on_secrets=secrets.add,
                on_comment=detection.add_comment,
                on_read=before_read,
            )
            detection.read(packets)

    with interruption:
        failure = _read_each(files, read, console)
    ended_by = interruption.by
    detection.stop(ended_by.name if ended_by else failure.message if failure else "done")
    outputs.finish()
    if detection.cut_short:
        console.say(
            f"{detection.cut_short:,} flows were not followed to their end:"
            f" more than {MAX_FLOWS:,} at a time, or the memory limit was reached"
        )
    if ended_by:
        return 128 + ended_by
    return ExitCode.FAILED if failure else ExitCode.DONE


def _read_each(
    files: Iterable[str], read: Callable[[str], None], console: Console
) -> CaptureError | None:
    """Read one file after the other, until a signal ends that. Prints each error, and returns the
    first."""
    failure: CaptureError | None = None
    for name in files:
        try:
            read(name)
        except _InterruptedError:
            break
        except CaptureError as error:
            console.error(error)
            failure = failure or error
    return failure


class _InterruptedError(CaptureError):
    """A signal has ended the reading of a capture."""


class _Interruption:
    """Within it, the first signal that would end the process ends only the reading; the next one
    acts as it would outside."""

    def __init__(self) -> None:
        self.by: signal.Signals | None = None
        self.may_raise = False
        """The capture is being read, which may block."""
        self._usual: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for each in ending_signals():
            self._usual[each] = signal.signal(each, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        while self._usual:
            signal.signal(*self._usual.popitem())

    def check(self) -> None:
        """Raises _InterruptedError after a signal."""
        if self.by:
            raise _InterruptedError(f"interrupted by {self.by.name}")

    def _interrupt(self, number: int, _frame: FrameType | None) -> None:
        self.by = signal.Signals(number)
        self.__exit__()
        if self.may_raise:
            self.check()


class _Interruptible:
    """A capture whose reading a signal ends."""

    def __init__(self, stream: BinaryIO, interruption: _Interruption) -> None:
        self.read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
        self._interruption = interruption

    def read1(self, count: int) -> bytes:
        """What is there; b"" at the end. Raises _InterruptedError."""
        self._interruption.may_raise = True
        try:
            self._interruption.check()
            return self.read(count)
        finally:
            self._interruption.may_raise = False


def _tune_gc() -> None:
    """Collect cyclic garbage less often: the default takes a sixteenth of a capture's time. The
    objects that exist by now stay in use, and are excluded."""
    gc.freeze()
    gc.set_threshold(20_000)


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


@contextmanager
def _progress(stream: BinaryIO, name: str, color: Color) -> Iterator[BinaryIO]:
    """The same stream, with a progress bar on standard error if that is a terminal."""
    if not (sys.stderr and is_terminal(sys.stderr) and stream.seekable()):
        yield stream
        return
    from rich.cells import cell_len
    from rich.console import Console as RichConsole
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    from mitml4.screen.columns import fit_middle

    def one_line() -> Column:
        return Column(no_wrap=True)

    # A file name may look like markup.
    label = TextColumn("{task.description}", markup=False, table_column=one_line())
    columns: list[ProgressColumn] = [label, BarColumn(None, table_column=Column(ratio=1))]
    width = width_of(sys.stderr)
    if width < _NARROW:
        columns += [TaskProgressColumn(table_column=one_line())]
    else:
        columns += [DownloadColumn(table_column=one_line())]
        columns += [TimeRemainingColumn(table_column=one_line())]
    shown = printable(_shown(name))
    shown = fit_middle(shown, min(cell_len(shown), width // 3))
    size = os.fstat(stream.fileno()).st_size
    shown_on = RichConsole(stderr=True, no_color=not wants_color(color, sys.stderr))
    with Progress(*columns, console=shown_on, transient=True, expand=True) as progress:
        yield progress.wrap_file(stream, size, description=shown)
