"""The requests of an HTTP/1 connection that wait for their responses, in order.

A request head appends an exchange. Response heads belong to the first exchange, until a final
response is complete. What happens to an exchange becomes an event: its request, its responses, its
end.

A request that waits behind others becomes an event only once it is answered. If the server closes
the connection before, it has not served that request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import field
from typing import Final, TypeAlias

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Target
from mitml4.protocols.http.bodies import BodyEvent
from mitml4.protocols.http.events import HttpEnd, HttpRequest, HttpResponse
from mitml4.protocols.http.exchange import Exchange

__all__ = ["HttpExchange", "Pipeline"]

MAX_OUTSTANDING: Final = 1024
"""Requests that may wait for their responses on one connection."""
MAX_WAITING_BYTES: Final = 1 << 18
"""Memory of requests that wait behind others."""


HttpEvent: TypeAlias = HttpRequest | HttpResponse | HttpEnd | BodyEvent
Events: TypeAlias = tuple[HttpEvent, ...]


@dataclass(slots=True)
class HttpExchange(Exchange):
    method: bytes = b""
    memory: int = 0
    """About how many bytes its request takes."""
    pauses: bool = False
    """The client's bytes after this request wait for its final response head."""
    target: Target | None = None
    """That of a CONNECT."""
    waiting: HttpRequest | None = None
    """Its request, as long as it waits behind others."""
    simple: bool = False
    """Whether it is a request of HTTP/0.9."""
    is_answered: bool = False
    """Whether its final response head has arrived."""


@dataclass(slots=True)
class Pipeline:
    """The exchanges that are not complete, oldest first. Methods return events."""

    clock: Callable[[], float]
    unanswered: list[HttpExchange] = field(default_factory=list)
    closes: bool = False
    """Whether a response was declared the last: later requests may never be served."""
    waiting_bytes: int = 0
    requests: int = 0
    """Requests so far, including those that were not seen."""

    @property
    def front(self) -> HttpExchange | None:
        """The exchange that the next response head belongs to."""
        return self.unanswered[0] if self.unanswered else None

    def ask(self, method: bytes) -> HttpExchange:
        """Append the exchange of a new request."""
        if len(self.unanswered) >= MAX_OUTSTANDING:
            raise ProtocolError("HTTP/1: too many requests without a response")
        self.requests += 1
        exchange = HttpExchange(self.requests, self.clock(), method=method)
        self.unanswered.append(exchange)
        return exchange

    def ask_unseen(self) -> HttpExchange:
        """The exchange of a response without a request (captures that begin midway)."""
        exchange = self.ask(b"")
        exchange.request_done = True
        return exchange

    def add_request(self, exchange: HttpExchange, request: HttpRequest, memory: int) -> Events:
        """Set the request of the newest exchange, and the memory that it needs while it waits."""
        exchange.waiting, exchange.memory = request, memory
        self.waiting_bytes += memory
        if exchange is self.unanswered[0] and not self.closes:
            return self.release_request(exchange)
        if self.waiting_bytes > MAX_WAITING_BYTES:
            raise ProtocolError("HTTP/1: too many requests without a response")
        return ()

    def release_request(self, exchange: HttpExchange) -> Events:
        """The request is answered, or is the only one: it may become an event."""
        request, exchange.waiting = exchange.waiting, None
        if request is None:
            return ()
        self.waiting_bytes -= exchange.memory
        return (request, *(exchange.end_request_body() if exchange.request_done else ()))

    def end_request(self, exchange: HttpExchange) -> Events:
        """The request is complete, its body included."""
        exchange.end_request(self.clock)
        if not exchange.request_body or exchange.waiting:
            return self._end(exchange)
        return (*exchange.end_request_body(), *self._end(exchange))

    def end_response(self) -> Events:
        """The final response to the exchange at the front is complete."""
        exchange = self.unanswered.pop(0)
        exchange.response_done = True
        if not exchange.response_body:
            return self._end(exchange)
        return (*exchange.end_response_body(), *self._end(exchange))

    def _end(self, exchange: HttpExchange) -> Events:
        is_over = exchange.request_done and exchange.response_done
        return (exchange.end(self.clock()),) if is_over else ()

    def cut(self, last: HttpExchange | None, *, one_sided: bool) -> Iterator[HttpEvent]:
        """The connection is over: end all exchanges. `last` is the exchange of the last request;
        `one_sided`: no response was seen, so this may be a capture of the client's side alone."""
        unfinished = list(self.unanswered)
        self.unanswered.clear()
        if last and last.response_done and not last.request_done:
            unfinished.insert(0, last)
        one_sided = one_sided and not any(exchange.is_answered for exchange in unfinished)
        for exchange in unfinished:
            if one_sided:  # then show at least the requests
                yield from self.release_request(exchange)
            bodies = (*exchange.end_request_body(), *exchange.end_response_body())
            if exchange.waiting is None:
                yield from bodies
                yield exchange.end(self.clock(), "cut")
