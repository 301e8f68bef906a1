"""The offline driver of conversations: one flow's streams, depth by depth, to layers and facts.

It does to a capture what the live driver does to two sockets: asks the registry what the first
bytes are, follows the conversation by its directives, and begins anew one depth further in when
both directions are SWITCH. There is nothing to hold back here, so what may not move yet simply
waits in memory, up to a bound. Where bytes are missing, a conversation goes on only if it had
declared them unseen; otherwise the rest of the flow is opaque.

A layer of TLS that the secrets open is one depth, and its plaintext another, which is fed from it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Protocol

from mitml4.capture.flow import ALL
from mitml4.capture.reports import Speaker
from mitml4.capture.tls.decryption import TlsDecryption
from mitml4.capture.tls.secrets import Secrets
from mitml4.errors import ProtocolError
from mitml4.protocols import registry
from mitml4.protocols.context import MAX_DEPTH, LayerContext
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    MAX_PEEK,
    MIRROR,
    PEEK,
    SWITCH,
    Conversation,
    Details,
    Direction,
    Forward,
    Framing,
    Opening,
)
from mitml4.protocols.conversation import Protocol as ProtocolRow
from mitml4.protocols.protocol_event import ProtocolEvent, StreamLayer

__all__ = ["Depth", "Observer"]

_UNKNOWN: Final = "unknown"
_MAX_UNCOUNTED: Final = 1 << 15
"""What a conversation may hold without being counted: few hold as much."""
_MAX_HELD_BYTES: Final = 1 << 18
"""What a direction may bring while it has to wait for the other."""


class Observer(Protocol):
    """Who is told of a flow's layers."""

    kept_bytes: int
    """What all depths of the flow hold in memory; they keep the count."""

    def layer(
        self, depth: int, protocol: str, speaker: Speaker, details: Details | None, *, opened: bool
    ) -> None:
        """A layer is known, outermost first, each depth once. `opened`: TLS that was decrypted."""

    def protocol_event(self, depth: int, protocol_event: ProtocolEvent) -> None:
        """A conversation took notice of something."""

    def fault(self, depth: int, direction: Direction, reason: str) -> None:
        """The flow cannot be followed any further."""


class _Lane:
    """One direction at one depth."""

    __slots__ = ("cut", "direction", "ended", "kept", "said")

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        self.kept: bytes | bytearray = b""
        """What no conversation has taken yet."""
        self.cut = False
        """Whether bytes of it are missing, so that what follows them is not looked at any more."""
        self.ended = False
        self.said = False
        """Whether the conversation knows that it has ended."""

    def keep(self, data: bytes) -> None:
        """Mostly nothing is kept yet, and what comes then is kept as it is, without a copy."""
        if not self.kept:
            self.kept = data
        elif isinstance(self.kept, bytearray):
            self.kept += data
        else:
            self.kept = bytearray(self.kept) + data

    def take(self, count: int) -> bytes:
        """The first `count` bytes, which are not kept any more."""
        taken = bytes(self.kept[:count])
        self.drop(count)
        return taken

    def drop(self, count: int) -> None:
        if count >= len(self.kept):
            self.kept = b""
        elif isinstance(self.kept, bytearray):
            del self.kept[:count]
        else:
            self.kept = self.kept[count:]


