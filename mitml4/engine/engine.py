"""One depth of one flow: what may happen to the bytes of either direction.

Theory of operation. A driver asks `next_action` for one direction at a time, gives it the bytes of
that direction that are there and have not moved, performs the action, and asks again. Each
direction is in one state, and each state has one answer (`_ANSWERS`):

    state      bytes are                         leaves for
    DETECT     part of the opening; they move    what the conversation's first decision says;
               unless TLS may begin with them    FORWARD where there is no conversation
    PEEK       shown, and move once claimed      what the conversation decides
    MIRROR     shown, and move in any case       FORWARD
    FORWARD    not shown, or shown as they move  what the conversation decides at the end of a count
    PAUSE      held back                         what the other direction's bytes decide
    SWITCH     the inner layer's                 (both: the engine's outcome is the inner layer)
    GUARD      refused by the policy             (what cannot be read, where a block exists)
    ENDING     not shown; the end is told        OVER
    OVER       none

What is held back moves after `LayerContext.hold_s`, and after ten seconds if it is a part of a
request and the policy refuses hosts. The engine keeps a copy (`ahead`), and still shows it.
A direction that waits for the other in PAUSE or SWITCH goes on to FORWARD when that one is over.

A call for one direction may change the answer for the other one: then `is_stale` says so, and the
driver has to ask again there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from mitml4.engine.actions import (
    END,
    MIRROR_ALL,
    PASS_END,
    WAIT,
    YIELD,
    Action,
    HandOver,
    Mirror,
    Move,
    MoveAhead,
    Switch,
    Wait,
)
from mitml4.engine.interpreter import UNKNOWN, Interpreter
from mitml4.engine.opening import OpenQuestion
from mitml4.engine.rules import Observer, Rules
from mitml4.engine.side import NO_MORE, Side, State
from mitml4.errors import ProtocolError
from mitml4.protocols import registry
from mitml4.protocols.context import MAX_DEPTH, LayerContext
from mitml4.protocols.conversation import (
    MAX_PEEK,
    Conversation,
    Details,
    Direction,
    Framing,
    Speaker,
)
from mitml4.protocols.conversation import Protocol as ProtocolRow
from mitml4.protocols.policy import Unreadable

__all__ = ["UNKNOWN", "Engine"]

_REQUEST_S: Final = 10.0
"""For how long a part of a request is held back where the policy refuses hosts."""
_ROUNDS: Final = range(64)
"""So often a conversation may change its directives without taking a byte."""
_UNCOUNTED_BYTES: Final = 1 << 15
"""What a conversation may hold without being counted: few hold as much."""


class Engine(Interpreter):
    """One depth of a flow. It detects the protocol, unless the context expects one, or `follow` or
    `relay` is called first."""

    __slots__ = ("_question",)

    def __init__(
        self,
        rules: Rules,
        observer: Observer,
        context: LayerContext,
        *,
        ahead: Mapping[Direction, bytearray] | None = None,
        framing: Callable[[], Framing] | None = None,
    ) -> None:
        """See `Interpreter`."""
        super().__init__(rules, observer, context, ahead=ahead, framing=framing)
        self._question: OpenQuestion | None = OpenQuestion(context)
        if context.depth >= MAX_DEPTH:
            context.policy.check(Unreadable("more layers than are followed"))
            self.relay(UNKNOWN)
        elif context.expected and (row := registry.by_name(context.expected)):
            # TLS begins with the client's bytes; what an answer has switched to, with the server's.
            self._begin(row, "client" if row.terminates else "server")

    # How it begins

    def follow(self, conversation: Conversation, speaker: Speaker = "client") -> None:
        """The layer is this conversation, whatever the context expects."""
        self._question = None
        super().follow(conversation, speaker)

    def relay(self, name: str, speaker: Speaker = "client", details: Details | None = None) -> None:
        """The layer has this name, and is relayed unseen."""
        self._question = None
        super().relay(name, speaker, details)

    def _begin(self, row: ProtocolRow, speaker: Speaker) -> None:
        if row.terminates and self.rules.hands_over_tls:
            self._question = None
            self.outcome = HandOver(row, speaker)
            self._renew()
        elif conversation := self.rules.converse(row, self.context):
            self.follow(conversation, speaker)
        else:
            self.relay(row.name, speaker)

    def inner_context(self) -> LayerContext:
        """The context of the layer inside, once the outcome is a Switch."""
        assert isinstance(self.outcome, Switch)
        inner = self.outcome.inner
        return self.context.inside(
            self._name,
            target=self._target,
            expected=inner.protocol,
            negotiated=inner.negotiated,
            passthrough_reason=inner.passthrough_reason,
        )

    def inner(self) -> Engine:
        """The engine of the layer inside, once the outcome is a Switch."""
        ahead = {each.direction: each.ahead for each in (self._up, self._down)}
        return Engine(self.rules, self.observer, self.inner_context(), ahead=ahead)

    # What a driver asks and tells

    def next_action(
        self, direction: Direction, data: bytes = b"", *, ended: bool = False
    ) -> Action:
        """What to do with a direction now. `data`: those of its bytes that are there and have not
        moved, MAX_PEEK and one at least if there are as many; `ended`: no more will come.

        Raises what the policy raises.
        """
        side, other = self._up, self._down
        if direction is not Direction.UP:
            side, other = other, side
        if other.is_stale and other.holds and not (side.is_stale and side.holds):
            return YIELD
        side.is_stale = side.holds = False
        for _ in _ROUNDS:
            if (side.ahead or other.ahead) and not self._claim_ahead():
                return YIELD
            if self.outcome:
                return self.outcome
            action = _ANSWERS[side.state](self, side, data, ended)
            if action is not None:
                return action
        self._fault(side, f"{self._name}: neither takes a byte nor waits")
        return YIELD

    def reads(self, direction: Direction) -> bool:
        """Whether the next bytes of a direction are this layer's, and move once it claims them."""
        side = self._up if direction is Direction.UP else self._down
        return side.state is State.PEEK and not self.outcome

    def awaits(self, direction: Direction) -> bool:
        """Whether the next action is WAIT, as long as there is nothing that has not moved."""
        side, other = self._up, self._down
        if direction is not Direction.UP:
            side, other = other, side
        if side.state is not State.PEEK or side.is_cut or self.outcome:
            return False
        is_asked = side.ahead or other.ahead or (other.is_stale and other.holds)
        return not is_asked and side.tried < MAX_PEEK

    def confirm_wait(self, direction: Direction) -> bool:
        """Mark the WAIT of a direction as up to date, if it is. Returns whether it is."""
        if not self.awaits(direction):
            return False
        self.side(direction).is_stale = False
        return True

    def side(self, direction: Direction) -> Side:
        """One direction; the same object as long as the engine lives. For reading `is_stale`."""
        return self._up if direction is Direction.UP else self._down

    def is_stale(self, direction: Direction) -> bool:
        """Whether the last answer for a direction does not hold any more."""
        return self.side(direction).is_stale

    def forwarded(self, direction: Direction, count: int) -> None:
        """So many bytes moved under Forward."""
        self._skip(self._up if direction is Direction.UP else self._down, count)

    def lost(self, direction: Direction, count: int) -> None:
        """The next bytes are missing, so that nothing behind them can be read."""
        side = self._up if direction is Direction.UP else self._down
        side.is_cut = True
        if self._conversation:
            self._fault(side, f"{count} bytes are missing from the capture")
        elif self._question:
            self._learn(self._question, side, bytes(side.ahead), is_over=True)

    def release(self, direction: Direction) -> None:
        """The driver has no use for what a direction would be shown: it moves unseen."""
        side = self._up if direction is Direction.UP else self._down
        if side.state not in NO_MORE and side.state is not State.DETECT:
            self._release(side)

    def unseen(self, direction: Direction) -> int | None:
        """How many of the next bytes need not be given to it; None: all that follow."""
        side = self._up if direction is Direction.UP else self._down
        if side.state is State.FORWARD:
            return 0 if side.ahead or self._needs_copy(side) else side.forward.count
        return None if side.state is State.OVER else 0

    def conclude(self) -> None:
        """Nothing will come that could answer an open question: the best guess is the answer."""
        if self._question:
            self._decide(self._question)

    def close(self) -> None:
        """Nothing more will come at this depth: tell what is left to tell."""
        if self.outcome:
            return
        self.conclude()
        if isinstance(self.outcome, HandOver):
            name, speaker = self.outcome.protocol.name, self.outcome.speaker
            self.outcome = None
            self.relay(name, speaker)
        self._finish()
        self._forward_rest()
        if self._recorder:
            self._recorder.end()
            self._publish(self._recorder.take())

    def let_go(self) -> None:
        """Only `unseen` will be asked from here on: undo the circle with an observer that keeps it,
        so that nothing is left for the garbage collector."""
        del self.observer, self.rules

    @property
    def memory(self) -> int:
        """About how many bytes of memory it keeps for what it has seen; the little that every
        conversation may hold does not count."""
        kept = len(self._up.ahead) + len(self._down.ahead)
        if self._recorder:
            kept += self._recorder.memory
        if conversation := self._conversation:
            if (memory := conversation.memory) > _UNCOUNTED_BYTES:
                kept += memory - _UNCOUNTED_BYTES
            if not self._told:
                kept += self._mirrored
        return kept

    @property
    def innermost(self) -> str | None:
        """The layer's name, once it is announced; None while another one may be about to begin, for
        which a direction waits for the other one."""
        waits = (State.PAUSE, State.SWITCH)
        if self.outcome or self._up.state in waits or self._down.state in waits:
            return None
        return self._name if self._told else None

    @property
    def is_told(self) -> bool:
        """Whether the layer has been announced."""
        return self._told

    # The answers, one for each state

    def _answer_detect(self, side: Side, data: bytes, ended: bool) -> Action | None:
        question = self._question
        assert question
        unclaimed = _behind(side.ahead, data)
        if len(unclaimed) > side.tried or ended > side.end_learned:
            side.tried, side.end_learned = len(unclaimed), ended
            self._learn(question, side, unclaimed, is_over=ended or side.is_cut)
            if self._question is None:
                return None
        if data and question.may_move(side.direction):
            return self._move_ahead(side, data)
        if ended:
            return self._pass_end(side)
        return self._hold(side, data)

    def _answer_peek(self, side: Side, data: bytes, ended: bool) -> Action | None:
        ahead = side.ahead
        unclaimed = _behind(ahead, data) if ahead else data
        if len(unclaimed) > side.tried:
            count_ahead = len(ahead)  # a fault clears it
            if taken := self._show(side, unclaimed):
                side.held_since = None
                if count_ahead:
                    moved = min(count_ahead, taken)
                    del ahead[:moved]
                    taken -= moved
                return Move(taken) if taken else None
            if side.state is not State.PEEK:
                return None
        if side.tried >= MAX_PEEK:
            self._fault(side, "a message is longer than 64 KiB")
            return None
        if ended:
            return self._begin_end(side)
        return self._hold(side, data)

    def _answer_mirror(self, side: Side, data: bytes, ended: bool) -> Action | None:
        if data:
            shown = self.mirror(side.direction, data)
            return Move(shown) if shown else YIELD
        return self._begin_end(side) if ended else MIRROR_ALL

    def _answer_forward(self, side: Side, data: bytes, ended: bool) -> Action | None:
        forward = side.forward
        if data:
            count = side.may_forward(len(data))
            if self._needs_copy(side):
                count = self.mirror(side.direction, data[:count])
                return Move(count) if count else YIELD
            self._skip(side, count)
            return Move(count)
        if ended:
            return self._begin_end(side)
        return Mirror(forward.count) if self._needs_copy(side) else forward

    def _answer_pause(self, side: Side, data: bytes, ended: bool) -> Action | None:
        if not ended:
            return self._hold(side, data)
        if data or not side.end_passed:
            self._check_unclaimed(side, _behind(side.ahead, data), ended=True)
        return self._move_ahead(side, data) if data else self._pass_end(side)

    def _answer_guard(self, side: Side, data: bytes, ended: bool) -> Action | None:
        if data:
            self._check_unread(side)
            return Move(len(data))
        return self._begin_end(side) if ended else WAIT

    def _answer_ending(self, side: Side, data: bytes, _ended: bool) -> Action:
        self._check_unclaimed(side, _behind(side.ahead, data), ended=True)
        side.ahead.clear()
        if data:
            return Move(len(data))
        side.state = State.OVER
        self._other(side).is_stale = True
        return END

    def _answer_over(self, _side: Side, _data: bytes, _ended: bool) -> Action:
        return END

    def _hold(self, side: Side, data: bytes) -> Action | None:
        """Hold back what may not move yet, but not for longer than it is worth."""
        if side.is_cut and self._conversation:
            self._fault(side, "bytes are missing from the capture")
            return None
        if not data:
            return WAIT
        now = self.context.clock()
        if side.held_since is None:
            side.held_since = now
        if self._other(side).state is not State.OVER:  # else nothing can be an answer to it
            until = side.held_since + (
                _REQUEST_S if self._holds_request(side) else self.context.hold_s
            )
            if now < until:
                side.holds = True
                return Wait(len(data) if len(data) <= MAX_PEEK else None, until)
        unclaimed = _behind(side.ahead, data)
        if len(unclaimed) > MAX_PEEK:
            self._fault(side, "more bytes than may be held back")
            return None
        self._check_unclaimed(side, unclaimed)
        return self._move_ahead(side, data)

    def _holds_request(self, side: Side) -> bool:
        """Whether a part of a request is held back that may be for a host which is refused."""
        if side is not self._up or not self.context.policy.is_strict:
            return False
        if self._question:
            return self._question.begins_request
        row = registry.by_name(self._name)
        return side.state is State.PEEK and row is not None and row.names_hosts

    def _move_ahead(self, side: Side, data: bytes) -> Action:
        side.ahead += data
        side.held_since = None
        return MoveAhead(len(data))

    def _pass_end(self, side: Side) -> Action:
        """Forward the end, before it is known which protocol it ends."""
        if side.end_passed:
            return Wait(None)
        side.end_passed = True
        other = self._other(side)
        other.is_stale = other.is_stale or self._question is not None
        return PASS_END

    def _begin_end(self, side: Side) -> Action | None:
        """What the conversation has not taken goes on unseen, then the end."""
        side.state = State.ENDING
        if self._conversation:
            try:
                self._apply(self._conversation.receive_end(side.direction))
            except ProtocolError as error:
                self._fault(side, error.message)
        self._release_waiting(self._other(side))
        return None

    # Detection

    def _learn(self, question: OpenQuestion, side: Side, data: bytes, *, is_over: bool) -> None:
        question.learn(side.direction, data, is_over=is_over)
        if question.is_decided:
            self._decide(question)
        else:
            self._other(side).is_stale = True

    def _decide(self, question: OpenQuestion) -> None:
        if question.first is None:
            self._question = None  # both have ended without a byte: there is no layer
            self._told = True
            self._renew()
            self._forward_rest()
        elif row := question.answer:
            self._begin(row, question.speaker)
        else:
            self.relay(self.context.announced or UNKNOWN, question.speaker)


def _behind(ahead: bytearray, data: bytes) -> bytes:
    """What has not been claimed: what has moved, and what has not."""
    return bytes(ahead) + data if ahead else data


_Answer: TypeAlias = Callable[[Engine, Side, bytes, bool], Action | None]

_ANSWERS: Final[Mapping[State, _Answer]] = {
    State.DETECT: Engine._answer_detect,
    State.PEEK: Engine._answer_peek,
    State.MIRROR: Engine._answer_mirror,
    State.FORWARD: Engine._answer_forward,
    State.PAUSE: Engine._answer_pause,
    State.SWITCH: Engine._answer_pause,
    State.GUARD: Engine._answer_guard,
    State.ENDING: Engine._answer_ending,
    State.OVER: Engine._answer_over,
}
"""None: the state has changed, or what was shown has changed nothing; ask again."""
