"""What the editing of one flow shares."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import field
from functools import partial
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.edit.allowance import Allowance
from mitml4.edit.editor import Applied, EditedFlow, Editor, Failed
from mitml4.edit.memory import EditMemory
from mitml4.edit.messages import Request, Response, Server
from mitml4.layers.report import Report
from mitml4.model import flow as model
from mitml4.net.stream import Stream
from mitml4.protocols.context import LayerContext
from mitml4.protocols.http.asked import of_headers
from mitml4.protocols.tls.hello import ClientHello

__all__ = ["FlowEditing", "Origin"]

_ENDLESS: Final = ("text/event-stream", "multipart/x-mixed-replace")
"""Content types of bodies that may have no end."""


@dataclass(slots=True, kw_only=True)
class FlowEditing:
    """The editor of a flow, and what it is told of the flow."""

    editor: Callable[[], Editor]
    """The editor as it is now: rules may be read again."""
    limit: int
    """Bytes of a body that is held back."""
    memory: EditMemory
    """For what is held back."""
    hold_s: float
    """How long a part of a match is held back while nothing follows."""
    flow: model.Flow
    report: Report
    connect: Callable[[Server], Awaitable[Stream]]
    """Connect to a server that a rule names. Raises OSError."""
    guards: bool = False
    """Whether requests of HTTP/2 for hosts that are not allowed are answered here."""
    was_denied: bool = False
    """Whether one was."""
    sni: dict[int, str] = field(default_factory=dict)
    """The names that ClientHellos have given, by depth."""
    upgraded: dict[int, Request] = field(default_factory=dict)
    """The requests of HTTP/1 that have become HTTP/2, by its depth."""
    protocols: dict[int, str] = field(default_factory=dict)
    """What was found at each depth."""
    allowance: Allowance = field(default_factory=Allowance)
    _unedited: set[str] = field(default_factory=set)

    def known(self, context: LayerContext, *protocols: str) -> EditedFlow:
        """The flow, with the layers outside of this one, and these."""
        layers = [
            model.Layer(
                depth=depth,
                protocol=protocol,
                action="intercepted" if protocol == "tls" else "relayed",
                speaker="client",
                details={"sni": self.sni[depth]} if depth in self.sni else {},
                time=self.flow.opened_at,
            )
            for depth, protocol in enumerate((*context.stack, *protocols))
        ]
        target = context.target
        destination = self.flow.destination
        if target and layers and (target.host, target.port) != (destination.ip, destination.port):
            layers[0].details = {
                "target": {"host": target.host, "port": target.port},
                **layers[0].details,
            }
        self.flow.layers = layers
        return EditedFlow(self.flow, partial(self.applied, context.depth), self.allowance)

    def learn(self, depth: int, hello: ClientHello) -> None:
        """A ClientHello is there."""
        if hello.sni:
            self.sni[depth] = hello.sni

    def find(self, depth: int, protocol: str) -> None:
        """A protocol was found at a depth."""
        self.protocols[depth] = protocol

    def found(self, context: LayerContext) -> tuple[str, ...]:
        """What was found at this depth, or is expected; nothing as long as it is not known."""
        protocol = self.protocols.get(context.depth) or context.expected
        return (protocol,) if protocol else ()

    def refuses(self, context: LayerContext, headers: Sequence[tuple[bytes, bytes]]) -> str | None:
        """Why a request of HTTP/2 may not go to its server, which is said; None: it may."""
        if not self.guards:
            return None
        refusal = context.policy.refusal(*of_headers(headers, context))
        if not refusal:
            return None
        self.was_denied = True
        self.report.error("client", "relay", "refused", str(refusal))
        return str(refusal)

    def edits_data(self, context: LayerContext) -> bool:
        """Whether the bytes of protocols other than HTTP may be changed here."""
        self.known(context, *self.found(context))
        return self.editor().edits_data(self.flow, is_named=bool(self.sni))

    def may_match(self, context: LayerContext) -> bool:
        """Whether anything inside may be changed. Inside TLS with a name, requests are for it."""
        self.known(context)
        return self.editor().may_match(self.flow, is_named=bool(self.sni))

    def may_answer(self, context: LayerContext, *protocols: str) -> bool:
        """Whether a request inside these may be answered without the flow's server."""
        self.known(context, *protocols)
        is_named = bool(self.sni or self.flow.name)
        return self.editor().may_answer(self.flow, is_named=is_named)

    def too_large(self, size: int) -> str:
        """Why a body was not held back to its end."""
        if size > self.limit:
            return f"a body above {self.limit} bytes"
        return "other bodies take all memory"

    def is_endless(self, message: Request | Response) -> bool:
        """Whether a body of this type has no end that is worth waiting for."""
        media = (message.headers.get("content-type") or "").partition(";")[0].strip().lower()
        return media in _ENDLESS or media.startswith("application/grpc")

    def applied(self, depth: int, applied: Applied | Failed) -> None:
        self.report.applied(depth, applied)

    def unedited(self, depth: int, stream: int | None, reason: str) -> None:
        """Something streams by unedited; said once for each reason."""
        if reason not in self._unedited:
            self._unedited.add(reason)
            self.applied(depth, Applied(what="unedited", stream=stream, reason=reason))


@dataclass(slots=True)
class Origin:
    """The server of a flow, which may be connected to only when it is needed."""

    stream: Stream | None
    connect: Callable[[], Awaitable[Stream]] | None = None

    async def get(self) -> Stream:
        """Raises OSError."""
        if self.stream is None:
            assert self.connect
            self.stream = await self.connect()
        return self.stream
