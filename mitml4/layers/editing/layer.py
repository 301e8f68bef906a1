"""The layer that edits: it stands between what observes a flow and its server.

    client ⇄ Observe, InterceptTls, …  ⇄  near │ far ⇄ Http1Editing, … ⇄ server

It looks at the first bytes, which stay unread. Where no HTTP begins, nothing is changed, unless
there are rules for other protocols.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from functools import partial
from typing import Final

import trio

from mitml4.dataclass import dataclass
from mitml4.layers.bridge import Bridge
from mitml4.layers.editing.data import DataEditing
from mitml4.layers.editing.flow import FlowEditing, Origin
from mitml4.layers.editing.http1 import Http1Editing
from mitml4.layers.editing.http2 import Http2Editing
from mitml4.layers.layer import Inner, Layer
from mitml4.net.memory import MemoryStream, memory_pair
from mitml4.net.stream import Stream
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.http.http1_heads import (
    CONNECT_BEGUN,
    CONNECT_LINE,
    REQUEST_BEGUN,
    REQUEST_LINE,
    line_verdict,
)
from mitml4.protocols.http.http1_opening import KNOWN_METHODS
from mitml4.protocols.http.http2 import detect as detect_http2
from mitml4.protocols.http.http2_wire import PREFACE
from mitml4.tasks import first_of

__all__ = ["Edit", "Kind", "first_bytes", "kind_of"]

_FIRST_LINE_S: Final = 10.0
"""How long the beginning of a request line is held back while nothing follows."""
_METHODS: Final = (*KNOWN_METHODS, b"CONNECT", b"PRI")
_DRAIN_S: Final = 2.0
"""How long the server may take to read what the client had sent before the end."""


class Kind(Enum):
    """What a client's first bytes begin."""

    HTTP1 = auto()
    HTTP2 = auto()
    TLS = auto()
    OTHER = auto()


def kind_of(data: bytes) -> Kind | None:
    """None: more bytes decide."""
    if not data:
        return None
    if b"\x16\x03".startswith(data[:2]):
        return Kind.TLS if len(data) > 1 else None
    if data.startswith(PREFACE):
        return Kind.HTTP2
    if PREFACE.startswith(data):
        return None
    verdicts = (
        line_verdict(data, REQUEST_LINE, REQUEST_BEGUN),
        line_verdict(data, CONNECT_LINE, CONNECT_BEGUN),
    )
    if Verdict.MATCH in verdicts:
        return Kind.HTTP1
    return None if Verdict.NEED_MORE in verdicts else Kind.OTHER


@dataclass(frozen=True, slots=True)
class Edit:
    """Edits what begins here, if that is HTTP, or if there are rules for the bytes of others."""

    editing: FlowEditing
    observe: Layer
    """What follows the bytes that the client sends and gets."""
    next_layer: Callable[[LayerContext], Layer]
    """The layers inside."""
    origin: Origin | None = None
    """The server, where it is not the bridge's server side."""

    async def run(self, bridge: Bridge, context: LayerContext) -> Inner | None:
        await bridge.flush()
        kind = Kind.OTHER
        if not (bridge.framing or bridge.up.ahead or bridge.down.ahead):
            hold_s = _FIRST_LINE_S if self.editing.guards else self.editing.hold_s
            kind = await first_bytes(bridge, hold_s)
        origin = self.origin or Origin(bridge.server_side)
        near, far = memory_pair(levels=_levels(bridge.client_side))
        match kind:
            case Kind.HTTP1 if self.editing.may_match(context):
                serve = Http1Editing(far, origin, self.editing, context).run
            case Kind.HTTP2:
                serve = Http2Editing(far, origin, self.editing, context).run
                if self.editing.guards:
                    context = context.answering_denied()
            case Kind.OTHER if not bridge.framing and self.editing.edits_data(context):
                data = DataEditing(far, origin, self.editing, context)
                await self._run_beside(data.run, far, bridge.through(near), context, data.stop)
                return None
            case _:
                if self.origin:
                    bridge = bridge.through(await origin.get())
                return await self.observe.run(bridge, context)
        await self._run_beside(serve, far, bridge.through(near), context)
        return None

    async def _run_beside(
        self,
        serve: Callable[[], Awaitable[None]],
        far: MemoryStream,
        bridge: Bridge,
        context: LayerContext,
        on_inner: Callable[[], None] = lambda: None,
    ) -> None:
        """Run this layer, and those inside it, to their ends. `on_inner` is called once another one
        begins inside it."""
        served = trio.Event()

        async def guarded() -> None:
            """An error of the server's side is a reset for what observes."""
            try:
                await serve()
                far.close()
            except (OSError, trio.ClosedResourceError):
                far.abort()
            except BaseException:
                far.abort()
                raise
            finally:
                served.set()

        async def observe() -> None:
            inner: Inner | None = await self.observe.run(bridge, context)
            on_inner()
            while inner:
                layer = self.next_layer(inner.context)
                inner = await layer.run(inner.bridge, inner.context)
            with trio.move_on_after(_DRAIN_S):
                await served.wait()

        await first_of(observe, partial(_then_wait, guarded))


def _levels(stream: Stream) -> int:
    """How many streams carry this one."""
    count = 0
    while stream.below:
        stream, count = stream.below, count + 1
    return count


async def _then_wait(work: Callable[[], Awaitable[None]]) -> None:
    await work()
    await trio.sleep_forever()


def _begins_known_method(data: bytes) -> bool:
    token, space, _ = data.lstrip(b"\r\n").partition(b" ")
    return any(method == token if space else method.startswith(token) for method in _METHODS)


async def first_bytes(bridge: Bridge, hold_s: float = _FIRST_LINE_S) -> Kind:
    """What the client's first bytes begin. If the server speaks first, it may only be HTTP/2.

    `hold_s`: how long bytes are held back that may begin a request line, with a method that nobody
    knows. Other protocols' first message may look so, and be all that is sent before an answer.
    """
    seen, spoken = 0, b""
    deadline, began = math.inf, 0.0
    while True:
        looked: bytes | None = None
        with trio.CancelScope(deadline=deadline):
            looked = await first_of(
                partial(bridge.up.look, seen), partial(bridge.down.look, len(spoken))
            )
        if looked is None and len(down := bridge.down.glance()) > len(spoken):
            spoken = down
            if detect_http2(Opening(up=b"", down=spoken)) is Verdict.REJECT:
                return Kind.OTHER
            continue
        if looked is None or len(looked) <= seen:
            return Kind.OTHER
        if kind := kind_of(looked):
            return Kind.OTHER if spoken and kind is not Kind.HTTP2 else kind
        began = began if seen else trio.current_time()
        deadline = began + (_FIRST_LINE_S if _begins_known_method(looked) else hold_s)
        seen = len(looked)
