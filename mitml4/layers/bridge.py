"""The two streams of a flow at one depth, and the two lanes between them (`layers/lane.py`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import field
from functools import partial
from typing import Final

import trio

from mitml4.dataclass import dataclass, replace
from mitml4.engine.budget import Budget
from mitml4.engine.plaintext import Copies, Plaintext
from mitml4.layers.lane import Lane
from mitml4.layers.relay import Relay
from mitml4.layers.report import Report
from mitml4.net.stream import Stream, Transport
from mitml4.protocols.conversation import (
    DIRECTIONS,
    Direction,
    Framing,
    InnerProtocol,
    Prelude,
)
from mitml4.protocols.policy import FlowPolicy, Unreadable

__all__ = ["Bridge"]

_DRAIN_TIMEOUT_S: Final = 2.0
"""How long one side may take to read what the other had sent before its reset."""


def _refuse_urgent(policy: FlowPolicy) -> Callable[[], None]:
    """Many servers never see an urgent byte: what a client asks for with one in it is read in two
    ways."""
    return lambda: policy.check(Unreadable("urgent data where a host may be asked for"))


@dataclass(slots=True, kw_only=True)
class Bridge:
    """The two lanes of a flow at one depth."""

    up: Lane
    down: Lane
    report: Report
    budget: Budget = field(default_factory=lambda: Budget(trio.current_time))
    """What the flow may cost."""
    copies: Copies | None = None
    """None: nobody wants copies of what moves in opened TLS."""
    plaintext: Plaintext | None = None
    """Takes copies of what moves, where this is inside TLS and somebody wants them."""
    framing: Callable[[], Framing] | None = None
    """What the protocol here is carried in, where it does not stand bare; the lanes move it as it
    is."""
    prelude: Prelude | None = None
    """How another connection to the server comes to this depth; None: it may not, or there is
    nothing outside it."""

    @classmethod
    def between(
        cls,
        client_side: Stream,
        server_side: Stream,
        *,
        relay: Relay,
        report: Report,
        policy: FlowPolicy,
        copies: Copies | None = None,
    ) -> Bridge:
        """The outermost bridge of a flow."""
        up = Lane(client_side, server_side, relay, on_urgent=_refuse_urgent(policy))
        down = Lane(server_side, client_side, relay, up)
        return cls(up=up, down=down, report=report, copies=copies)

    @property
    def client_side(self) -> Stream:
        return self.up.source

    @property
    def server_side(self) -> Stream:
        return self.down.source

    def lane(self, direction: Direction) -> Lane:
        return self.up if direction is Direction.UP else self.down

    async def wait_first(self) -> None:
        """Wait until something may have come from either side, if both are plain connections. This
        takes no task, and most flows begin with a client that says what they are."""
        client, server = self.client_side, self.server_side
        if isinstance(client, Transport) and isinstance(server, Transport):
            with trio.CancelScope() as scope, server.watched(scope.cancel, for_data=True):
                await client.wait_receivable()

    async def flush(self) -> None:
        """See that both sides have all that is claimed."""
        await self.up.flush()
        await self.down.flush()

    def flush_copies(self) -> None:
        """The flow is over: no other layer begins in what has been copied."""
        if self.plaintext:
            self.plaintext.flush()

    async def follow(self, work: Callable[[Direction], Awaitable[None]]) -> None:
        """Run both lanes to their ends. If one fails, the other is stopped, and the error raised.

        A side that was reset may have sent something before (an early response to an upload). So
        when a lane can no longer send to that side, the other lane has time to move it.

        The source of a lane that has ended is watched while the other lane goes on. Otherwise its
        reset would be noticed only with the other side's next byte.
        """
        failures: list[Exception] = []
        later_resets: list[OSError] = []
        at_work = set(DIRECTIONS)
        watches: list[AbstractContextManager[None]] = []

        def note_reset(transport: Transport) -> None:
            if not at_work:
                return  # both sides have ended before
            try:
                transport.raise_reset()
            except OSError as error:
                later_resets.append(error)
                nursery.cancel_scope.cancel()

        async def guarded(direction: Direction) -> None:
            try:
                await work(direction)
                at_work.remove(direction)
                if at_work and self.lane(direction).ended:
                    ended = self.lane(direction).source.transport
                    watch = ended.watched(partial(note_reset, ended))
                    watch.__enter__()
                    watches.append(watch)
            except Exception as error:
                failures.append(error)
                both_were_at_work = len(failures) == 1 and len(at_work) == 2
                other_side = self.lane(direction.other).source.transport
                if isinstance(error, OSError) and both_were_at_work and other_side.is_gone:
                    nursery.cancel_scope.deadline = trio.current_time() + _DRAIN_TIMEOUT_S
                    return
                if isinstance(error, OSError):
                    await self.lane(direction).relay.take_turn_to_end()
                if direction.other in at_work:
                    nursery.cancel_scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(guarded, Direction.DOWN)
                await guarded(Direction.UP)
        finally:
            for watch in watches:
                watch.__exit__(None, None, None)
        if later_resets:
            await self.up.relay.take_turn_to_end()
            failures += later_resets
            later_resets.clear()
        if failures:
            try:
                raise failures[0]
            finally:
                failures.clear()  # else the error knows this frame, and this frame the error

    def inner(self, inner: InnerProtocol) -> Bridge:
        """The bridge of the protocol inside, on the same lanes."""
        return replace(self, framing=inner.framing, prelude=inner.prelude)

    def onto(self, server_side: Stream) -> Bridge:
        """The same bridge to another connection to the server; nothing has moved on it yet."""
        client_side, relay = self.client_side, self.up.relay
        up = Lane(client_side, server_side, relay)
        return replace(self, up=up, down=Lane(server_side, client_side, relay, up))

    def through(self, server_side: Stream) -> Bridge:
        """The same bridge, with this stream in place of its server's side; nothing has moved in
        this layer yet."""
        relay = self.up.relay
        up = replace(self.up, sink=server_side)
        down = Lane(server_side, self.client_side, relay, up, on_moved=self.down.on_moved)
        down.ahead = self.down.ahead
        return replace(self, up=up, down=down)

    def put_under(self, policy: FlowPolicy) -> None:
        """This policy decides where its flow goes, from here on."""
        self.up.on_urgent = _refuse_urgent(policy)

    def inside_tls(self, client_side: Stream, server_side: Stream, port: int | None) -> Bridge:
        """The bridge of the plaintext; its connection is bound for this port."""
        if self.plaintext:
            self.plaintext.drop()
        relay, plaintext = self.up.relay, self.copies and self.copies(port)
        up = Lane(client_side, server_side, relay)
        down = Lane(server_side, client_side, relay, up)
        if plaintext:
            up.on_moved = partial(plaintext.moved, Direction.UP)
            down.on_moved = partial(plaintext.moved, Direction.DOWN)
        return replace(self, up=up, down=down, framing=None, prelude=None, plaintext=plaintext)
