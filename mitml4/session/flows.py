"""The flows of a session: which connections become one, which are open, and how they end.

Connections wait in the crowd for their turn (crowd.py). Each that begins gets a number and a task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import trio

from mitml4.layers.bridge import first_of
from mitml4.protocols.policy import without_interception
from mitml4.session.crowd import Arrival, Crowd, Limits
from mitml4.session.flow import Flow, Services
from mitml4.session.hub import Hub
from mitml4.sinks.notices import BytesMoved, ConnectionRefused, Note

__all__ = ["MAX_FLOWS", "Flows"]

MAX_FLOWS: Final = "max flows"
"""Why a session stops that has had as many flows as it was asked for."""
_TOO_MANY: Final = "too many connections"
_POLL_INTERVAL_S: Final = 0.02


class Flows:
    """Carries connections, each in a task."""

    def __init__(
        self, hub: Hub, limits: Limits, max_flows: int | None, on_limit: Callable[[str], None]
    ) -> None:
        """`on_limit` is called once `max_flows` have begun. More are carried unseen: they came
        before the source was closed."""
        self.force_stop = trio.Event()
        """Ends every wait for flows."""
        self.open: dict[int, Flow] = {}
        """By their numbers."""
        self._surplus: dict[int, Flow] = {}
        """Those that came when `max_flows` had been reached."""
        self._hub = hub
        self._limits = limits
        self._crowd = Crowd(limits)
        self._max_flows = max_flows
        self._on_limit = on_limit
        self._begun = 0
        self._refused_one = False
        self._one_closed = trio.Event()

    def enter(self, arrival: Arrival) -> None:
        """Let a connection wait for its turn, where there is room for it."""
        if self._crowd.enter(arrival):
            return
        arrival.connection.refuse(None)
        self._hub.publish(ConnectionRefused())
        if not self._refused_one:
            self._refused_one = True
            said = f"too many connections, some are refused: there may be {self._limits}"
            self._hub.publish(Note(said))

    async def run(self) -> None:
        """Carry those that wait, until cancelled; then those that are open are cancelled too."""
        async with trio.open_nursery() as nursery:
            while True:
                for arrival in await self._crowd.next():
                    self._begin(nursery, arrival)
                await trio.lowlevel.checkpoint()

    async def wait_closed(self, drain_s: float, *, counted_s: float | None = None) -> None:
        """Wait for `drain_s` until all are closed that are open or wait for their turn; and for
        those that `max_flows` counts, `counted_s` where that is given."""
        await self._wait(self.open, drain_s if counted_s is None else counted_s)
        await self._wait(self._surplus, drain_s)

    async def wait_delivered(self) -> None:
        """Wait until all that the clients of open flows have sent has arrived at its server."""
        while (  # noqa: ASYNC110 - the kernel tells nobody
            not all(flow.is_delivered for flow in self.open.values())
            and not self.force_stop.is_set()
        ):
            await trio.sleep(_POLL_INTERVAL_S)

    def refuse_waiting(self) -> None:
        """Refuse the connections whose turn has not come."""
        for arrival in self._crowd.all_waiting():
            arrival.connection.refuse(None)

    def measure(self, number: int) -> None:
        """Publish what an open flow has moved so far."""
        if flow := self.open.get(number):
            up, down = flow.wire_bytes
            moved = BytesMoved(flow=number, up=up, down=down, at_s=trio.current_time())
            self._hub.publish(moved)

    def _begin(self, nursery: trio.Nursery, arrival: Arrival) -> None:
        services = arrival.services
        is_looked_at = self._crowd.look_at(arrival)
        if not is_looked_at:
            services = _unopened(services, _TOO_MANY)
        if self._begun == self._max_flows:
            flow = Flow(0, arrival.connection, _unheard(_unopened(services, MAX_FLOWS)))
            among, key = self._surplus, id(flow)
        else:
            self._begun += 1
            flow = Flow(self._begun, arrival.connection, services)
            among, key = self.open, flow.number
        among[key] = flow
        nursery.start_soon(self._carry, arrival, flow, among, key, is_looked_at)
        if among is self.open and self._begun == self._max_flows:
            self._on_limit(MAX_FLOWS)

    async def _carry(
        self, arrival: Arrival, flow: Flow, among: dict[int, Flow], key: int, is_looked_at: bool
    ) -> None:
        try:
            await flow.run()
        finally:
            del among[key]
            self._crowd.leave(arrival, looked_at=is_looked_at)
            self._one_closed.set()
            self._one_closed = trio.Event()

    async def _wait(self, flows: Mapping[int, Flow], timeout_s: float) -> None:
        with trio.move_on_after(timeout_s):
            while (flows or self._crowd.has_waiting) and not self.force_stop.is_set():
                await first_of(self._one_closed.wait, self.force_stop.wait)


def _unopened(services: Services, reason: str) -> Services:
    """The same, for flows that are relayed unseen, and in which no TLS is opened where the policy
    wants them to be looked at."""
    policy = without_interception(services.tls.policy, reason)
    return replace(services, unseen=reason, tls=replace(services.tls, policy=policy))


def _unheard(services: Services) -> Services:
    """The same, for flows of which nobody is told."""
    return replace(services, publish=lambda _event: None, wants=lambda _kind: False)
