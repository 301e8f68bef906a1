"""One capture that is read by several processes, each of which follows a part of its flows.

What a process tells of a capture has its place there (capture/sharing.py). All of it is put
together here in that order, so the lines are those of one process: flows get their numbers
when they open, and the names that answers of DNS have given their addresses by then.

A process stops where what it tells may depend on flows of others, or is killed, as where memory is
short. All that was told before that is right; the capture is then read again by one process, which
tells what comes after it.
"""

from __future__ import annotations

import logging
import marshal
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import field
from functools import partial
from itertools import count
from multiprocessing.connection import Connection, wait
from operator import itemgetter
from typing import Any, Final, Self, TypeAlias

from mitml4.capture.known import Known
from mitml4.capture.packet import Packet
from mitml4.capture.reports import Report
from mitml4.capture.sharing import Order, Part
from mitml4.dataclass import dataclass
from mitml4.encoding import numbering, with_name
from mitml4.events import FlowClose, FlowOpen
from mitml4.protocols.datagram import Resolved
from mitml4.session.detect import CaptureOutcome, CaptureSession
from mitml4.session.reader_process import ReaderProcess
from mitml4.sinks.jsonl import line_of

__all__ = ["CaptureShares", "DependentError", "Message", "ReadPart", "put_together", "tell_part"]

Message: TypeAlias = tuple[Order, int, bytes, Any]
"""Where it stands; the number of a flow in its part, and a line of it, with the addresses of both
ends if it opens, or with `_CLOSED`; or 0, and a name that a client has been told."""
_Told: TypeAlias = tuple[Order, Report]
ReadPart: TypeAlias = Callable[[Part, Callable[[bytes | int], object]], CaptureOutcome]
"""Follows this part of the capture, and gives messages to a function, many at a time, or how many
bytes of the file have been read."""

_CLOSED: Final = 1
_MAX_AHEAD: Final = 32 << 20
"""Bytes of messages of a process that wait for those of others."""
_BATCH: Final = 256
"""Messages that are sent together."""
_BARE: Final = 200
"""The bytes of a message besides its line."""
_POLL_INTERVAL_S: Final = 0.2
_MARSHAL: Final = 2
"""The version without references: nothing here is there twice. It takes half the time of pickle."""

_place: Final = itemgetter(0)

log = logging.getLogger(__name__)


class DependentError(Exception):
    """From here on, one process has to read the capture: the flows of a part depend on flows of
    others, or its process was killed."""


# What a process tells


def tell_part(
    session: CaptureSession, packets: Iterable[Packet], part: Part, send: Callable[[bytes], object]
) -> None:
    """Follow the flows of a part, and send what is told of them. Raises CaptureError, as
    `CaptureSession.read`, and DependentError."""
    told: list[_Told] = []
    try:
        for report in session.reports_of(packets, share=part):
            if part.depends_from:
                break
            told.append((part.order, report))
            if len(told) >= _BATCH:
                send(_messages(session, part, told))
                told.clear()
    finally:
        send(_messages(session, part, told))
    if part.depends_from:
        raise DependentError


def _messages(session: CaptureSession, part: Part, told: Sequence[_Told]) -> bytes:
    """What is sent of these. To make many lines one after the other takes less time than to do so
    between other work."""
    count, headers = session.hub.totals.publish, session.shown.headers
    messages: list[Message] = []
    events = session.events_of([report for _, report in told])
    for (order, _), event in zip(told, events, strict=True):
        more: Any = None
        if type(event) is FlowOpen:
            count(event)
            more = event.client.ip, event.destination.ip
        elif type(event) is FlowClose:
            count(event)
            more = _CLOSED
        messages.append((order, event.flow, line_of(event, headers=headers), more))
    if part.names:
        messages += _names(part, part.depends_from or part.order)
        messages.sort(key=_place)
    return marshal.dumps(messages, _MARSHAL)


def _names(part: Part, until: Order) -> Iterator[Message]:
    """What answers have said before this: flows that open from there on have these names."""
    said, part.names[:] = part.names[:], []
    for each in said:
        order, client, resolved = each
        if order < until:
            yield order, 0, b"", (client, resolved.name, resolved.ip, resolved.for_everybody)
        else:
            part.names.append(each)


# All of them put together


def put_together(streams: Iterable[Iterator[list[Message]]]) -> Iterator[list[bytes]]:
    """The lines of all parts, in their order, some at a time; the flows are numbered from 1. Each
    stream gives the messages of a part, some at a time."""
    parts = [*map(_Waiting, streams)]
    named = _Named()
    while parts := [part for part in parts if part.has_more()]:
        until = min(part.messages[-1][0] for part in parts)
        ready: list[Message] = []
        for part in parts:
            ready += part.take(until)
        ready.sort(key=_place)  # two parts never tell anything at the same place
        yield named.lines(ready)


class _Waiting:
    """The messages of a part that wait for those of others."""

    def __init__(self, stream: Iterator[list[Message]]) -> None:
        self.messages: list[Message] = []
        self._stream = stream

    def has_more(self) -> bool:
        """Whether there are any, or come any."""
        while not self.messages:
            more = next(self._stream, None)
            if more is None:
                return False
            self.messages = more
        return True

    def take(self, until: Order) -> list[Message]:
        """Those up to this place."""
        at = bisect_right(self.messages, until, key=_place)
        taken, self.messages = self.messages[:at], self.messages[at:]
        return taken


