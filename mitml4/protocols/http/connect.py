"""HTTP CONNECT (RFC 9110 §9.3.6): an HTTP/1 conversation that turns into a tunnel.

It is an HTTP/1 conversation with a proxy, until a CONNECT is answered with a 2xx. From the byte
after that response head, both directions belong to the inner protocol, in which the server may
speak first. After any other answer (a 407 that asks for credentials, a 403) its body and further
requests follow, as in http1_conversation.py.
"""

from __future__ import annotations

from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import (
    Details,
    Opening,
    Protocol,
    Target,
    Verdict,
)
from mitml4.protocols.http.events import (
    GrpcMessage,
    HttpBody,
    HttpEnd,
    HttpRequest,
    HttpResponse,
)
from mitml4.protocols.http.http1_conversation import HttpConversation
from mitml4.protocols.http.http1_heads import CONNECT_BEGUN, CONNECT_LINE, line_verdict
from mitml4.protocols.http.http1_pipeline import HttpExchange
from mitml4.regex import regex

__all__ = ["PROTOCOL", "HttpConnect", "HttpConnectDetails"]

_LIKELY: Final = regex(rb"(?:\r?\n){0,4}CONNECT [^\r\n]")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpConnectDetails(Details):
    """Target of the last CONNECT, if it can be parsed, and the status of its final response."""

    target: Target | None
    status: int | None


@dataclass(slots=True)
class HttpConnect(HttpConversation):
    """A connection to a proxy that begins with CONNECT."""

    name: ClassVar[str] = "http-connect"
    follows_connect: ClassVar[bool] = True

    elsewhere: bool = True
    asked: Target | None = None
    status: int | None = None

    def head_read(self, exchange: HttpExchange, status: int | None) -> None:
        if exchange.method == b"CONNECT" and (status is None or status >= 200):
            self.asked, self.status = exchange.target, status
        self.details_ready = self.details_ready or status is not None

    def details(self) -> HttpConnectDetails:
        return HttpConnectDetails(target=self.asked, status=self.status)


def detect(opening: Opening) -> Verdict:
    """The request line of a CONNECT, in authority-form or in another form that proxies accept."""
    verdict = line_verdict(opening.up, CONNECT_LINE, CONNECT_BEGUN)
    is_likely = verdict is Verdict.NEED_MORE and _LIKELY.match(opening.up)
    return Verdict.LIKELY if is_likely else verdict


PROTOCOL: Final = Protocol(
    name=HttpConnect.name,
    detect=detect,
    converse=lambda context: HttpConnect(context=context),
    is_proxy=True,
    names_hosts=True,
    has_messages=True,
    events=(HttpRequest, HttpResponse, HttpBody, GrpcMessage, HttpEnd),
    client_first=b"C\r\n",
    server_first=b"",
    conclusive=True,
)
