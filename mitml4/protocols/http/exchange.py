"""What the versions of HTTP share: exchanges, headers and URLs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import field
from typing import Final, TypeAlias

from mitml4.dataclass import dataclass
from mitml4.protocols.context import LayerContext
from mitml4.protocols.http.bodies import BodyEvent, MessageBody
from mitml4.protocols.http.events import HttpEnd, Outcome, Pairs
from mitml4.protocols.payload import redacted, without_passwords
from mitml4.protocols.wire_text import pairs, text

__all__ = [
    "MAX_TRAILERS",
    "MAX_TRAILER_BYTES",
    "UPGRADES",
    "Exchange",
    "HeaderFields",
    "Trailers",
    "origin",
    "shown",
    "without_secrets",
]

HeaderFields: TypeAlias = Sequence[tuple[bytes, bytes]]
"""As on the wire, in order."""

UPGRADES: Final = {b"websocket": "websocket", b"h2c": "http/2"}
"""The layers that upgrade tokens stand for (RFC 6455 §4.1, RFC 7540 §3.2)."""

MAX_TRAILERS: Final = 64
"""Fields of a trailer section that are kept."""
MAX_TRAILER_BYTES: Final = 8192
"""Bytes of them together; the rest is left out."""


_SECRETS: Final = frozenset((b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"))
_AUTHORITIES: Final = frozenset((b"host", b":authority"))


@dataclass(slots=True)
class Trailers:
    """The fields of a trailer section, within these bounds."""

    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    left: int = MAX_TRAILER_BYTES

    @classmethod
    def of(cls, fields: Iterable[tuple[bytes, bytes]]) -> Trailers:
        trailers = cls()
        for name, value in fields:
            trailers.add(name, value)
        return trailers

    def add(self, name: bytes, value: bytes) -> None:
        self.left -= len(name) + len(value)
        if self.left >= 0 and len(self.fields) < MAX_TRAILERS:
            self.fields.append((name, value))


@dataclass(slots=True)
class Exchange:
    """A request and its response, until both are complete.

    Sizes are those of the content as sent: still compressed, without chunk lines and trailers, and
    without HTTP/2 frame headers and padding.
    """

    stream: int
    started: float
    request_bytes: int = 0
    response_bytes: int = 0
    request_done: bool = False
    content_sent_at: float | None = None
    """When the content of the request was complete, if it has any."""
    response_done: bool = False
    request_trailers: HeaderFields = ()
    """Events show trailers always, and secrets in them never."""
    trailers: HeaderFields = ()
    request_body: MessageBody | None = None
    response_body: MessageBody | None = None

    def end_request(self, clock: Callable[[], float]) -> None:
        """The request is complete."""
        self.request_done = True
        if self.request_bytes:
            self.content_sent_at = clock()

    def end_request_body(self) -> Iterator[BodyEvent]:
        """What is left to tell of the request's body."""
        body, self.request_body = self.request_body, None
        return body.end(self.request_bytes, is_complete=self.request_done) if body else iter(())

    def end_response_body(self) -> Iterator[BodyEvent]:
        """The same of the response's."""
        body, self.response_body = self.response_body, None
        if body is None:
            return
        yield from body.end(self.response_bytes, is_complete=self.response_done)
        if body.trailers:
            self.trailers = Trailers.of(body.trailers).fields

    def end(
        self, now: float, outcome: Outcome = "complete", *, reset_code: str | None = None
    ) -> HttpEnd:
        sent_at = self.content_sent_at
        return HttpEnd(
            stream=self.stream,
            request_bytes=self.request_bytes,
            response_bytes=self.response_bytes,
            duration_s=now - self.started,
            outcome=outcome,
            reset_code=reset_code,
            request_trailers=_trailers(self.request_trailers) if self.request_trailers else None,
            trailers=_trailers(self.trailers) if self.trailers else None,
            request_s=None if sent_at is None else sent_at - self.started,
        )


def shown(context: LayerContext, fields: HeaderFields) -> Pairs | None:
    """The headers of a message for its event; None if they are not wanted."""
    if not context.shown.headers:
        return None
    return pairs(without_secrets(fields) if context.shown.redacts else fields)


def _trailers(fields: HeaderFields) -> Pairs:
    return pairs(without_secrets(fields))


def without_secrets(fields: HeaderFields) -> HeaderFields:
    """The same fields, with how long a secret is instead of it."""
    return [(name, _without_secrets(name.lower(), value)) for name, value in fields]


def _without_secrets(name: bytes, value: bytes) -> bytes:
    if name in _SECRETS:
        return redacted(len(value)).encode()
    if name in _AUTHORITIES:
        return without_passwords(b"//" + value)[2:]
    return without_passwords(value)


def origin(context: LayerContext, authority: bytes | None) -> str:
    """`scheme://authority` of a request; without an authority, that of the connection."""
    scheme, default_port = ("https", 443) if context.secure else ("http", 80)
    if authority:
        return f"{scheme}://{text(context.shown.authority(authority))}"
    if context.target is None:
        return f"{scheme}://"
    host = str(context.target)
    return f"{scheme}://{host.removesuffix(f':{default_port}')}"