class _Named:
    """Gives flows their numbers and names."""

    def __init__(self) -> None:
        self._known = Known()
        self._numbers: dict[int, tuple[bytes, bytes]] = {}
        """What to replace in the lines of an open flow, and by what."""
        self._flows = count(1)

    def lines(self, messages: Iterable[Message]) -> list[bytes]:
        """The lines of these messages, which come next."""
        lines: list[bytes] = []
        numbers = self._numbers
        for _, flow, line, more in messages:
            if more is None:
                before, after = numbers[flow]
                lines.append(line.replace(before, after, 1))
            elif more == _CLOSED:
                before, after = numbers.pop(flow)
                lines.append(line.replace(before, after, 1))
            elif flow:
                before, after = numbers[flow] = numbering(flow, next(self._flows))
                if name := self._known.name_of(*more):
                    line = with_name(line, name)
                lines.append(line.replace(before, after, 1))
            else:
                client, *resolved = more
                self._known.add_name(client, Resolved(*resolved))
        return lines


@dataclass(slots=True, eq=False)
class _Stream:
    """What comes from one process."""

    reader: ReaderProcess
    batches: deque[tuple[list[Message], int]] = field(default_factory=deque)
    """Messages that came together, and how many bytes they take."""
    size: int = 0
    """Of all batches, in bytes."""
    outcome: CaptureOutcome | DependentError | None = None

    def add(self, data: bytes) -> None:
        messages = marshal.loads(data)
        size = len(data) + _BARE * len(messages)
        self.batches.append((messages, size))
        self.size += size

    def taken(self) -> Iterator[list[Message]]:
        """The batches that are there. One counts until the next one is asked for."""
        while self.batches:
            messages, size = self.batches[0]
            yield messages
            self.batches.popleft()
            self.size -= size


class CaptureShares:
    """As many processes, until the end of a `with`."""

    def __init__(
        self,
        count: int,
        read: ReadPart,
        *,
        is_stopped: Callable[[], object],
        on_progress: Callable[[int], object],
    ) -> None:
        """`is_stopped`: whether no more is to be read; it is asked several times a second.
        `on_progress` is told how many bytes of the file have been read."""
        self.told = 0
        """Lines that `lines` has given."""
        self._count = count
        self._read = read
        self._is_stopped = is_stopped
        self._on_progress = on_progress
        self._streams: list[_Stream] = []

    def __enter__(self) -> Self:
        """They are as many as a limit permits. Raises DependentError if it permits one alone."""
        while self._count > 1:
            try:
                for index in range(self._count):
                    self._start(Part(index, self._count))
            except OSError:
                log.info("no process can be started", exc_info=True)
                self._count = len(self._streams)
                self.__exit__()
                self._streams.clear()
            else:
                return self
        raise DependentError

    def __exit__(self, *_: object) -> None:
        for stream in self._streams:
            stream.reader.kill()

    def _start(self, part: Part) -> None:
        readers = [each.reader for each in self._streams]
        reader = ReaderProcess.start(partial(_serve, self._read, part), readers)
        self._streams.append(_Stream(reader))

    @property
    def outcomes(self) -> list[CaptureOutcome]:
        """Of all processes, once all lines are told."""
        return [each.outcome for each in self._streams if isinstance(each.outcome, CaptureOutcome)]

    def lines(self) -> Iterator[bytes]:
        """Some whole lines at a time; their flows are numbered from 1. Raises DependentError where
        one process has to go on: behind those that are `told`."""
        for some in put_together(map(self._messages_of, self._streams)):
            self.told += len(some)
            yield b"".join(some)

    def _messages_of(self, stream: _Stream) -> Iterator[list[Message]]:
        while True:
            yield from stream.taken()
            if isinstance(stream.outcome, DependentError):
                raise stream.outcome
            if stream.outcome:
                return
            self._receive()

    def _receive(self) -> None:
        """What has come from processes, or nothing after a while."""
        if self._is_stopped():
            for each in self._streams:
                each.reader.stop()
        streams = {
            each.reader.connection: each
            for each in self._streams
            if each.outcome is None and each.size < _MAX_AHEAD
        }
        for connection in wait([*streams], _POLL_INTERVAL_S):
            stream = streams[connection]  # type: ignore[index] # only connections are waited for
            try:
                message = stream.reader.connection.recv()
            except (EOFError, OSError):
                log.info("a process that reads has ended: %s", stream.reader.how_ended())
                stream.outcome = DependentError()
                continue
            if isinstance(message, bytes):
                stream.add(message)
            elif isinstance(message, int):
                self._on_progress(message)
            elif isinstance(message, CaptureOutcome | DependentError):
                stream.outcome = message
            else:
                raise message


def _serve(read: ReadPart, part: Part, connection: Connection) -> None:
    """Read a part, in a process that has just begun."""
    outcome: Any
    try:
        outcome = read(part, connection.send)
    except (BrokenPipeError, EOFError):
        raise
    except Exception as error:  # a fault of ours is told as if it had been there
        outcome = error
    connection.send(outcome)
