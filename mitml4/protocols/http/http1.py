"""HTTP/1.0 and HTTP/1.1 (RFC 9112), followed message by message without reading a body.

http1_opening        detection
http1_heads          heads, and how a body is delimited
http1_messages       each direction, message by message and part by part
http1_pipeline       requests that wait for their responses
http1_conversation   what heads ask for, and which protocol comes next
"""

from __future__ import annotations

from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import Details, Protocol
from mitml4.protocols.http.events import (
    GrpcMessage,
    HttpBody,
    HttpEnd,
    HttpRequest,
    HttpResponse,
)
from mitml4.protocols.http.http1_conversation import HttpConversation
from mitml4.protocols.http.http1_opening import detect
from mitml4.protocols.parts.lines import TEXT

__all__ = ["PROTOCOL", "Http1", "Http1Details"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Http1Details(Details):
    """Host of the first request, and whether its target is an absolute URL (a request to a
    proxy). `upgrade`: the protocol to which a 101 response to it switched."""

    host: str | None
    absolute_form: bool
    upgrade: str | None


@dataclass(slots=True)
class Http1(HttpConversation):
    """A connection of HTTP/1 messages."""

    name: ClassVar[str] = "http/1"

    def details(self) -> Http1Details:
        return Http1Details(host=self.host, absolute_form=self.absolute_form, upgrade=self.upgrade)


PROTOCOL: Final = Protocol(
    name=Http1.name,
    detect=detect,
    converse=lambda context: Http1(context=context),
    has_messages=True,
    events=(HttpRequest, HttpResponse, HttpBody, GrpcMessage, HttpEnd),
    client_first=TEXT,
    server_first=b"HI\r\n",
    names_hosts=True,
    conclusive=True,
)
