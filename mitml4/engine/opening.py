"""The first bytes of both directions, until one protocol is left."""

from __future__ import annotations

from mitml4.protocols import registry
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import Direction, Opening, Speaker
from mitml4.protocols.conversation import Protocol as ProtocolRow
from mitml4.protocols.unclaimed import asked_by

__all__ = ["OpenQuestion"]


class OpenQuestion:
    """What the layer is, as long as that is not decided."""

    __slots__ = ("_context", "_detection", "_may_ask", "_over", "_seen", "first")

    def __init__(self, context: LayerContext) -> None:
        self._context = context
        self._seen = {Direction.UP: b"", Direction.DOWN: b""}
        self._over: set[Direction] = set()
        self._detection = registry.NOTHING
        self._may_ask = False
        """Whether more bytes of the client may name a host, in a request that no protocol reads."""
        self.first: Direction | None = None
        """Where the first byte came."""

    @property
    def speaker(self) -> Speaker:
        return "server" if self.first is Direction.DOWN else "client"

    @property
    def answer(self) -> ProtocolRow | None:
        """The protocol, or the best guess."""
        return self._detection.match or self._detection.likely

    @property
    def is_decided(self) -> bool:
        """Whether no byte that follows can change the answer, or none will."""
        if len(self._over) == len(Direction):
            return True
        if self.first is None or self._detection.undecided:
            return False
        return self._detection.match is not None or not self._may_ask

    def may_move(self, direction: Direction) -> bool:
        """Whether the bytes of a direction may be forwarded before the question is decided.

        The client's may not if TLS may begin with them, which the driver terminates, or a request
        for a host that the policy may refuse.
        """
        if direction is Direction.DOWN or self._over:
            return True
        return not (self._detection.terminating or self.begins_request)

    @property
    def begins_request(self) -> bool:
        """Whether the client has likely sent a part of the line that names a host, but not all of
        it, and the policy refuses some hosts."""
        likely = self._detection.likely
        if not (likely and likely.names_hosts and self._context.policy.is_strict):
            return False
        return b"\n" not in self._seen[Direction.UP].lstrip(b"\r\n")

    def learn(self, direction: Direction, data: bytes, *, is_over: bool) -> None:
        """Take all bytes of a direction so far; `is_over`: no more can follow.

        Raises Blocked if they ask for a host that the policy refuses.
        """
        self._seen[direction] = data
        if is_over:
            self._over.add(direction)
        if data and self.first is None:
            self.first = direction
        if self.first is None:
            return
        opening = self._opening()
        self._detection = registry.detect(opening)
        if direction is Direction.UP:
            self._may_ask = self._asks(opening)

    def _asks(self, opening: Opening) -> bool:
        """Check the hosts that the client's bytes ask for. Whether more bytes may name others."""
        if self._detection.match or not opening.up or not self._context.policy.is_strict:
            return False
        asked = asked_by(opening, self._context.target)
        self._context.policy.check(*asked.ends)
        return asked.more

    def _opening(self) -> Opening:
        return Opening(
            up=self._seen[Direction.UP],
            down=self._seen[Direction.DOWN],
            up_ended=Direction.UP in self._over,
            down_ended=Direction.DOWN in self._over,
            stack=self._context.stack,
            port=self._context.port,
        )
