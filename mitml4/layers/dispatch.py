"""What is it now? The first bytes of both directions, until one protocol is left.

Both lanes are watched from the first moment and every detector sees the same opening. Nothing is
held back but the start of what may become a TLS ClientHello, because that one we would answer
ourselves: all else is relayed while the question is open (the lanes keep it for the conversation
that is found), so a server that speaks first costs nothing, and neither does a weak rule that wants
to see the answer. The only timer here says for how long a part of a ClientHello may be held back;
once its first bytes are certain, layers/tls.py has one of its own for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import trio

from mitml4.layers.bridge import Bridge, Lane
from mitml4.layers.report import Speaker
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import Direction, Opening, Protocol
from mitml4.protocols.registry import NOTHING, by_name, detect
from mitml4.protocols.unclaimed import asked_by

__all__ = ["Cut", "Found", "Recognised", "Silent", "Unrecognised", "dispatch"]


@dataclass(frozen=True, slots=True)
class Recognised:
    """The protocol that comes next on a bridge."""

    protocol: Protocol
    speaker: Speaker


@dataclass(frozen=True, slots=True)
class Unrecognised:
    """Nothing recognised what came."""

    speaker: Speaker


@dataclass(frozen=True, slots=True)
class Silent:
    """Both sides ended without a byte."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A side was reset before it was certain."""

    error: OSError
    speaker: Speaker
    likely: Protocol | None
    """The best guess."""


Found: TypeAlias = Recognised | Unrecognised | Silent | Cut


async def dispatch(bridge: Bridge, context: LayerContext) -> Found:
    """Find out what a bridge carries, and claim nothing of it.

    Raises OSError when a side was reset before any byte came, and Blocked.
    """
    if context.expected and (protocol := by_name(context.expected)):
        # A websocket is the server's word; TLS begins with the client's.
        return Recognised(protocol, "client" if protocol.terminates else "server")
    return await _Watch(bridge, context).decide()


class _Watch:
    """Both lanes under observation."""

    def __init__(self, bridge: Bridge, context: LayerContext) -> None:
        self.bridge = bridge
        self.context = context
        self.seen = {Direction.UP: b"", Direction.DOWN: b""}
        self.looking = {Direction.UP: trio.CancelScope(), Direction.DOWN: trio.CancelScope()}
        self.first: Direction | None = None
        self.decided = False
        self.is_strict = context.policy.is_strict
        self.may_ask = False
        """What the client has said may still become a request for a host that nobody reads."""
        self.detection = NOTHING

    async def decide(self) -> Found:
        for direction in Direction:
            if not self.decided and (data := self.bridge.lane(direction).glance()):
                self._learn(direction, data)
        if not self.decided:
            try:
                await self.bridge.follow(self._watch)
            except OSError as error:
                if self.first is None:
                    raise
                return Cut(error, self._speaker, self._protocol)
        if self.first is None:
            return Silent()
        if protocol := self._protocol:
            return Recognised(protocol, self._speaker)
        return Unrecognised(self._speaker)

    @property
    def _protocol(self) -> Protocol | None:
        return self.detection.match or self.detection.likely

    @property
    def _speaker(self) -> Speaker:
        return "server" if self.first is Direction.DOWN else "client"

    async def _watch(self, direction: Direction) -> None:
        lane = self.bridge.lane(direction)
        data = self.seen[direction]
        if self._may_move(direction):
            await lane.move_ahead(data)
        await lane.flush()
        while not self.decided:
            looked = await self._look(direction, lane, data)
            if looked is None:
                if not self.decided:  # it was held back for long enough
                    await lane.move_ahead(data)
                continue
            data = looked
            self._learn(direction, data)
            if self.decided:
                return
            if self._may_move(direction):
                await lane.move_ahead(data)
            if lane.ended:
                self.looking[direction.other].cancel()  # what it holds will have no answer
                with trio.CancelScope() as self.looking[direction]:
                    await lane.end()
                return

    def _may_move(self, direction: Direction) -> bool:
        """Whether nothing can come of what has been seen that we would answer ourselves."""
        over = self.bridge.up.ended or self.bridge.down.ended
        return direction is Direction.DOWN or over or not self.detection.terminating

    async def _look(self, direction: Direction, lane: Lane, data: bytes) -> bytes | None:
        """More than `data`; None when the other lane has decided, or has ended, or when it has
        been held back for long enough."""
        until = lane.held_until(len(data), self.context.hold_s)
        with trio.move_on_at(until) as self.looking[direction]:
            return await lane.look(len(data))
        return None

    def _learn(self, direction: Direction, data: bytes) -> None:
        self.seen[direction] = data
        if data and self.first is None:
            self.first = direction
        opening = self._opening()
        self.detection = detect(opening)
        if direction is Direction.UP and self.is_strict:
            self.may_ask = self._may_ask(opening)
        undecided = self.detection.undecided or (self.may_ask and not self.detection.match)
        nothing_will_come = self.bridge.up.ended and self.bridge.down.ended
        if nothing_will_come or not undecided:
            self.decided = True
            for scope in self.looking.values():
                scope.cancel()

    def _may_ask(self, opening: Opening) -> bool:
        """Whether what no detector is certain of may still ask for a host. Raises Blocked where it
        does, and may not."""
        if self.detection.match or not opening.up:
            return False
        asked = asked_by(opening, self.context.target)
        self.context.policy.check(*asked.ends)
        return asked.more

    def _opening(self) -> Opening:
        return Opening(
            up=self.seen[Direction.UP],
            down=self.seen[Direction.DOWN],
            up_ended=self.bridge.up.ended,
            down_ended=self.bridge.down.ended,
            stack=self.context.stack,
            port=self.context.port,
        )
