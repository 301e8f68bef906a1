"""Follows a conversation at one depth: its decisions become the states of both directions.

What a driver has to do in a state is in engine.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from mitml4.engine.actions import HandOver, Switch
from mitml4.engine.meter import WORK_S, Meter
from mitml4.engine.recorder import Recorder
from mitml4.engine.rules import Observer, Rules
from mitml4.engine.side import NO_MORE, STATES, WINDOW, Side, State
from mitml4.errors import ProtocolError
from mitml4.protocols import registry
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    MAX_PEEK,
    Conversation,
    Decision,
    Details,
    Direction,
    Directive,
    Forward,
    Framing,
    InnerProtocol,
    Opening,
    Speaker,
)
from mitml4.protocols.policy import Blocked, End, Unreadable
from mitml4.protocols.protocol_event import ProtocolEvent, StreamLayer
from mitml4.protocols.unclaimed import asked_by

__all__ = ["UNKNOWN", "Interpreter"]

UNKNOWN: Final = "unknown"

_CHEAP_S: Final = 0.00025
_DEAR_S: Final = 0.0005
_MIN_MIRRORED: Final = 64
_MAX_MIRRORED: Final = 16384
"""A piece under MIRROR is twice as long as the last one if that was cheap, and half as long if it
was not, within these bounds."""
_MANY_EVENTS: Final = 24
"""A piece that causes more is not cheap; twice as many are too many."""
_FEW_EVENTS: Final = 4
"""What one message may cause."""
_TOO_MUCH: Final = "too many messages: relayed unseen from here"


class Interpreter:
    """One depth whose protocol is known, or that is relayed unseen."""

    __slots__ = (
        "_binding",
        "_conversation",
        "_down",
        "_elsewhere",
        "_framings",
        "_may_lead_on",
        "_meter",
        "_mirrored",
        "_name",
        "_recorder",
        "_speaker",
        "_target",
        "_told",
        "_unheard",
        "_up",
        "context",
        "depth",
        "observer",
        "outcome",
        "rules",
    )

    def __init__(
        self,
        rules: Rules,
        observer: Observer,
        context: LayerContext,
        *,
        ahead: Mapping[Direction, bytearray] | None = None,
        framing: Callable[[], Framing] | None = None,
    ) -> None:
        """`ahead`: what has moved before this depth began; the engine takes from it and adds to it.
        `framing`: what the bytes of a MIRROR are carried in."""
        self.rules = rules
        self.observer = observer
        self.context = context
        self.depth = context.depth
        self.outcome: Switch | HandOver | None = None
        """How the layer has ended for the engine, if another one begins."""
        self._up = Side(Direction.UP, ahead[Direction.UP] if ahead else bytearray())
        self._down = Side(Direction.DOWN, ahead[Direction.DOWN] if ahead else bytearray())
        self._conversation: Conversation | None = None
        self._framings = {each: framing() for each in Direction} if framing else None
        self._name = UNKNOWN
        self._speaker: Speaker = "client"
        self._told = False
        """Whether the layer has been announced."""
        self._mirrored = 0
        """How much the conversation has been given to keep before that."""
        self._may_lead_on = True
        self._elsewhere = False
        self._target = context.target
        self._binding: bool | None = None
        self._unheard: set[int] = set()
        """The streams of requests that were refused."""
        self._meter = Meter(rules.budget)
        self._recorder: Recorder | None = None

    # How it begins

    def follow(self, conversation: Conversation, speaker: Speaker = "client") -> None:
        """The layer is this conversation, whatever the context expects."""
        self.outcome = None
        self._conversation = conversation
        self._name, self._speaker = conversation.name, speaker
        self._may_lead_on = conversation.may_lead_on
        self.observer.found(self.depth, self._name)
        self._start_recorder()
        self._renew()
        self._apply(conversation.start())

    def relay(self, name: str, speaker: Speaker = "client", details: Details | None = None) -> None:
        """The layer has this name, and is relayed unseen."""
        self.outcome = None
        self._name, self._speaker = name, speaker
        self._told = True
        self.observer.found(self.depth, name)
        self.observer.layer(self.depth, name, speaker, details)
        self._start_recorder()
        self._renew()
        self._forward_rest()

    def _renew(self) -> None:
        for side in (self._up, self._down):
            side.tried = 0
            side.held_since = None
            side.is_stale = True

    def announce(self) -> None:
        """Report the layer with the details that are known, if that has not been done."""
        if self._conversation and not self._told:
            self._told = True
            details = self._conversation.details()
            self.observer.layer(self.depth, self._name, self._speaker, details)

    # What moves, and what it means

    def mirror(self, direction: Direction, data: memoryview | bytes) -> int:
        """Show what comes under Mirror, or under a Forward whose bytes are kept. Returns how many
        bytes were shown, and may be sent: the rest comes again, after the other flows have run.

        Raises what the policy raises; then none of it may be sent.
        """
        side = self._up if direction is Direction.UP else self._down
        at, size, spent_s = 0, len(data), 0.0
        while at < size and side.state in (State.MIRROR, State.FORWARD):
            if self._must_yield(side) or (at and spent_s >= WORK_S):
                break
            window = side.mirror_window
            began_s = time.perf_counter()
            if side.state is State.FORWARD:
                piece = data[at : at + min(_MAX_MIRRORED, side.may_forward(size - at))]
                events = self._pass(side, bytes(piece))
            else:
                piece = data[at : at + window]
                events = self._receive_mirrored(side, bytes(piece))
            took_s = time.perf_counter() - began_s
            if took_s < _CHEAP_S and events < _MANY_EVENTS:
                side.mirror_window = min(2 * window, _MAX_MIRRORED)
            elif took_s > _DEAR_S or events > 2 * _MANY_EVENTS:
                side.mirror_window = max(window // 2, _MIN_MIRRORED)
            if not self._meter.charge(took_s):
                self._give_up(side)
            at += len(piece)
            spent_s += took_s
        if at < size and side.state is State.GUARD:
            self._check_unread(side)
        return at if side.state in (State.MIRROR, State.FORWARD) else size

    def _must_yield(self, side: Side) -> bool:
        """Whether the other direction may go on with bytes that waited: they came before these."""
        other = self._down if side is self._up else self._up
        return other.is_stale and other.holds

    def _claim_ahead(self) -> bool:
        """Show the conversation what has moved before it was found, beginning with the side that
        spoke first: the other's bytes may be an answer. Returns whether nothing is left to show."""
        if not self._conversation or self.outcome:
            return True
        first, second = self._up, self._down
        if self._speaker == "server":
            first, second = second, first
        ends_at = time.perf_counter() + WORK_S
        while self._claim(first) or self._claim(second):
            if time.perf_counter() > ends_at:
                return False
        return True

    def _claim(self, side: Side) -> bool:
        """Show some of what has moved in a direction; whether any of it was taken."""
        ahead = side.ahead
        if not ahead or not self._conversation:
            return False
        if side.state is State.PEEK and len(ahead) > side.tried:
            taken = self._show(side, bytes(ahead))
        elif side.state is State.MIRROR:
            taken = self.mirror(side.direction, bytes(ahead))
        elif side.state is State.FORWARD:
            taken = side.may_forward(len(ahead))
            self._pass(side, bytes(ahead[:taken]))
        else:
            return False
        del ahead[:taken]
        return taken > 0

    def _show(self, side: Side, data: bytes) -> int:
        """Show the conversation these unclaimed bytes, of which it has seen the first `tried`
        without taking any. Returns how many are its own, as far as that is known after WORK_S."""
        size, at = len(data), 0
        window = side.window if side.window > 2 * side.tried else 2 * side.tried
        began_s = time.perf_counter()
        is_exhausted = False
        while at < size:
            if at and (self._must_yield(side) or time.perf_counter() - began_s > WORK_S):
                break
            if side.state is State.FORWARD:
                passed = side.may_forward(size - at)
                self._pass(side, data[at : at + passed])
                at += passed
                continue
            if side.state is not State.PEEK or self.outcome:
                break
            if window > MAX_PEEK:
                window = MAX_PEEK
            end = at + window
            decision = self._receive(side, data if not at and size <= end else data[at:end])
            if decision and (taken := decision.taken):
                if self._recorder:
                    self._record(side, data[at : at + taken])
                at += taken
                if len(decision.protocol_events) > _FEW_EVENTS:
                    window = WINDOW
                side.window = window
            elif side.state is not State.PEEK:
                continue
            elif end >= size or window == MAX_PEEK:
                is_exhausted = True
                break
            else:
                window *= 2
            if at < size and self._meter.is_due and not self._meter.charge(0.0):
                self._give_up(side)
        if is_exhausted:
            side.tried = size - at if at + window >= size else MAX_PEEK
        else:
            side.tried = 0
        if not self._meter.charge(time.perf_counter() - began_s):
            self._give_up(side)
        return at

    def _receive_mirrored(self, side: Side, data: bytes) -> int:
        """How many events there were."""
        if not self._told:
            self._mirrored += len(data)
        if self._framings:
            data = bytes(self._framings[side.direction].unwrap(data))
        decision = self._receive(side, data)
        self._record(side, data)
        return len(decision.protocol_events) if decision else 0

    def _pass(self, side: Side, data: bytes) -> int:
        """These move under Forward. Returns how many events there were."""
        self._record(side, data)
        if not side.forward.is_copied or not self._conversation or side.is_released:
            self._skip(side, len(data))
            return 0
        try:
            decision = self._conversation.receive_copied(side.direction, data)
        except ProtocolError as error:
            self._fault(side, error.message)
            return 0
        self._apply(decision)
        return len(decision.protocol_events)

    def _receive(self, side: Side, data: bytes) -> Decision | None:
        """What the conversation decides; None if that ends it."""
        assert self._conversation
        try:
            decision = self._conversation.receive(side.direction, data)
        except ProtocolError as error:
            self._fault(side, error.message)
            return None
        assert 0 <= decision.taken <= len(data), f"{self._name} took more than it was shown"
        self._apply(decision)
        return decision

    def _skip(self, side: Side, count: int) -> None:
        conversation = self._conversation
        if not conversation or side.is_released:
            return
        if side.forward.count is not None or conversation.counts_all:
            try:
                self._apply(conversation.receive_forwarded(side.direction, count))
            except ProtocolError as error:
                self._fault(side, error.message)

    def _apply(self, decision: Decision) -> None:
        if decision.named:
            try:
                self.context.policy.check(*decision.named)
            except Blocked:  # nobody is to hear of where the client may not go, now or at the end
                self._unheard = {*map(_stream, decision.protocol_events)} - {-1}
                raise
        if decision.details_ready and not self._told:
            self.announce()
        if decision.protocol_events:
            self._publish(decision.protocol_events)
        for announcement in decision.announced:
            self.context.announce(announcement)
        binding = decision.channel_binding
        if binding is not None and binding != self._binding:
            self._binding = binding
            self.context.on_channel_binding(bool(self._binding))
        self._elsewhere = decision.elsewhere
        if decision.up is not self._up.directive or decision.down is not self._down.directive:
            self._direct(decision)

    def _direct(self, decision: Decision) -> None:
        """The directives have changed."""
        self._target = decision.target or self.context.target
        up, down = self._up, self._down
        if up.directive is not decision.up:
            self._set(up, decision.up, down)
        if down.directive is not decision.down:
            self._set(down, decision.down, up)
        if up.state is State.SWITCH and down.state is State.SWITCH:
            self.announce()
            if self._recorder:
                self._recorder.discard()
            self._conversation = self._recorder = None
            self.outcome = Switch(decision.inner or InnerProtocol())
            self._renew()

    def _set(self, side: Side, directive: Directive, other: Side) -> None:
        """A directive has changed."""
        if side.is_released or side.state in NO_MORE:
            return
        side.directive = directive
        if isinstance(directive, Forward):
            side.state, side.forward = State.FORWARD, directive
        else:
            side.state = STATES[directive]
        side.tried = 0
        side.is_stale = True
        if other.state in NO_MORE:
            self._release_waiting(side)

    def _release(self, side: Side) -> None:
        side.is_released = side.is_stale = True
        side.state, side.forward = State.FORWARD, FORWARD_ALL

    def _release_waiting(self, side: Side) -> None:
        """The other side is over: what waits for it would wait for ever."""
        if side.state in (State.PAUSE, State.SWITCH):
            self._release(side)

    def _fault(self, side: Side, reason: str) -> None:
        """The layer cannot be followed any further: the rest is relayed unseen, unless a block
        could concern what the client may ask for in it."""
        named = self._finish()
        self.context.policy.check(*named)
        self.observer.fault(self.depth, side.direction, reason)
        self._forward_rest()
        if self._may_be_blocked():
            if self._up.state not in NO_MORE:
                self._up.state = State.GUARD
            if side is self._up:
                self._check_unread(side)

    def _finish(self) -> Sequence[End]:
        """The conversation is over: tell what is left unfinished. Returns the hosts that it has
        named and that have not been checked."""
        conversation = self._conversation
        if conversation is None:
            return ()
        decision = conversation.finish()
        self._elsewhere = decision.elsewhere
        self.announce()
        unheard = self._unheard
        self._publish([each for each in decision.protocol_events if _stream(each) not in unheard])
        if self._recorder:
            self._publish(self._recorder.take())
        self._conversation = None
        return decision.named

    def _forward_rest(self) -> None:
        for side in (self._up, self._down):
            self._record(side, bytes(side.ahead))
            side.ahead.clear()
            if side.state not in NO_MORE:
                side.state, side.forward = State.FORWARD, FORWARD_ALL
                side.is_stale = True

    def _other(self, side: Side) -> Side:
        return self._down if side is self._up else self._up

    # What is kept of what is said

    def _needs_copy(self, side: Side) -> bool:
        """Whether what moves under Forward is to be shown."""
        if side.forward.is_copied and not side.is_released:
            return True
        return self._recorder is not None and self._recorder.wants(side.direction)

    def _start_recorder(self) -> None:
        """Where the layer's protocol makes no events of what is said, its bytes are shown."""
        payload, row = self.context.shown.payload, registry.by_name(self._name)
        if payload and not (row and (row.terminates or row.is_proxy or row.has_messages)):
            redacts = self.context.shown.redacts
            self._recorder = Recorder(payload, self._name, redacts=redacts)

    def _record(self, side: Side, data: bytes) -> None:
        if self._recorder:
            self._recorder.add(side.direction, data)
            if self._told and (self._up.excludes_inner or self._down.excludes_inner):
                self._publish(self._recorder.take())

    # What is told, and what it costs

    def _publish(self, protocol_events: Sequence[ProtocolEvent | StreamLayer]) -> None:
        if protocol_events and not self._told:
            self.announce()
        tell, depth, weight = self.observer.protocol_event, self.depth, 0
        for protocol_event in protocol_events:
            weight += tell(depth, protocol_event)
        self._meter.weight += weight

    def _give_up(self, side: Side) -> None:
        """The flow is beyond its budget: it is relayed unseen."""
        if self._conversation:
            self._fault(side, _TOO_MUCH)

    # What the policy has to see

    def _check_unread(self, side: Side) -> None:
        """Before what no conversation can read moves: the client may ask for any host in it."""
        if side is self._up and self._may_lead_on:
            self.context.policy.check(self._unread())

    def _may_be_blocked(self) -> bool:
        policy = self.context.policy
        return policy.is_strict and self._may_lead_on and policy.blocks(self._unread())

    def _unread(self) -> Unreadable:
        return Unreadable(port=None if self._elsewhere else self.context.port)

    def _check_unclaimed(self, side: Side, data: bytes, *, ended: bool = False) -> None:
        """Before bytes move that the conversation has not taken."""
        policy, conversation = self.context.policy, self._conversation
        if side is not self._up or not conversation or not policy.is_strict or not data:
            return
        asked = conversation.asked_ahead(data)
        policy.check(*asked or ())
        if asked is None or ended:
            stack = (*self.context.stack, self._name)
            opening = Opening(up=data, up_ended=ended, stack=stack, port=self.context.port)
            policy.check(*asked_by(opening, self._target).ends)


def _stream(event: ProtocolEvent | StreamLayer) -> int:
    """The stream that an event is about; -1 where the protocol has none."""
    stream: int = getattr(event, "stream", -1)
    return stream
