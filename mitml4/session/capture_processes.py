"""Captures that are read at the same time, each by a process, and told in their order.

A process reads one capture after another. The lines of its events come here, and wait, on disk if
they are many, until all captures before it are told. A capture is told once all of it was read: if
its process is killed, nothing of it is.

Secrets in a capture also open the TLS of those behind it. Where one has brought any, what was read
of others is void: it is read again, and from there on, captures are read one after the other.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import field
from functools import partial
from multiprocessing.connection import Connection, wait
from tempfile import SpooledTemporaryFile
from typing import Final, Self, TypeAlias

from mitml4.dataclass import dataclass
from mitml4.errors import CaptureError, MitmError
from mitml4.session.detect import CaptureOutcome
from mitml4.session.reader_process import ReaderProcess

__all__ = ["CaptureProcesses", "Read"]

log = logging.getLogger(__name__)

Read: TypeAlias = Callable[[str, Callable[[bytes], object]], CaptureOutcome]
"""Reads the capture of this name, and gives its lines to a function, some whole ones at a time."""

_MAX_IN_MEMORY: Final = 8 << 20
"""Bytes of the lines of one capture; more wait on disk."""
_BATCH_BYTES: Final = 1 << 18
"""About so many bytes of lines are handed on at a time."""
_POLL_INTERVAL_S: Final = 0.2


@dataclass(slots=True, eq=False)
class _Process:
    reader: ReaderProcess
    capture: Capture | None = None
    """The one that it reads."""


@dataclass(slots=True, eq=False)
class Capture:
    """A capture that a process has read, or reads."""

    name: str
    outcome: CaptureOutcome | None = None
    _lines: SpooledTemporaryFile[bytes] = field(
        default_factory=lambda: SpooledTemporaryFile(_MAX_IN_MEMORY)  # noqa: SIM115 - see `close`
    )

    def add(self, lines: bytes) -> None:
        """Keep these until the capture is told. Raises MitmError if there is no room on disk."""
        try:
            self._lines.write(lines)
        except OSError as error:
            raise MitmError(
                f"cannot keep events in a temporary file: {error.strerror}",
                hint="set TMPDIR to a directory with more room, or use --jobs 1",
            ) from error

    def lines(self) -> Iterator[bytes]:
        """Its events, some whole lines at a time."""
        self._lines.seek(0)
        while some := self._lines.readlines(_BATCH_BYTES):
            yield b"".join(some)

    def forget(self) -> None:
        """Its events so far are void."""
        self._lines.seek(0)
        self._lines.truncate()

    def close(self) -> None:
        """Its events are not needed any more."""
        self._lines.close()


class CaptureProcesses:
    """Up to `count` processes, until the end of a `with`."""

    def __init__(
        self,
        names: Iterable[str],
        count: int,
        read: Read,
        is_stopped: Callable[[], object],
        read_here: Read,
    ) -> None:
        """`is_stopped`: whether no more is to be read; it is asked several times a second.
        `read_here` does what `read` does in another process, where a limit forbids any."""
        self._names = deque(names)
        self._count = count
        self._read = read
        self._is_stopped = is_stopped
        self._read_here = read_here
        self._processes: list[_Process] = []
        self._begun: deque[Capture] = deque()
        """In their order."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill(self._processes)
        while self._begun:
            self._begun.popleft().close()

    def captures(self) -> Iterator[Capture]:
        """Each capture, once it is read. The last one may have been read in part, if it was
        stopped."""
        while not self._is_stopped():
            self._begin()
            if not self._begun:
                return
            first = self._begun[0]
            while first.outcome is None:
                if self._is_stopped():
                    self._stop_all_but(first)
                else:
                    self._begin()
                self._receive()
            yield first
            self._begun.popleft().close()
            if first.outcome.secrets:
                self._begin_again()

    def _begin(self) -> None:
        """Give a capture to each process that has none, but not too many ahead of the first."""
        while self._names and len(self._begun) < max(1, 2 * self._count):
            process = self._idle()
            if process is None:
                if not self._processes:
                    self._begin_here()
                return
            try:
                process.reader.connection.send(self._names[0])
            except OSError:  # it was killed meanwhile
                self._kill([process])
                continue
            process.capture = Capture(self._names.popleft())
            self._begun.append(process.capture)

    def _idle(self) -> _Process | None:
        """A process that reads nothing. If a limit forbids another one, those that there are go
        on alone."""
        for each in self._processes:
            if each.capture is None:
                return each
        if len(self._processes) < self._count:
            readers = [each.reader for each in self._processes]
            try:
                process = _Process(ReaderProcess.start(partial(_serve, self._read), readers))
            except OSError:
                log.info("no process can be started", exc_info=True)
                self._count = len(self._processes)
                return None
            self._processes.append(process)
            return process
        return None

    def _begin_here(self) -> None:
        """Read the next capture in this process."""
        capture = Capture(self._names.popleft())
        self._begun.append(capture)
        capture.outcome = self._read_here(capture.name, capture.add)

    def _receive(self) -> None:
        """What has come from processes, or nothing after a while."""
        busy = {each.reader.connection: each for each in self._processes if each.capture}
        for connection in wait([*busy], _POLL_INTERVAL_S):
            process = busy[connection]  # type: ignore[index] # only connections are waited for
            capture = process.capture
            assert capture
            try:
                message = process.reader.connection.recv()
            except (EOFError, OSError):
                self._lose(process, capture)
                continue
            if isinstance(message, bytes):
                capture.add(message)
            elif isinstance(message, CaptureOutcome):
                capture.outcome, process.capture = message, None
            else:
                raise message

    def _lose(self, process: _Process, capture: Capture) -> None:
        """A process has ended in the middle of a capture."""
        self._processes.remove(process)
        capture.forget()
        failure = CaptureError(
            f"{capture.name} was not read: its process has ended ({process.reader.how_ended()})",
            hint="with --jobs 1, a capture has all memory to itself",
        )
        capture.outcome = CaptureOutcome(failure=failure)

    def _stop_all_but(self, first: Capture) -> None:
        reading = next(each for each in self._processes if each.capture is first)
        self._kill([each for each in self._processes if each is not reading])
        reading.reader.stop()

    def _begin_again(self) -> None:
        """What was read behind the first capture is void."""
        self._kill(self._processes)
        self._count = 1
        while self._begun:
            void = self._begun.pop()
            void.close()
            self._names.appendleft(void.name)

    def _kill(self, processes: list[_Process]) -> None:
        for each in list(processes):
            self._processes.remove(each)
            each.reader.kill()


def _serve(read: Read, connection: Connection) -> None:
    """Read captures, in a process that has just begun, until the first process ends."""
    while True:
        name = connection.recv()
        try:
            connection.send(read(name, connection.send))
        except (BrokenPipeError, EOFError):
            raise
        except Exception as error:  # a fault of ours is told as if it had been there
            connection.send(error)
