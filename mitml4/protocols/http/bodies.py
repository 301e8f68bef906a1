"""The bodies of HTTP messages, for `http.body` and `grpc.message` events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal, Protocol, TypeAlias

from mitml4.payload.body import Body
from mitml4.payload.budget import Payload
from mitml4.payload.codings import parse
from mitml4.payload.grpc import GrpcFrame, GrpcReader
from mitml4.payload.text import base64_of, shown, shown_data
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import Direction
from mitml4.protocols.http.events import GrpcMessage, HttpBody
from mitml4.regex import regex

__all__ = ["BodyEvent", "MessageBody", "Side", "begin_body"]

BodyEvent: TypeAlias = HttpBody | GrpcMessage
Side: TypeAlias = Literal["request", "response"]

# Not -web-text, which is base64.
_GRPC: Final = regex(rb"application/grpc(?:-web)?(?:[+;\s]|$)")


class MessageBody(Protocol):
    """Takes the body of one message piece by piece."""

    trailers: Sequence[tuple[bytes, bytes]]
    """Those that the body itself contains (gRPC-Web)."""

    @property
    def is_wanted(self) -> bool:
        """Whether the next bytes are of use."""
        ...

    def write(self, data: bytes) -> Iterator[BodyEvent]:
        """The next bytes, and what they complete."""
        ...

    def end(self, size: int, *, is_complete: bool) -> Iterator[BodyEvent]:
        """Nothing more comes, after so many bytes, of which the last may not have been shown.
        Call it once: it gives memory back."""
        ...


def begin_body(
    context: LayerContext, stream: int, side: Side, headers: Sequence[tuple[bytes, bytes]]
) -> MessageBody | None:
    """The body of a message with these headers; None if bodies are not wanted."""
    payload = context.shown.payload
    if payload is None:
        return None
    named: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        named.setdefault(name.lower(), []).append(value)
    content_type = named.get(b"content-type", [b""])[0]
    if _GRPC.match(content_type):
        codings = parse(named.get(b"grpc-encoding", []))
        return _GrpcBody(payload, stream, side, codings)
    transfer = parse(named.get(b"transfer-encoding", []))
    codings = parse(named.get(b"content-encoding", []))
    codings += tuple(coding for coding in transfer if coding != "chunked")
    return _PlainBody(payload, stream, side, codings, content_type)


class _PlainBody:
    __slots__ = ("_body", "_content_type", "_side", "_stream", "trailers")

    def __init__(
        self,
        payload: Payload,
        stream: int,
        side: Side,
        codings: Sequence[str],
        content_type: bytes,
    ) -> None:
        self._body = Body(payload, codings)
        self._stream = stream
        self._side = side
        self._content_type = content_type
        self.trailers: Sequence[tuple[bytes, bytes]] = ()

    @property
    def is_wanted(self) -> bool:
        return self._body.is_wanted

    def write(self, data: bytes) -> Iterator[BodyEvent]:
        self._body.write(data)
        return iter(())

    def end(self, size: int, *, is_complete: bool) -> Iterator[BodyEvent]:
        self._body.skip(size - self._body.size)
        content = self._body.end(is_complete=is_complete)
        if not content.size:
            return
        if content.fault and not content.encoding:
            found = shown_data(content.data)
        else:
            found = shown(content.data, self._content_type, truncated=content.truncated)
        yield HttpBody(
            stream=self._stream,
            side=self._side,
            size=content.size,
            decoded_size=content.decoded_size,
            encoding=content.encoding,
            coding_error=content.fault,
            charset=found.charset,
            text=found.text,
            base64=found.base64,
            truncated=content.truncated,
        )


class _GrpcBody:
    __slots__ = ("_direction", "_reader", "_stream", "trailers")

    def __init__(self, payload: Payload, stream: int, side: Side, codings: tuple[str, ...]) -> None:
        self._reader = GrpcReader(payload, codings)
        self._stream = stream
        self._direction = Direction.UP if side == "request" else Direction.DOWN
        self.trailers: Sequence[tuple[bytes, bytes]] = ()

    @property
    def is_wanted(self) -> bool:
        return not self._reader.is_broken

    def write(self, data: bytes) -> Iterator[BodyEvent]:
        return self._events(self._reader.read(data))

    def end(self, _size: int, *, is_complete: bool) -> Iterator[BodyEvent]:
        del is_complete  # a message that has not ended is cut in any case
        return self._events(self._reader.end())

    def _events(self, frames: Iterator[GrpcFrame]) -> Iterator[BodyEvent]:
        for frame in frames:
            content = frame.content
            if frame.is_trailers:
                lines = (line.partition(b":") for line in content.data.split(b"\r\n") if line)
                self.trailers = [(name.strip(), value.strip()) for name, _, value in lines]
                continue
            yield GrpcMessage(
                stream=self._stream,
                direction=self._direction,
                size=content.size,
                compressed=frame.compressed,
                decoded_size=content.decoded_size,
                encoding=content.encoding,
                coding_error=content.fault,
                base64=base64_of(content.data),
                truncated=content.truncated,
            )
