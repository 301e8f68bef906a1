"""The live driver of the engine: performs its actions on the two lanes of a bridge.

Each lane is a task that asks the engine for the next action, performs it, and asks again. What one
lane's bytes decide may change what the other lane waits for: then that wait is interrupted, and the
other lane asks again.

A lane that waits for bytes is interrupted by its source, if that can be: a cancel scope costs fifty
calls. Only a wait that has a deadline, or is for something else, has one. A lane is never
interrupted while it sends: what was sent in part could not be told from what was not. Only urgent
data is sent in pieces of which that is known.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, assert_never

import trio

from mitml4.engine.actions import (
    WAIT,
    End,
    HandOver,
    Mirror,
    Move,
    MoveAhead,
    Switch,
    Wait,
    Yield,
)
from mitml4.engine.actions import Action as EngineAction
from mitml4.engine.engine import Engine
from mitml4.engine.rules import Rules
from mitml4.events import Action
from mitml4.layers.bridge import Bridge
from mitml4.layers.lane import Lane
from mitml4.layers.report import Side
from mitml4.net.stream import UrgentAhead
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import (
    DIRECTIONS,
    Conversation,
    Details,
    Direction,
    Forward,
    Speaker,
)
from mitml4.protocols.tls.protocol import TlsConversation

__all__ = ["Follower"]

_PACKET_BYTES: Final = 1500
"""What comes in one packet leaves in one, even if it takes long to read."""


class Follower:
    """Follows one depth of a flow. It is the engine's observer."""

    def __init__(
        self,
        bridge: Bridge,
        context: LayerContext,
        action: Action | None = None,
        *,
        on_found: Callable[[int, str], None] | None = None,
    ) -> None:
        """`action`: what is done with the layer, if it is not what its name says. `on_found` is
        told of the protocol at a depth, once it is found."""
        self.protocol_event = bridge.report.protocol_event
        self._on_found = on_found
        self._bridge = bridge
        self._action = action
        self._fresh = dict.fromkeys(DIRECTIONS, b"")
        """What the engine is shown: bytes that are there, and neither claimed nor moved."""
        self._first: dict[Direction, EngineAction] = {}
        """The first actions, until they are performed."""
        self._waits: dict[Direction, tuple[Wait, trio.CancelScope | None]] = {}
        """What the lanes wait for that have not been woken, and the scope of the wait, if it has
        one."""
        self._engine = Engine(
            Rules(budget=bridge.budget, hands_over_tls=True),
            self,
            context,
            ahead={Direction.UP: bridge.up.ahead, Direction.DOWN: bridge.down.ahead},
            framing=bridge.framing,
        )

    async def detect(self) -> Engine:
        """Find out what the bridge carries, and follow it to its end. The outcome is the engine's.

        Raises OSError when a side breaks, and Blocked.
        """
        return await self._run()

    async def follow(self, conversation: Conversation, speaker: Speaker) -> Engine:
        """The same, where it is known what the bridge carries."""
        self._engine.follow(conversation, speaker)
        return await self._run()

    async def relay(self, name: str, speaker: Speaker, details: Details | None) -> Engine:
        """The same, where the bytes are not looked at."""
        self._engine.relay(name, speaker, details)
        return await self._run()

    @property
    def seen_of_client(self) -> bytes:
        """The client's bytes that no conversation has claimed, as far as they were looked at."""
        return bytes(self._bridge.up.ahead) + self._fresh[Direction.UP]

    async def _run(self) -> Engine:
        engine = self._engine
        if plaintext := self._bridge.plaintext:
            plaintext.innermost = lambda: engine.innermost
        try:
            up, down = self._ask_first()
            if up is WAIT and down is WAIT:
                up, down = await self._wait_first()
            if not (_is_done(up) and _is_done(down)):
                self._first = {Direction.UP: up, Direction.DOWN: down}
                await self._bridge.follow(self._move)
        except OSError:
            engine.conclude()
            raise
        finally:
            engine.close()
            engine.let_go()
        return engine

    def _ask_first(self) -> tuple[EngineAction, EngineAction]:
        """Both first actions. What has come together is the client's first."""
        engine, fresh, bridge = self._engine, self._fresh, self._bridge
        fresh[Direction.UP] = bridge.up.unread_nowait()
        up = engine.next_action(Direction.UP, fresh[Direction.UP])
        fresh[Direction.DOWN] = bridge.down.unread_nowait()
        return up, engine.next_action(Direction.DOWN, fresh[Direction.DOWN])

    async def _wait_first(self) -> tuple[EngineAction, EngineAction]:
        """Ask again when the first bytes have come. Raises OSError for a reset, where many flows
        are dropped together a few at a time."""
        await self._bridge.wait_first()
        try:
            return self._ask_first()
        except OSError:
            await self._bridge.up.relay.take_turn_to_end()
            raise

    async def _move(self, direction: Direction) -> None:
        """Perform one action after the other, until the lane is over."""
        engine, fresh, show = self._engine, self._fresh, partial(self._show, direction)
        lane = self._bridge.lane(direction)
        plaintext, other = self._bridge.plaintext, direction.other
        side, other_side = engine.side(direction), engine.side(other)
        action = self._first.pop(direction, None)
        while True:
            if action is None:
                action = engine.next_action(direction, fresh[direction], ended=lane.ended)
            if other_side.is_stale:
                self._wake(other)
            following: EngineAction | None = None
            match action:
                case Wait():
                    if lane.due:
                        await lane.flush()
                    if side.is_stale:
                        pass  # the first action was, before the lane began
                    elif action is WAIT and lane.source.can_interrupt:
                        self._waits[direction] = action, None
                        try:
                            fresh[direction] = await lane.next()
                        except UrgentAhead as urgent:
                            await self._move_over(direction, lane, urgent)
                        except trio.ClosedResourceError:
                            if direction in self._waits:  # it was not interrupted
                                raise
                        finally:
                            self._waits.pop(direction, None)
                    else:
                        await self._wait(direction, lane, action)
                case Move(count) if count < len(fresh[direction]):
                    await self._claim(direction, lane, count)
                case Move() if lane.source.has_last and lane.are_last(fresh[direction]):
                    lane.claim_last(self._take_fresh(direction))
                case Move():
                    # A name for it would keep it as long as the lane waits for the next message.
                    await lane.send_with_due(self._take_fresh(direction))
                    if not lane.ended and engine.awaits(direction):
                        following = WAIT  # which is mostly so, and need not be asked
                case MoveAhead(count):
                    await lane.send_with_due(fresh[direction][:count])
                    fresh[direction] = fresh[direction][count:]
                case Mirror(count):
                    await lane.mirror(show, count)
                    if lane.due:
                        fresh[direction] = lane.unread_nowait()
                case Forward(count):
                    moved = await lane.pass_on(count)
                    engine.forwarded(direction, moved)
                    if lane.due:
                        fresh[direction] = lane.unread_nowait()
                    if other_side.is_stale:
                        self._wake(other)
                case Yield():
                    await trio.lowlevel.checkpoint()
                case End(is_over):
                    await (lane.end() if is_over else lane.say_ended())
                    if is_over:
                        return
                case Switch() | HandOver():
                    return
                case _:
                    assert_never(action)
            action = following
            if plaintext:
                plaintext.settle()

    def _take_fresh(self, direction: Direction) -> bytes:
        fresh, self._fresh[direction] = self._fresh[direction], b""
        return fresh

    async def _claim(self, direction: Direction, lane: Lane, count: int) -> None:
        """A part of what is there is claimed. It waits for the rest: bytes that came together leave
        together. Of many messages of this layer, those of a packet are sent at once: the other side
        may answer them while the next are read."""
        fresh = self._fresh[direction]
        lane.claim(fresh[:count])
        self._fresh[direction] = fresh[count:]
        if len(lane.due) >= _PACKET_BYTES and self._engine.reads(direction):
            await lane.flush()
        await trio.lowlevel.checkpoint()

    async def _wait(self, direction: Direction, lane: Lane, wait: Wait) -> None:
        """Until that has come, the deadline has, or the other lane has interrupted."""
        with trio.CancelScope(deadline=wait.until) as scope:
            self._waits[direction] = wait, scope
            try:
                if wait.beyond is not None:
                    self._fresh[direction] = await lane.more(wait.beyond)
                elif lane.ended:
                    await lane.end()
                    await lane.source.transport.wait_reset()
                else:
                    await trio.sleep_forever()
            finally:
                self._waits.pop(direction, None)

    async def _move_over(self, direction: Direction, lane: Lane, urgent: UrgentAhead) -> None:
        """Move urgent data. While there is no room for it, the other lane may interrupt."""
        if direction in self._waits:
            with trio.CancelScope() as scope:
                self._waits[direction] = WAIT, scope
                self._fresh[direction] = await lane.move_over(urgent)

    async def _show(self, direction: Direction, data: bytes) -> None:
        """Show what comes under Mirror, before it moves.

        All of it is shown, even where the flow ends meanwhile.
        """
        shown = self._mirror(direction, data)
        if shown == len(data):
            return
        try:
            while shown < len(data):
                await trio.lowlevel.checkpoint()
                shown += self._mirror(direction, data[shown:])
        finally:
            while shown < len(data) and (more := self._mirror(direction, data[shown:])):
                shown += more

    def _mirror(self, direction: Direction, data: bytes) -> int:
        shown = self._engine.mirror(direction, data)
        if self._engine.is_stale(other := direction.other):
            self._wake(other)
        return shown

    def _wake(self, direction: Direction) -> None:
        """The action of a lane is out of date: interrupt it, if it waits and is to do something
        else."""
        if direction not in self._waits:
            return
        wait, scope = self._waits[direction]
        may_go_on = wait is WAIT and not self._bridge.lane(direction).ended
        if not (may_go_on and self._engine.confirm_wait(direction)):
            del self._waits[direction]
            if scope:
                scope.cancel()
            else:
                self._bridge.lane(direction).source.interrupt()

    # What the engine tells

    def found(self, depth: int, protocol: str) -> None:
        self._bridge.report.enter(depth, protocol)
        if self._on_found:
            self._on_found(depth, protocol)

    def layer(self, depth: int, protocol: str, speaker: Speaker, details: Details | None) -> None:
        stays_closed = protocol == TlsConversation.name
        action = self._action or ("passthrough" if stays_closed else "relayed")
        self._bridge.report.layer(depth, speaker, action, details)

    def fault(self, depth: int, direction: Direction, reason: str) -> None:
        side: Side = "client" if direction is Direction.UP else "server"
        self._bridge.report.error(side, "relay", "protocol", reason)


def _is_done(action: EngineAction) -> bool:
    """Whether nothing is left to do in a direction where this is the first action."""
    return isinstance(action, Switch | HandOver)
