"""The offline driver of the engine: one flow's streams, depth by depth, to layers and details.

Nothing is held back here: what may not move yet waits in memory, for as long as it would live, by
the packets' time. Where bytes are missing, a conversation goes on only if it had declared them
unseen; otherwise the rest of the flow is opaque.

A layer of TLS that the secrets open is followed by a `Depth`, and its plaintext by another one.
"""

from __future__ import annotations

from typing import Protocol, assert_never

from mitml4.capture.flow import ALL
from mitml4.capture.tls.decryption import Plaintext, TlsDecryption
from mitml4.capture.tls.secrets import Secrets
from mitml4.engine.actions import End, HandOver, Mirror, Move, MoveAhead, Switch, Wait, Yield
from mitml4.engine.engine import Engine
from mitml4.engine.plaintext import Copies
from mitml4.engine.plaintext import Plaintext as CopiedPlaintext
from mitml4.engine.rules import Rules
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import (
    MAX_PEEK,
    Conversation,
    Details,
    Direction,
    Forward,
    Framing,
    Speaker,
)
from mitml4.protocols.conversation import Protocol as ProtocolRow
from mitml4.protocols.protocol_event import ProtocolEvent, StreamLayer

__all__ = ["Depth", "Observer"]


class Observer(Protocol):
    """Who is told of a flow's layers."""

    kept_bytes: int
    """What all depths of the flow hold in memory; they keep the count."""

    def layer(
        self, depth: int, protocol: str, speaker: Speaker, details: Details | None, *, opened: bool
    ) -> None:
        """A layer is known, outermost first, each depth once. `opened`: TLS that was decrypted."""

    def protocol_event(self, depth: int, protocol_event: ProtocolEvent) -> None:
        """Something happened in a conversation."""

    def fault(self, depth: int, direction: Direction, reason: str) -> None:
        """The flow cannot be followed any further."""


class _Lane:
    """One direction."""

    __slots__ = ("direction", "ended", "is_cut", "is_over", "kept")

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        self.kept: bytes | bytearray = b""
        """What may not move yet."""
        self.is_cut = False
        """Whether bytes of it are missing, so that what follows them is not looked at any more."""
        self.ended = False
        self.is_over = False
        """Whether the engine has passed the end on."""

    def keep(self, data: bytes) -> None:
        """Mostly nothing is kept yet, and what comes then is kept as it is, without a copy."""
        if not self.kept:
            self.kept = data
        elif isinstance(self.kept, bytearray):
            self.kept += data
        else:
            self.kept = bytearray(self.kept) + data

    def drop(self, count: int) -> None:
        if count >= len(self.kept):
            self.kept = b""
        elif isinstance(self.kept, bytearray):
            del self.kept[:count]
        else:
            self.kept = self.kept[count:]


