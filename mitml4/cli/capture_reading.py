"""How `mitml4 detect` reads captures: one after the other in this process, each in another process,
or one in several."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from mitml4.capture.files.reader import read_packets
from mitml4.capture.packet import Packet
from mitml4.cli.console import Console
from mitml4.cli.interrupted_reading import InterruptedReadError, Interruptible, Interruption
from mitml4.cli.progress import progress_of, progress_of_all, progress_within
from mitml4.dataclass import dataclass
from mitml4.errors import CaptureError, cannot_read
from mitml4.session.detect import CaptureOutcome, CaptureSession
from mitml4.session.reporting.hub import Hub
from mitml4.session.reporting.outputs import CaptureOutputs, lines_for_another

if TYPE_CHECKING:
    from mitml4.capture.sharing import Part
    from mitml4.filter.expression import Filter

# What is for several processes is imported late: most captures are small.

__all__ = ["CaptureReading", "process_count"]

_WORTH_PROCESSES: Final = 32 << 20
"""Captures of this number of bytes take some tenths of a second; to start processes takes one."""
_MAX_SHARES: Final = 4
"""Processes for one capture, unless more are asked for: each of them reads all packets."""
_PROGRESS_BYTES: Final = 4 << 20
"""The bar of a capture that several processes read goes on after so many."""


def process_count(files: Sequence[str], jobs: int | None, *, is_shared: bool) -> int:
    """How many processes read these captures: one if any is a pipe, of which the events are printed
    as they come. `is_shared`: whether several may read one capture."""
    if not all(map(os.path.isfile, files)):
        return 1
    most = len(files)
    if most == 1 and is_shared:
        most = jobs or _MAX_SHARES
    if jobs is None:
        is_worth_it = sum(map(os.path.getsize, files)) >= _WORTH_PROCESSES
        jobs = len(os.sched_getaffinity(0)) if is_worth_it else 1
    return min(jobs, most)


@dataclass(frozen=True, slots=True)
class CaptureReading:
    """Each way returns what was wrong first, which is printed by then."""

    session: CaptureSession
    outputs: CaptureOutputs
    interruption: Interruption
    console: Console

    def in_turn(self, files: Sequence[str], *, told: int = 0) -> CaptureError | None:
        """Read all captures, in this process. `told`: how many events of the first one are told
        already: a signal ends the reading only behind those, since flows of them are open."""
        failure: CaptureError | None = None
        self.interruption.waits = told > 0
        color = self.console.color
        for name in files:
            before_read = self.interruption.check if os.path.isfile(name) else self._before_waiting
            try:
                with _opened(name) as stream, progress_of(stream, _shown(name), color) as shown:
                    packets = _packets(self.session, shown, name, self.interruption, before_read)
                    self.session.read(packets, told=told, on_told=self.interruption.resume)
            except InterruptedReadError:
                break
            except CaptureError as error:
                self.outputs.flush()
                failure = self._failed(error, failure)
            told = 0
            self.interruption.resume()
        return failure

    def at_once(
        self, files: Sequence[str], count: int, condition: Filter | None
    ) -> CaptureError | None:
        """The same, in so many processes."""
        from mitml4.session.capture_processes import CaptureProcesses

        failure: CaptureError | None = None
        read = partial(_read_for_another, self.session, condition)
        read_here = partial(_read_apart, self.session, condition, self.interruption)
        is_stopped = lambda: self.interruption.by  # noqa: E731 - it says all
        with (
            CaptureProcesses(files, count, read, is_stopped, read_here) as processes,
            progress_of_all(files, self.console.color) as is_done,
        ):
            for capture in processes.captures():
                assert capture.outcome
                self.session.add(capture.outcome, capture.lines())
                if error := capture.outcome.failure:
                    failure = self._failed(error, failure)
                is_done(capture.name)
        return failure

    def shared(self, name: str, count: int) -> CaptureError | None:
        """Read one capture, in so many processes; from where that is not possible, in this one."""
        from mitml4.session.capture_shares import CaptureShares, DependentError

        with progress_within(name, self.console.color) as on_progress:
            shares = CaptureShares(
                count,
                partial(_read_part, self.session, name),
                is_stopped=lambda: self.interruption.by,
                on_progress=on_progress,
            )
            try:
                with shares:
                    self.session.add_lines(shares.lines())
            except DependentError:
                pass
            else:
                return self._count(shares.outcomes)
        return self.in_turn([name], told=shares.told)

    def _count(self, outcomes: Sequence[CaptureOutcome]) -> CaptureError | None:
        """What all processes have read is told. What is wrong with the capture, each has found."""
        for outcome in outcomes:
            self.session.count(outcome)
        failures = [outcome.failure for outcome in outcomes if outcome.failure]
        return self._failed(failures[0], None) if failures else None

    def _failed(self, error: CaptureError, before: CaptureError | None) -> CaptureError:
        self.console.error(error)
        return before or error

    def _before_waiting(self) -> None:
        """The next packets may come much later, so nothing waits for them."""
        self.outputs.flush()
        self.interruption.check()


def _read_for_another(
    like: CaptureSession, condition: Filter | None, name: str, send: Callable[[bytes], object]
) -> CaptureOutcome:
    """Read a capture as `like` would, in another process than that of `like`."""
    from mitml4.session.reader_process import STOP

    with Interruption([STOP]) as interruption:
        return _read_apart(like, condition, interruption, name, send)


def _read_apart(
    like: CaptureSession,
    condition: Filter | None,
    interruption: Interruption,
    name: str,
    send: Callable[[bytes], object],
) -> CaptureOutcome:
    """Read a capture as `like` would, and send its lines instead of publishing them."""
    sink = lines_for_another(send, headers=like.shown.headers)
    session = _another(like, Hub([sink], condition=condition))
    failure: CaptureError | None = None
    try:
        with _opened(name) as stream:
            session.read(_packets(session, stream, name, interruption, interruption.check))
    except InterruptedReadError:
        pass
    except CaptureError as error:
        failure = error
    sink.finish()
    return session.outcome(failure)


def _read_part(
    like: CaptureSession, name: str, part: Part, send: Callable[[bytes | int], object]
) -> CaptureOutcome:
    """Follow a part of the flows of a capture, in another process than that of `like`."""
    from mitml4.session.capture_shares import tell_part
    from mitml4.session.reader_process import STOP

    session = _another(like, Hub())
    failure: CaptureError | None = None
    with Interruption([STOP]) as interruption:
        try:
            with _opened(name) as stream:
                before_read = partial(_before_read, stream, interruption, send)
                packets = _packets(session, stream, name, interruption, before_read)
                tell_part(session, packets, part, send)
        except InterruptedReadError:
            pass
        except CaptureError as error:
            failure = error
    return session.outcome(failure)


def _before_read(
    stream: BinaryIO, interruption: Interruption, on_progress: Callable[[int], object]
) -> None:
    interruption.check()
    if not stream.tell() % _PROGRESS_BYTES:
        on_progress(stream.tell())


def _another(like: CaptureSession, hub: Hub) -> CaptureSession:
    return CaptureSession(hub, tunnels=like.tunnels, shown=like.shown, secrets=like.secrets)


def _packets(
    session: CaptureSession,
    stream: BinaryIO,
    name: str,
    interruption: Interruption,
    before_read: Callable[[], object],
) -> Iterator[Packet]:
    """They raise CaptureError where the capture is broken or the reading was interrupted."""
    return read_packets(
        cast("BinaryIO", Interruptible(stream, interruption)),
        _shown(name),
        on_secrets=session.add_secrets,
        on_comment=session.add_comment,
        on_read=before_read,
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
