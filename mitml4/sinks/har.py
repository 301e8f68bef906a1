"""HTTP exchanges as an HTTP archive (HAR 1.2), which browsers' developer tools open.

http://www.softwareishard.com/blog/har-12-spec/: a JSON object with an entry for each exchange
(har_entry.py). A regular file is a complete archive from the start and after every write, however
the session ends, and also if the disk is full.

No sequence of single bytes leads from one archive to a longer one such that each of them is one: an
archive ends with a bracket, and what continues it has to replace that bracket as well as to end
with another. So entries are written by another process (writer.py), which completes them if this
one is killed meanwhile.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import field
from pathlib import Path
from typing import Final

from mitml4 import __version__
from mitml4.dataclass import dataclass
from mitml4.encoding import to_line
from mitml4.events import FlowClose, FlowLayer, FlowOpen, LayerEvent, weight
from mitml4.protocols.http.events import GrpcMessage, HttpBody, HttpEnd, HttpRequest, HttpResponse
from mitml4.protocols.http.websocket import WebSocketMessage
from mitml4.sinks.files import OutputFile, begin_file
from mitml4.sinks.format import Format, Weight
from mitml4.sinks.har_entry import entry_of
from mitml4.sinks.har_exchange import Exchange, Key
from mitml4.sinks.shares import Shares
from mitml4.sinks.updates import Published
from mitml4.sinks.writer import Writer
from mitml4.whole_writes import write_all

__all__ = ["HttpArchive"]

_HEAD: Final = (
    b'{"log":{"version":"1.2","creator":{"name":"mitml4","version":"%s"},"entries":[\n'
    % __version__.encode()
)
_TAIL: Final = b"\n]}}\n"
_MAX_UNFINISHED: Final = 32 << 20
"""Bytes of unfinished exchanges. What is beyond a flow's share is left out, and counts as
dropped."""


@dataclass(slots=True)
class _Flow:
    opened: FlowOpen
    layers: list[FlowLayer] = field(default_factory=list)
    exchanges: dict[Key, Exchange] = field(default_factory=dict)
    begun: set[int] = field(default_factory=set)
    """The depths that have had an exchange."""
    sockets: dict[int, Exchange] = field(default_factory=dict)
    """The exchanges that made a WebSocket of their connection, by the depth of HTTP/1. They are
    kept until it closes."""


class HttpArchive(Format[Exchange]):
    """An entry for each exchange, when it is complete or its flow has ended."""

    wants = (
        *(FlowOpen, FlowLayer, FlowClose),
        *(HttpRequest, HttpResponse, HttpBody, HttpEnd, GrpcMessage, WebSocketMessage),
    )

    def __init__(self, file: OutputFile, *, has_head: bool = False) -> None:
        """`has_head`: the head has been written, and to a regular file also the tail."""
        super().__init__(file)
        self._flows: dict[int, _Flow] = {}
        self._unfinished = Shares(_MAX_UNFINISHED)
        self._has_head = has_head
        self._separator = b""
        self._can_rewrite = stat.S_ISREG(os.fstat(file.descriptor).st_mode)
        self._writer: Writer | None = None

    @classmethod
    def to_file(cls, path: Path) -> HttpArchive:
        """To a file, replacing its content. Raises MitmError."""
        archive = cls(OutputFile(begin_file(path, _HEAD, _TAIL), str(path)), has_head=True)
        if archive._can_rewrite:
            archive._writer = Writer(archive._extend, descriptors=(archive.file.descriptor,))
        return archive

    def take(self, event: Published) -> Iterable[Exchange]:
        match event:
            case LayerEvent():
                return self._take_content(event)
            case FlowOpen():
                self._flows[event.flow] = _Flow(event)
            case FlowLayer():
                self._flows[event.flow].layers.append(event)
            case FlowClose():
                flow = self._flows.pop(event.flow)
                return [
                    self._complete(flow, exchange) for exchange in list(flow.exchanges.values())
                ]
        return ()

    def _take_content(self, event: LayerEvent) -> Iterable[Exchange]:
        match event.content:
            case HttpRequest() as request:
                self._begin(event, request)
            case HttpResponse() as response:
                self._answer(event, response)
            case HttpEnd() as end:
                return self._end(event, end)
            case HttpBody() as body:
                self._add_body(event, body)
            case GrpcMessage() as message:
                self._add_grpc_message(event, message)
            case WebSocketMessage() as message:
                self._add_socket_message(event, message)
        return ()

    def weight(self, item: Exchange) -> Weight:
        return item.flow.flow, item.size, False

    def write(self, batch: Sequence[Exchange]) -> None:
        entries = ",\n".join(to_line(entry_of(exchange)) for exchange in batch)
        self._append(self._separator + entries.encode("utf-8", "backslashreplace"))
        self._separator = b",\n"

    def finish(self) -> None:
        self._write_head()
        if not self._can_rewrite:
            write_all(self.file.descriptor, _TAIL)

    def close(self) -> None:
        if self._writer:
            self._writer.close()
        super().close()

    def _begin(self, event: LayerEvent, request: HttpRequest) -> None:
        flow = self._flows[event.flow]
        is_first = event.depth not in flow.begun
        flow.begun.add(event.depth)
        if not self._hold(event):
            return
        key = event.depth, request.stream
        flow.exchanges[key] = Exchange(
            flow=flow.opened,
            layers=tuple(flow.layers[: event.depth + 1]),
            key=key,
            is_first=is_first,
            asked_at=event.time,
            request=request,
            size=weight(event),
        )

    def _answer(self, event: LayerEvent, response: HttpResponse) -> None:
        """Note a response head; it replaces an earlier one (1xx)."""
        if exchange := self._exchange(event, response.stream):
            if self._add(event, exchange):
                exchange.response, exchange.answered_at = response, event.time
            else:
                del self._flows[event.flow].exchanges[exchange.key]
                self._unfinished.give_back(event.flow, exchange.size)

    def _add_body(self, event: LayerEvent, body: HttpBody) -> None:
        exchange = self._exchange(event, body.stream)
        if exchange is None:
            return
        if not self._add(event, exchange):
            exchange.left_out += 1
        elif body.side == "request":
            exchange.request_body = body
        else:
            exchange.response_body = body

    def _add_grpc_message(self, event: LayerEvent, message: GrpcMessage) -> None:
        if exchange := self._exchange(event, message.stream):
            if self._add(event, exchange):
                exchange.grpc_messages.append((event.time, message))
            else:
                exchange.left_out += 1

    def _add_socket_message(self, event: LayerEvent, message: WebSocketMessage) -> None:
        """Note a message that shows what was said (`--payload`)."""
        flow, depth = self._flows[event.flow], event.depth - 1
        if message.stream is None:
            exchange = flow.sockets.get(depth)
        else:
            exchange = flow.exchanges.get((depth, message.stream))
        if exchange is None or (message.text is None and message.base64 is None):
            return
        if self._add(event, exchange):
            exchange.socket_messages.append((event.time, message))
        else:
            exchange.left_out += 1

    def _end(self, event: LayerEvent, end: HttpEnd) -> Iterable[Exchange]:
        exchange = self._exchange(event, end.stream)
        if exchange is None:
            return ()
        exchange.end, exchange.ended_at = end, event.time
        flow = self._flows[event.flow]
        if exchange.response and exchange.response.status == 101 and exchange.is_websocket:
            flow.sockets[event.depth] = exchange
            return ()
        return (self._complete(flow, exchange),)

    def _exchange(self, event: LayerEvent, stream: int) -> Exchange | None:
        return self._flows[event.flow].exchanges.get((event.depth, stream))

    def _add(self, event: LayerEvent, exchange: Exchange) -> bool:
        """Whether there is memory for what this event adds to the exchange."""
        is_held = self._hold(event)
        exchange.size += weight(event) if is_held else 0
        return is_held

    def _hold(self, event: LayerEvent) -> bool:
        is_held = self._unfinished.take(event.flow, weight(event))
        self.dropped += not is_held
        return is_held

    def _complete(self, flow: _Flow, exchange: Exchange) -> Exchange:
        del flow.exchanges[exchange.key]
        self._unfinished.give_back(exchange.flow.flow, exchange.size)
        return exchange

    def _write_head(self) -> None:
        if not self._has_head:
            write_all(self.file.descriptor, _HEAD + _TAIL if self._can_rewrite else _HEAD)
            self._has_head = True

    def _append(self, data: bytes) -> None:
        """Write after the existing entries. Raises OSError."""
        self._write_head()
        if not self._can_rewrite:
            write_all(self.file.descriptor, data)
        elif self._writer:
            self._ask(self._writer, data)
        else:
            self._extend(data)

    def _ask(self, writer: Writer, data: bytes) -> None:
        try:
            writer.ask(data)
        except OSError:  # nothing is written any more
            writer.close()
            raise

    def _extend(self, data: bytes) -> bytes:
        """Write after the entries of a regular file. Raises OSError; the file is then as it was."""
        self._reserve(len(data))
        end = os.lseek(self.file.descriptor, -len(_TAIL), os.SEEK_CUR)
        try:
            write_all(self.file.descriptor, data + _TAIL, undo=False)
        except OSError:
            # At its previous position the tail needs no new space on the disk.
            os.pwrite(self.file.descriptor, _TAIL, end)
            os.ftruncate(self.file.descriptor, end + len(_TAIL))
            raise
        return b""

    def _reserve(self, size: int) -> None:
        """Take space on the disk as white space behind the archive, which stays complete. What
        replaces it needs no other, and is written in a fraction of the time. Raises OSError."""
        end = os.lseek(self.file.descriptor, 0, os.SEEK_CUR)
        write_all(self.file.descriptor, b" " * size)
        os.lseek(self.file.descriptor, end, os.SEEK_SET)
