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

import trio

from mitml4.layers.bridge import Bridge, Lane
from mitml4.layers.report import Speaker
from mitml4.protocols.conversation import Direction, Opening, Protocol
from mitml4.protocols.registry import NOTHING, by_name, detect
from mitml4.protocols.unclaimed import asked_by

__all__ = ["Found", "dispatch"]


@dataclass(frozen=True, slots=True)
class Found:
    """The protocol that comes next on a bridge: None when nothing recognised it."""

    protocol: Protocol | None
    speaker: Speaker
    silent: bool = False
    """No byte came at all."""
    broken: OSError | None = None
    """A side was reset before it was certain; this is the best guess, and nothing can follow."""


async def dispatch(bridge: Bridge) -> Found:
    """Find out what a bridge carries, and claim nothing of it.

    Raises OSError when a side was reset before any byte came.
    """
    if bridge.expected and (protocol := by_name(bridge.expected)):
        # A websocket is the server's word; TLS begins with the client's.
        return Found(protocol, "client" if protocol.terminates else "server")
    return await _Watch(bridge).decide()


class _Watch:
    """Both lanes under observation."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.seen = {Direction.UP: b"", Direction.DOWN: b""}
        self.looking = {Direction.UP: trio.CancelScope(), Direction.DOWN: trio.CancelScope()}
        self.first: Direction | None = None
        self.decided = False
        self.is_strict = bridge.guard.is_strict
        self.may_ask = False
        """What the client has said may still become a request for a host that nobody reads."""
        self.detection = NOTHING

    async def decide(self) -> Found:
        for direction in Direction:
            if not self.decided and (data := self.bridge.lane(direction).glance()):
                self._learn(direction, data)
        broken: OSError | None = None
        if not self.decided:
            try:
                await self.bridge.follow(self._watch)
            except OSError as error:
                if self.first is None:
                    raise
                broken = error
        return Found(
            self.detection.match or self.detection.likely,
            "server" if self.first is Direction.DOWN else "client",
            silent=self.first is None,
            broken=broken,
        )

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
        until = lane.held_until(len(data), self.bridge.hold_s)
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
        asked = asked_by(opening, self.bridge.target)
        self.bridge.guard.check(*asked.ends)
        return asked.more

    def _opening(self) -> Opening:
        return Opening(
            up=self.seen[Direction.UP],
            down=self.seen[Direction.DOWN],
            up_ended=self.bridge.up.ended,
            down_ended=self.bridge.down.ended,
            within=tuple(self.bridge.report.stack),
            port=self.bridge.target.port,
        )