class Depth:
    """Both directions at one depth: undecided, then in a conversation, then opaque or inside."""

    __slots__ = (
        "context",
        "conversation",
        "depth",
        "down",
        "framings",
        "held",
        "inner",
        "observer",
        "opaque",
        "opened",
        "secrets",
        "speaker",
        "tapped",
        "told",
        "up",
    )

    def __init__(
        self,
        observer: Observer,
        context: LayerContext,
        *,
        secrets: Secrets | None = None,
    ) -> None:
        """`secrets` open TLS, wherever in the stack."""
        self.observer = observer
        self.depth = context.depth
        self.context = context
        self.up = _Lane(Direction.UP)
        self.down = _Lane(Direction.DOWN)
        self.speaker: Speaker | None = None
        """Who spoke first; None while nobody has."""
        self.conversation: Conversation | None = None
        self.secrets = secrets
        self.inner: Depth | None = None
        """Whose bytes those that come next are."""
        self.framings: dict[Direction, Framing] | None = None
        """What carries them, where they do not stand bare."""
        self.opened: Depth | None = None
        """What the conversation has decrypted."""
        self.opaque = context.depth >= MAX_DEPTH
        self.told = False
        self.held = 0
        """What the conversation holds of what it has seen, beyond what any may."""
        self.tapped = 0
        """How much the conversation has been given to keep before its layer was told."""
        expected = context.expected
        if expected and not self.opaque and (protocol := registry.by_name(expected)):
            self._begin(protocol)

    # What the capture brings

    def data(self, direction: Direction, data: bytes) -> None:
        """The next bytes."""
        if self.inner:
            self._hand_on(self.inner, direction, data)
            return
        lane = self.up if direction is Direction.UP else self.down
        if not (self.opaque or lane.cut):
            self.speaker = self.speaker or ("client" if direction is Direction.UP else "server")
            lane.keep(data)
            self.observer.kept_bytes += len(data)
            self._go_on()

    def passed(self, direction: Direction, count: int) -> None:
        """Bytes that were declared unseen."""
        if self.inner:
            self.inner.passed(direction, count)
        elif self.conversation:
            try:
                self.conversation.passed(direction, count)
            except ProtocolError as error:
                self._break(direction, error.message)
            self._go_on()

    def lost(self, direction: Direction, count: int) -> None:
        """Bytes are missing here, and were not declared unseen."""
        if self.inner:
            self.inner.lost(direction, count)
            return
        lane = self.up if direction is Direction.UP else self.down
        if not (self.opaque or lane.cut):
            lane.cut = True
            if self.conversation:
                self._break(direction, f"{count} bytes are missing from the capture")
            self._go_on()

    def end(self, direction: Direction) -> None:
        """The direction's FIN."""
        lane = self.up if direction is Direction.UP else self.down
        lane.ended = True
        if self.inner:
            self.inner.end(direction)
            return
        self._go_on()
        if self.opened:
            self.opened.end(direction)

    def give_up(self) -> None:
        """Answer an open question as it stands, and keep no bytes any more."""
        if self.inner:
            self.inner.give_up()
            return
        self._go_on(finally_=True)
        self._finish()
        self._become_opaque()

    def close(self) -> None:
        """No more packets: an open question is answered as it stands."""
        if not self.inner:
            self._go_on(finally_=True)
            self._finish()
        if within := self.inner or self.opened:
            within.close()

    @property
    def over(self) -> bool:
        """Whether both directions have ended, at all depths, and it is known what they were."""
        if not (self.told and self.up.ended and self.down.ended):
            return False
        within = self.inner or self.opened
        return within is None or within.over

    def unseen(self, direction: Direction) -> int:
        """How many of the next bytes need not be shown."""
        if self.inner:
            unseen = self.inner.unseen(direction)
            return 0 if self.framings and unseen < ALL else unseen
        lane = self.up if direction is Direction.UP else self.down
        if self.opaque or lane.cut:
            return ALL
        if self.conversation is None or lane.kept:
            return 0
        directive = self.conversation.directive(direction)
        if isinstance(directive, Forward):
            return ALL if directive.count is None else directive.count
        return 0

    def _go_on(self, *, finally_: bool = False) -> None:
        if self.opaque:
            return
        if self.conversation:
            self._pump()
        elif self.speaker:
            self._detect(finally_=finally_)

    # What it is

    def _detect(self, *, finally_: bool) -> None:
        """Ask what it is; with `finally_`, or when nothing can come, the likely one will do."""
        up, down = self.up, self.down
        target = self.context.target
        detection = registry.detect(
            Opening(
                up=bytes(up.kept),
                down=bytes(down.kept),
                up_ended=up.ended,
                down_ended=down.ended,
                within=self.context.stack,
                port=target.port if target else None,
            )
        )
        nothing_will_come = (up.ended or up.cut) and (down.ended or down.cut)
        if detection.match:
            self._begin(detection.match)
        elif finally_ or nothing_will_come or not detection.undecided:
            if detection.likely:
                self._begin(detection.likely)
            else:
                self._announce(_UNKNOWN, None)
                self._become_opaque()

    def _begin(self, protocol: ProtocolRow) -> None:
        if protocol.converse is None:
            self._announce(protocol.name, None)
            self._become_opaque()
            return
        if self.secrets and protocol.name == TlsDecryption.name:
            self.conversation = TlsDecryption(context=self.context, secrets=self.secrets)
        else:
            self.conversation = protocol.converse(self.context)
        for lane in (self.up, self.down):
            if lane.cut:
                self._pump()
                self._break(lane.direction, "bytes are missing from the capture")
        self._pump()

    # The conversation

    def _pump(self) -> None:
        """Ask both directions in turn, who spoke first first, until neither changes any more."""
        conversation = self.conversation
        first, second = self.up, self.down
        if self.speaker == "server":
            first, second = second, first
        while self._step(first) or self._step(second):
            pass
        if self.opaque or conversation is None:
            return
        self._hold(conversation.memory)
        if conversation.protocol_events:
            self._drain_notices(conversation)
        if conversation.details_ready and not self.told:
            self._tell()
        if self.secrets:
            self._open()
        if conversation.up is SWITCH and conversation.down is SWITCH:
            self._go_inside(conversation)

    def _step(self, lane: _Lane) -> bool:
        """Do once what the conversation wants of a direction; whether anything changed."""
        if not (lane.kept or (lane.ended and not lane.said)):
            return False  # nothing has come, which is what most calls find
        if self.conversation is None:
            return False
        try:
            return self._do(lane, self.conversation)
        except ProtocolError as error:
            self._break(lane.direction, error.message)
            return False

    def _do(self, lane: _Lane, conversation: Conversation) -> bool:
        direction, kept = lane.direction, len(lane.kept)
        directive = conversation.directive(direction)
        if kept and directive is PEEK:
            if self._look(lane, conversation):
                return True
        elif kept and directive is MIRROR:
            self._tap(lane, conversation)
            return True
        elif kept and isinstance(directive, Forward):
            count = kept if directive.count is None else min(directive.count, kept)
            self._drop(lane, count)
            conversation.passed(direction, count)
            return True
        if kept > _MAX_HELD_BYTES:
            raise ProtocolError("too many bytes that may not move yet")
        if directive is PEEK or directive is MIRROR or isinstance(directive, Forward):
            return self._end(lane, conversation)
        return False

    def _look(self, lane: _Lane, conversation: Conversation) -> bool:
        shown = bytes(lane.kept[:MAX_PEEK])
        up, down = conversation.up, conversation.down
        count = conversation.feed(lane.direction, shown)
        self._drop(lane, count)
        if not count and len(shown) == MAX_PEEK:
            raise ProtocolError("more bytes than one look may hold")
        return count > 0 or up != conversation.up or down != conversation.down

    def _tap(self, lane: _Lane, conversation: Conversation) -> None:
        """Until its layer is told, a conversation may have kept all that it was shown."""
        shown = self._take(lane)
        if not self.told:
            self.tapped += len(shown)
            self.observer.kept_bytes += len(shown)
        conversation.feed(lane.direction, shown)

    def _end(self, lane: _Lane, conversation: Conversation) -> bool:
        """Once a direction has ended, the conversation hears it, and what it left goes unseen."""
        if not lane.ended or lane.said:
            return False
        lane.said = True
        conversation.end(lane.direction)
        self._drop(lane, len(lane.kept))
        return True

    def _go_inside(self, conversation: Conversation) -> None:
        self._tell()
        self.inner = inner = self._within(conversation, secure=self.context.secure)
        if framing := conversation.framing:
            self.framings = {direction: framing() for direction in Direction}
        for lane in (self.up, self.down):
            if lane.kept:
                self._hand_on(inner, lane.direction, self._take(lane))
            if lane.ended:
                inner.end(lane.direction)

    def _hand_on(self, inner: Depth, direction: Direction, data: bytes) -> None:
        if self.framings:
            data = bytes(self.framings[direction].unwrap(data))
        if data:
            inner.data(direction, data)

    def _within(self, conversation: Conversation, *, secure: bool) -> Depth:
        inside = self.context.inside(
            conversation.name, target=conversation.target, expected=conversation.inner
        )
        return Depth(self.observer, replace(inside, secure=secure), secrets=self.secrets)

    def _open(self) -> None:
        """Hand what was decrypted to the depth of its own, as long as that wants to see any."""
        conversation = self.conversation
        if not (isinstance(conversation, TlsDecryption) and conversation.plaintext):
            return
        self._tell()
        opened = self.opened = self.opened or self._within(conversation, secure=True)
        for piece in conversation.plaintext:
            if piece.data:
                opened.data(piece.direction, piece.data)
            elif piece.lost:
                opened.lost(piece.direction, piece.lost)
            else:
                opened.end(piece.direction)
        conversation.plaintext.clear()
        for direction in Direction:
            if opened.unseen(direction) >= ALL:
                conversation.set_directive(direction, FORWARD_ALL)

    def _break(self, direction: Direction, reason: str) -> None:
        """The conversation cannot go on: what it has learned counts, the rest is opaque."""
        if self.opaque:
            return
        self._finish()
        self._open()
        self.observer.fault(self.depth, direction, reason)
        self._become_opaque()

    # Telling and keeping

    def _finish(self) -> None:
        """The conversation is over: it says what is left unfinished."""
        if self.conversation:
            self.conversation.close()
            self._drain_notices(self.conversation)
        self._tell()

    def _tell(self) -> None:
        if self.conversation and not self.told:
            self._announce(self.conversation.name, self.conversation.details())
            self._untap()

    def _announce(self, name: str, details: Details | None) -> None:
        self.told = True
        opened = isinstance(self.conversation, TlsDecryption) and self.conversation.opened
        self.observer.layer(self.depth, name, self.speaker or "client", details, opened=opened)

    def _drain_notices(self, conversation: Conversation) -> None:
        if conversation.protocol_events:
            self._tell()
            for protocol_event in conversation.protocol_events:
                if isinstance(protocol_event, StreamLayer):
                    within = self.depth + 1
                    self.observer.layer(
                        within, protocol_event.protocol, "client", None, opened=False
                    )
                else:
                    self.observer.protocol_event(self.depth, protocol_event)
            conversation.protocol_events.clear()

    def _become_opaque(self) -> None:
        self.opaque = True
        self.conversation = None
        self._hold(0)
        if self.opened:
            self.opened.give_up()
        for lane in (self.up, self.down):
            self._drop(lane, len(lane.kept))

    def _untap(self) -> None:
        self.observer.kept_bytes -= self.tapped
        self.tapped = 0

    def _hold(self, memory: int) -> None:
        """The conversation holds so many bytes now."""
        held = max(0, memory - _MAX_UNCOUNTED)
        self.observer.kept_bytes += held - self.held
        self.held = held

    def _take(self, lane: _Lane) -> bytes:
        self.observer.kept_bytes -= len(lane.kept)
        return lane.take(len(lane.kept))

    def _drop(self, lane: _Lane, count: int) -> None:
        lane.drop(count)
        self.observer.kept_bytes -= count
