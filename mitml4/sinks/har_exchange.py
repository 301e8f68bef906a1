"""What is known of an HTTP exchange, for its entry in an archive."""

from __future__ import annotations

from dataclasses import field
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from mitml4.dataclass import dataclass
from mitml4.events import FlowLayer, FlowOpen
from mitml4.protocols.http.events import (
    GrpcMessage,
    HttpBody,
    HttpEnd,
    HttpRequest,
    HttpResponse,
    Pairs,
)
from mitml4.protocols.http.websocket import WebSocketMessage
from mitml4.protocols.registry import PROTOCOLS
from mitml4.protocols.tls.protocol import TlsDetails

__all__ = ["Exchange", "Key", "values"]

_PROXIES: Final = frozenset(row.name for row in PROTOCOLS if row.is_proxy)
_REUSED: Final = frozenset({"http/1", "http/2"})
"""A layer inside one of these began on a connection that had been used (an h2c upgrade)."""

Key: TypeAlias = tuple[int, int]
"""Depth and stream."""


@dataclass(slots=True, kw_only=True)
class Exchange:
    """A request, and what has followed it so far."""

    flow: FlowOpen
    layers: tuple[FlowLayer, ...]
    """Those of the flow, outermost first, from the outermost to HTTP."""
    key: Key
    is_first: bool
    """Whether it is the first in its layer."""
    asked_at: datetime
    request: HttpRequest
    size: int
    """Its approximate memory, in bytes."""
    answered_at: datetime | None = None
    response: HttpResponse | None = None
    request_body: HttpBody | None = None
    response_body: HttpBody | None = None
    socket_messages: list[tuple[datetime, WebSocketMessage]] = field(default_factory=list)
    grpc_messages: list[tuple[datetime, GrpcMessage]] = field(default_factory=list)
    left_out: int = 0
    """Bodies and messages for which there was no memory."""
    end: HttpEnd | None = None
    ended_at: datetime | None = None

    @property
    def stack(self) -> tuple[str, ...]:
        return tuple(layer.protocol for layer in self.layers)

    @property
    def is_through_proxy(self) -> bool:
        """Whether the flow's destination is a proxy and not the server."""
        return not _PROXIES.isdisjoint(self.stack)

    @property
    def is_websocket(self) -> bool:
        """Whether it became a WebSocket, whose messages follow."""
        response = self.response
        if response is None:
            return False
        if response.status == 101:
            return "websocket" in (token.lower() for token in values(response.headers, "upgrade"))
        asked = values(self.request.headers, ":protocol")
        return response.status // 100 == 2 and "websocket" in asked

    @property
    def began_at(self) -> datetime:
        """A request may be told later than it was sent: the end has its duration."""
        if self.end and self.ended_at:
            return self.ended_at - timedelta(seconds=self.end.duration_s)
        return self.asked_at

    @property
    def connect_s(self) -> float | None:
        """How long the connection took, TLS included; None if it had been made before, or if that
        was not seen."""
        if not self._has_connected:
            return None
        parts = (self.layers[0].connect_s, self.tls_s)
        known = [part for part in parts if part is not None]
        return sum(known) if known else None

    @property
    def tls_s(self) -> float | None:
        """How long TLS's handshakes with the server took, in the same way."""
        if not self._has_connected:
            return None
        took = [
            layer.details.handshake_s
            for layer in self.layers
            if isinstance(layer.details, TlsDetails) and layer.details.handshake_s is not None
        ]
        return sum(took) if took else None

    @property
    def _has_connected(self) -> bool:
        return self.is_first and _REUSED.isdisjoint(self.stack[:-1])


def values(headers: Pairs | None, name: str) -> list[str]:
    """The values of the header fields with this name, which is in lower case."""
    return [value for other, value in headers or () if other.lower() == name]