class Depth:
    """Both directions of a flow, or of the plaintext of a TLS layer, down to the innermost layer
    that stands in the clear. It is the engine's observer."""

    __slots__ = (
        "_ahead",
        "_copies",
        "_copy",
        "_counted",
        "_decryption",
        "_down",
        "_framings",
        "_has_yielded",
        "_observer",
        "_opened",
        "_plaintext",
        "_secrets",
        "_up",
        "engine",
    )

    def __init__(
        self,
        observer: Observer,
        context: LayerContext,
        *,
        secrets: Secrets | None = None,
        copies: Copies | None = None,
    ) -> None:
        """`secrets` open TLS, wherever in the stack; `copies` takes what is inside."""
        self._observer = observer
        self._secrets = secrets
        self._copies = copies
        self._copy: CopiedPlaintext | None = None
        """Takes copies of what is said at this depth, where that is opened TLS."""
        self._up = _Lane(Direction.UP)
        self._down = _Lane(Direction.DOWN)
        self._ahead = {Direction.UP: bytearray(), Direction.DOWN: bytearray()}
        self._framings: list[dict[Direction, Framing]] = []
        """What carries the bytes that come, outermost first."""
        self._decryption: TlsDecryption | None = None
        self._plaintext: list[Plaintext] = []
        """What was decrypted, and not handed on yet."""
        self._opened: Depth | None = None
        """The depth of the plaintext."""
        self._has_yielded = False
        self._counted = 0
        """What the observer has been told of memory here."""
        rules = Rules(converse=self._converse)
        self.engine = Engine(rules, self, context, ahead=self._ahead)

    def _converse(self, protocol: ProtocolRow, context: LayerContext) -> Conversation | None:
        if self._secrets and protocol.name == TlsDecryption.name:
            self._decryption = TlsDecryption(
                context=context, secrets=self._secrets, plaintext=self._plaintext
            )
            return self._decryption
        return protocol.converse(context) if protocol.converse else None

    # What the capture brings

    def data(self, direction: Direction, data: bytes) -> None:
        """The next bytes."""
        lane = self._up if direction is Direction.UP else self._down
        if lane.is_cut:
            return
        if lane.kept:  # what has waited may have waited for long enough
            self._pump(lane)
        for framings in self._framings:
            data = bytes(framings[direction].unwrap(data))
        if data:
            lane.keep(data)
            self._pump(lane)
        self._account()

    def passed(self, direction: Direction, count: int) -> None:
        """Bytes that were declared unseen."""
        lane = self._up if direction is Direction.UP else self._down
        if not lane.is_cut:
            self.engine.forwarded(direction, count)
            self._pump(lane)
            if self._counted:
                self._account()

    def lost(self, direction: Direction, count: int) -> None:
        """Bytes are missing here, and were not declared unseen."""
        lane = self._lane(direction)
        if not lane.is_cut:
            lane.is_cut = True
            self.engine.lost(direction, count)
            self._pump(lane)
            self._account()

    def end(self, direction: Direction) -> None:
        """The direction's FIN."""
        lane = self._lane(direction)
        lane.ended = True
        self._pump(lane)
        if self._opened:
            self._opened.end(direction)
        self._account()

    def give_up(self) -> None:
        """Answer an open question as it stands, and keep no bytes any more."""
        self._conclude()
        for lane in (self._up, self._down):
            lane.drop(len(lane.kept))
            lane.is_cut = True
        if self._opened:
            self._opened.give_up()
        self._account()

    def close(self) -> None:
        """No more packets: an open question is answered as it stands."""
        self._conclude()
        if self._opened:
            self._opened.close()
        elif self._copy:
            self._copy.flush()
        self._account()
        self.engine.let_go()

    def _conclude(self) -> None:
        self.engine.conclude()
        self._pump(self._up)
        self.engine.close()
        self._hand_on()

    @property
    def over(self) -> bool:
        """Whether both directions have ended, at all depths, and it is known what they were."""
        ended = self._up.ended and self._down.ended and self.engine.is_told
        return ended and (self._opened is None or self._opened.over)

    def unseen(self, direction: Direction) -> int:
        """How many of the next bytes need not be shown."""
        lane = self._up if direction is Direction.UP else self._down
        if lane.is_cut:
            return ALL
        if lane.kept:
            return 0
        unseen = self.engine.unseen(direction)
        if unseen is None:
            return ALL
        return 0 if self._framings else unseen

    def _lane(self, direction: Direction) -> _Lane:
        return self._up if direction is Direction.UP else self._down

    # What the engine wants

    def _pump(self, lane: _Lane) -> None:
        """Ask for both directions, this one first, until neither has an action left."""
        other = self._down if lane is self._up else self._up
        while lane.kept or other.kept or lane.ended or other.ended:
            if not (self._act_on(lane) or self._act_on(other) or self._must_ask_again(lane)):
                break
            self._has_yielded = False
        if self._plaintext:
            self._hand_on()

    def _act_on(self, lane: _Lane) -> bool:
        """Perform the next action of a direction; whether there was any."""
        if not lane.kept and (lane.is_over or not lane.ended):
            return False
        kept = lane.kept
        shown = kept if type(kept) is bytes else bytes(memoryview(kept)[: MAX_PEEK + 1])
        action = self.engine.next_action(lane.direction, shown, ended=lane.ended)
        if isinstance(action, (Move, MoveAhead)):  # most are, and a match would take longer
            lane.drop(action.count)
            return True
        match action:
            case End(is_over):
                lane.is_over = is_over
            case Switch():
                self._go_inside(action)
            case Yield():
                self._has_yielded = True
                return False
            case Wait():
                return False
            case Forward() | Mirror() | HandOver():
                raise AssertionError(f"{action} with bytes at hand")
            case _:
                assert_never(action)
        return True

    def _must_ask_again(self, lane: _Lane) -> bool:
        if self._has_yielded:
            return True
        has_something = bool(lane.kept) or (lane.ended and not lane.is_over)
        return has_something and self.engine.is_stale(lane.direction)

    def _go_inside(self, switch: Switch) -> None:
        if make := switch.inner.framing:
            framings = {direction: make() for direction in Direction}
            self._framings.append(framings)
            for lane in (self._up, self._down):
                unwrap, ahead = framings[lane.direction].unwrap, self._ahead[lane.direction]
                ahead[:] = unwrap(bytes(ahead))
                lane.kept = bytes(unwrap(bytes(lane.kept)))
        self._up.is_over = self._down.is_over = False
        self.engine = self.engine.inner()

    def _hand_on(self) -> None:
        """Pass the decrypted bytes to the inner depth, as long as it reads any."""
        if not self._plaintext:
            return
        self.engine.announce()
        opened = self._opened = self._opened or self._open()
        for piece in self._plaintext:
            opened.copy(piece)
            if piece.data:
                opened.data(piece.direction, piece.data)
            elif piece.lost:
                opened.lost(piece.direction, piece.lost)
            else:
                opened.end(piece.direction)
        self._plaintext.clear()
        for direction in Direction:
            if opened.unseen(direction) >= ALL and not self._copies:
                self.engine.release(direction)

    def _open(self) -> Depth:
        """The depth of the plaintext of the TLS here."""
        context = self.engine.context.inside_tls()
        opened = Depth(self._observer, context, secrets=self._secrets, copies=self._copies)
        if self._copy:
            self._copy.drop()
        if self._copies:
            opened._copy = self._copies(context.port)
            opened._copy.innermost = opened._innermost
        return opened

    def copy(self, piece: Plaintext) -> None:
        """Keep a copy of what comes next, unless it is TLS that was opened."""
        if self._copy is None or self._opened:
            return
        if piece.lost:
            self._copy.lost(piece.direction, piece.lost)
        else:
            self._copy.moved(piece.direction, piece.data)

    def _innermost(self) -> str | None:
        """The layer here, if it is known that no other one begins in it."""
        may_open = self._decryption is not None and self._decryption.may_open
        return None if may_open else self.engine.innermost

    def _account(self) -> None:
        kept = len(self._up.kept) + len(self._down.kept) + self.engine.memory
        self._observer.kept_bytes += kept - self._counted
        self._counted = kept

    # What the engine tells

    def found(self, depth: int, protocol: str) -> None:
        """It is told once more is known."""

    def layer(self, depth: int, protocol: str, speaker: Speaker, details: Details | None) -> None:
        opened = self._decryption is not None and self._decryption.opened
        self._observer.layer(depth, protocol, speaker, details, opened=opened)

    def protocol_event(self, depth: int, protocol_event: ProtocolEvent | StreamLayer) -> int:
        if isinstance(protocol_event, StreamLayer):
            self._observer.layer(depth + 1, protocol_event.protocol, "client", None, opened=False)
        else:
            self._observer.protocol_event(depth, protocol_event)
        return 0

    def fault(self, depth: int, direction: Direction, reason: str) -> None:
        self._hand_on()
        self._observer.fault(depth, direction, reason)
        if self._opened:
            self._opened.give_up()
