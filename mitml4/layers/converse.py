"""The live driver of conversations: moves the bytes of both lanes as the conversation says.

Each lane is a task that asks the conversation what may happen to the bytes that come next (its
`Directive`), does it, and asks again. What one lane's bytes teach the conversation may change what
the other may
do: then the other's wait is broken off, and it asks again. A conversation that finds its protocol
broken is dropped, and the rest of the flow is relayed unseen, unless a block could concern what the
client may ask for in it.
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Final

import trio

from mitml4.errors import ProtocolError
from mitml4.events import Action, content_weight
from mitml4.layers.bridge import Bridge, Lane
from mitml4.layers.layer import Inner
from mitml4.layers.report import Side, Speaker
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    MAX_PEEK,
    MIRROR,
    PAUSE,
    PEEK,
    SWITCH,
    Conversation,
    Direction,
    Directive,
    Forward,
    Opening,
)
from mitml4.protocols.policy import Unreadable
from mitml4.protocols.unclaimed import asked_by
from mitml4.turn import Turn

__all__ = ["converse"]

_WINDOW: Final = 256
"""So many bytes a conversation is shown first."""
_WORK_S: Final = 0.0005
"""About what one look may take."""
_TOO_MUCH: Final = "too many messages: relayed unseen from here"
_LEAST_SHOWN: Final = 64
_MOST_SHOWN: Final = 16384
"""So many at most of those that it only follows; it depends on what they cost."""


async def converse(
    bridge: Bridge,
    context: LayerContext,
    conversation: Conversation,
    speaker: Speaker,
    action: Action = "relayed",
) -> Inner | None:
    """Follow a conversation to its end. Returns what is inside it, if a protocol begins there.

    Raises OSError when a side breaks.
    """
    return await _Driver(bridge, context, conversation, speaker, action).run()


class _Driver:
    def __init__(
        self,
        bridge: Bridge,
        context: LayerContext,
        conversation: Conversation,
        speaker: Speaker,
        action: Action,
    ) -> None:
        self.bridge = bridge
        self.context = context
        self.conversation = conversation
        self.speaker = speaker
        self.action = action
        bridge.report.enter(context.depth, conversation.name)
        self.broken = False
        self.is_strict = context.policy.is_strict
        self.finished: set[Direction] = set()
        self.waits: dict[Direction, tuple[Directive, trio.CancelScope]] = {}
        self.turns = {each: Turn() for each in Direction}
        self.windows = dict.fromkeys(Direction, _WINDOW)
        """How much of what has moved a conversation is shown at a time."""
        self.work_s = 0.0
        """CPU time that the last feed took."""
        self.unpaid = 0
        """Weight of events that the flow's budget has not been charged with."""
        self.bound: bool | None = None
        """What the conversation has said of channel binding."""
        framing = bridge.framing
        self.framings = {each: framing() for each in Direction} if framing else None

    async def run(self) -> Inner | None:
        self._tell(at_the_end=False)
        try:
            await self._claim_what_moved()
            await self.bridge.follow(self._follow)
        finally:
            if not self._inner_begins():
                self.conversation.close()
            self._tell(at_the_end=True)
        if self._inner_begins():
            context = self.context.inside(
                self.conversation.name,
                target=self.conversation.target,
                expected=self.conversation.inner,
                passthrough_reason=self.conversation.passthrough_reason,
            )
            return Inner(self.bridge.inner(self.conversation.framing), context)
        return None

    async def _claim_what_moved(self) -> None:
        """Show the conversation what has moved before it was known, who spoke first first: what
        the other said may be an answer."""
        first = Direction.UP if self.speaker == "client" else Direction.DOWN
        while self._claim(first) or self._claim(first.other):
            await self.turns[first].rest()

    def _claim(self, direction: Direction) -> bool:
        """A turn's worth of what has moved in a direction; whether the conversation took any."""
        ahead = self.bridge.lane(direction).ahead
        if ahead and self._directive(direction) is MIRROR:
            taken = min(len(ahead), _WINDOW)
            self._tapped(direction, bytes(ahead[:taken]))
        else:
            taken = self._show(direction, bytes(ahead[: MAX_PEEK + 1]), 0)
        del ahead[:taken]
        return taken > 0

    def _directive(self, direction: Direction) -> Directive:
        """What the conversation wants, or all that is left to want without it."""
        if self.broken:
            return PEEK if direction is Direction.UP and self._may_be_blocked() else FORWARD_ALL
        directive = self.conversation.directive(direction)
        if directive in (PAUSE, SWITCH) and direction.other in self.finished:
            return FORWARD_ALL  # the other side has ended, and nothing will change this any more
        return directive

    def _inner_begins(self) -> bool:
        directives = (self._directive(Direction.UP), self._directive(Direction.DOWN))
        return all(directive is SWITCH for directive in directives)

    async def _follow(self, direction: Direction) -> None:
        lane, turn = self.bridge.lane(direction), self.turns[direction]
        while not self._inner_begins():
            await turn.rest()
            directive = self._directive(direction)
            if directive is PEEK:
                exhausted = await self._look(direction, lane)
            elif directive is MIRROR and self.is_strict and direction is Direction.UP:
                exhausted = await self._look_on(lane)
            elif directive is MIRROR:
                exhausted = not await lane.mirror(partial(self._show_copy, direction))
            elif isinstance(directive, Forward):
                count = await lane.pass_on(directive.count)
                turn.begin()
                self._passed(direction, count)
                exhausted = directive.count is None or count < directive.count
            else:
                exhausted = await self._wait(direction, lane, directive)
            if exhausted:
                await self._end(direction, lane)
                return

    async def _look(self, direction: Direction, lane: Lane) -> bool:
        """Show the conversation what comes, until it takes some of it or wants something else.

        Returns whether nothing more will come.
        """
        tried = 0
        while self._directive(direction) is PEEK:
            data = lane.glance()
            if len(data) > tried:
                taken = self._show(direction, data, tried)
                if taken:
                    lane.claim(data[:taken])
                    if taken == len(data) or self._directive(direction) is PEEK:
                        await lane.flush()
                    return False
                if self._directive(direction) is not PEEK:
                    return False
                if len(data) > MAX_PEEK:
                    self._break(direction, ProtocolError("more bytes than one look may hold"))
                    return False
                tried = len(data)
            del data  # there may be many flows that wait for the rest of something
            await lane.flush()
            with trio.move_on_at(self._held_until(direction, tried)) as timeout:
                looked = await self._interruptible(direction, PEEK, lane, tried)
            self.turns[direction].begin()
            if timeout.cancelled_caught and self._directive(direction) is not PEEK:
                break
            if timeout.cancelled_caught:
                # A piece of a message, and no more: the far side may have something to say to it.
                data = lane.glance()[:tried]
                self._check_unclaimed(direction, data)
                await lane.move_ahead(data)
            elif looked is not None and len(looked) <= tried:
                return True
        return False

    def _show(self, direction: Direction, data: bytes, tried: int) -> int:
        """Show the conversation these bytes, of which it has seen the first `tried` without taking
        any. Returns how many of them are its own: a turn's worth, if there are more.

        It is shown more of them only once it has taken nothing: a message is seldom longer, and
        what it says of many small ones is then said a few at a time.
        """
        at, window = 0, max(_WINDOW, 2 * tried)
        while at < len(data) and not (at and self.turns[direction].is_over):
            directive = self._directive(direction)
            if isinstance(directive, Forward):
                passed = (
                    len(data) - at
                    if directive.count is None
                    else min(len(data) - at, directive.count)
                )
                self._passed(direction, passed)
                at += passed
            elif directive is not PEEK:
                break
            elif taken := self._feed(direction, data[at : at + window]):
                at, window = at + taken, _WINDOW
            elif self._directive(direction) is PEEK and at + window >= len(data):
                break
            else:
                window *= 2
        return at

    async def _look_on(self, lane: Lane) -> bool:
        """A MIRROR on requests that may be refused: the conversation sees them before they move.

        Returns whether nothing more will come.
        """
        data = await lane.look(0)
        shown = await self._show_copy(Direction.UP, data)
        await lane.move(data[:shown])
        return not data

    async def _show_copy(self, direction: Direction, data: bytes) -> int:
        """Show the conversation what is about to move under a MIRROR: in small pieces as long as
        they are expensive. Returns how much was shown."""
        turn = self.turns[direction]
        turn.begin()
        at = 0
        while at < len(data) and self._directive(direction) is MIRROR:
            window = self.windows[direction]
            self._tapped(direction, data[at : at + window])
            at += window
            self.windows[direction] = self._next_window(window)
            await turn.rest()
        return min(at, len(data))

    def _next_window(self, window: int) -> int:
        """How much to show after so many bytes have taken their time: about what `_WORK_S` is
        enough for."""
        if self.work_s < _WORK_S / 2:
            return min(2 * window, _MOST_SHOWN)
        return max(window // 2, _LEAST_SHOWN) if self.work_s > _WORK_S else window

    async def _wait(self, direction: Direction, lane: Lane, directive: Directive) -> bool:
        """Nothing should move now, but neither may a wrong guess make two ends wait for good.

        The source is watched all the same, lest its reset goes unnoticed.
        """
        await lane.flush()
        data = lane.glance()
        while self._directive(direction) is directive and not self._inner_begins():
            enough = len(data) > MAX_PEEK or lane.ended
            with trio.move_on_at(self._held_until(direction, len(data))) as timeout:
                beyond = math.inf if enough else len(data)
                looked = await self._interruptible(direction, directive, lane, beyond)
            self.turns[direction].begin()
            if self._directive(direction) is not directive:
                break  # even if it was held for long enough in the same moment
            if timeout.cancelled_caught and len(data) > MAX_PEEK:
                self._break(direction, ProtocolError("more bytes than may be held back"))
            elif timeout.cancelled_caught:
                self._check_unclaimed(direction, data)
                await lane.move_ahead(data)
            elif looked is not None:
                data = looked
                if lane.ended:  # no handshake will follow that could be opened
                    self._check_unclaimed(direction, data, ended=True)
                    await lane.move_ahead(data)
                    await lane.say_ended()
        return False

    def _held_until(self, direction: Direction, count: int) -> float:
        """When to let go of so many bytes; at once if they can have no answer."""
        hold_s = 0.0 if direction.other in self.finished else self.context.hold_s
        return self.bridge.lane(direction).held_until(count, hold_s)

    async def _interruptible(
        self, direction: Direction, directive: Directive, lane: Lane, beyond: float
    ) -> bytes | None:
        """Look at a lane; None when the conversation has changed its mind meanwhile."""
        with trio.CancelScope() as scope:
            self.waits[direction] = (directive, scope)
            try:
                if math.isinf(beyond) and lane.ended:
                    await lane.end()
                    await lane.source.transport.wait_reset()
                if math.isinf(beyond):
                    await trio.sleep_forever()
                return await lane.look(int(beyond))
            finally:
                del self.waits[direction]
        return None

    def _feed(self, direction: Direction, data: bytes) -> int:
        if self.broken:
            self._check_unread(direction)
            return len(data)
        began_s = time.thread_time()
        try:
            taken = self.conversation.feed(direction, data)
        except ProtocolError as error:
            self._check_named()
            self._break(direction, error)
            return 0
        self._check_named()
        self._after(direction)
        self.work_s = time.thread_time() - began_s
        self._pay(direction)
        return taken

    def _pay(self, direction: Direction) -> None:
        """Charge the flow's budget with what has just been fed; without any, it is unseen."""
        events, self.unpaid = self.unpaid, 0
        if not self.bridge.budget.spend(work_s=self.work_s, events=events):
            self._break(direction, ProtocolError(_TOO_MUCH))

    def _check_named(self) -> None:
        """Before the request for it moves: nobody hears of where the client may not go."""
        if named := self.conversation.named:
            self.context.policy.check(*named)
            named.clear()

    def _check_unread(self, direction: Direction) -> None:
        """Before what the conversation could not read moves: it may ask for any host."""
        if direction is Direction.UP and self.conversation.may_lead_on:
            self.context.policy.check(self._unread())

    def _may_be_blocked(self) -> bool:
        """Whether there is a block that could concern what cannot be read any more."""
        concerned = self.is_strict and self.conversation.may_lead_on
        return concerned and self.context.policy.blocks(self._unread())

    def _unread(self) -> Unreadable:
        return Unreadable(port=None if self.conversation.elsewhere else self.context.port)

    def _check_unclaimed(self, direction: Direction, data: bytes, *, ended: bool = False) -> None:
        """Before bytes move that the conversation has not taken."""
        if direction is not Direction.UP or not self.is_strict or not data:
            return
        ahead = self.conversation.asked_ahead(data)
        self.context.policy.check(*ahead or ())
        if ahead is None or ended:
            opening = Opening(
                up=data,
                up_ended=ended,
                stack=self.context.stack,
                port=self.context.port,
            )
            target = self.conversation.target or self.context.target
            self.context.policy.check(*asked_by(opening, target).ends)

    def _tapped(self, direction: Direction, data: bytes) -> None:
        if self._directive(direction) is MIRROR:
            if self.framings:  # bytes under a MIRROR have moved as they came: it is shown the inner
                data = bytes(self.framings[direction].unwrap(data))
            self._feed(direction, data)

    def _passed(self, direction: Direction, count: int) -> None:
        if not self.broken:
            self.conversation.passed(direction, count)
            self._after(direction)

    async def _end(self, direction: Direction, lane: Lane) -> None:
        """The source has ended: whatever the conversation has not taken goes on, then the end."""
        if not self.broken:
            try:
                self.conversation.end(direction)
            except ProtocolError as error:
                self._break(direction, error)
        left = await lane.look(0)
        self._check_unclaimed(direction, left, ended=True)
        await lane.move(left)
        self.finished.add(direction)
        self._after(direction)
        await lane.end()

    def _break(self, direction: Direction, error: ProtocolError) -> None:
        self.broken = True
        side: Side = "client" if direction is Direction.UP else "server"
        self.bridge.report.error(side, "relay", "protocol", error.message)
        self._check_unread(direction)
        self._after(direction)

    def _after(self, direction: Direction) -> None:
        """The conversation has learned something: say it, and let the other lane ask again."""
        self._tell(at_the_end=False)
        if self.conversation.channel_binding not in (None, self.bound):
            self.bound = self.conversation.channel_binding
            self.context.on_channel_binding(self.bound)
        other = direction.other
        if other in self.waits:
            directive, scope = self.waits[other]
            is_over = direction in self.finished or self._inner_begins()
            if is_over or self._directive(other) is not directive:
                scope.cancel()

    def _tell(self, *, at_the_end: bool) -> None:
        conversation, depth = self.conversation, self.context.depth
        if conversation.details_ready or at_the_end:
            self.bridge.report.layer(depth, self.speaker, self.action, conversation.details())
        for protocol_event in conversation.protocol_events:
            self.bridge.report.protocol_event(depth, protocol_event)
            self.unpaid += content_weight(protocol_event)
        conversation.protocol_events.clear()
