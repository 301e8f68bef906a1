"""The flows of a session: from the queue of connections to the end of the last flow.

Connections wait in a queue (crowd.py). Each that starts gets a number and a task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

import trio

from mitml4.net.listener import IncomingConnection
from mitml4.process import RunningProcess
from mitml4.protocols.policy import without_interception
from mitml4.session.flows.crowd import Crowd, Limits, QueuedConnection
from mitml4.session.flows.flow import Flow
from mitml4.session.flows.services import Services
from mitml4.session.reporting.hub import Hub
from mitml4.sinks.updates import ConnectionRefused, Note
from mitml4.tasks import first_of

__all__ = ["MAX_FLOWS", "Begin", "Carried", "Flows", "unheard", "unopened"]

MAX_FLOWS: Final = "max flows"
"""The reason of a session that stops because of `--max-flows`."""
_TOO_MANY: Final = "too many connections"
_POLL_INTERVAL_S: Final = 0.02


class Carried(Protocol):
    """A flow, wherever it is carried."""

    @property
    def connection(self) -> IncomingConnection:
        """The client's."""

    @property
    def is_delivered(self) -> bool:
        """Whether the server has acknowledged all that the client has sent."""

    def start(self, nursery: trio.Nursery, on_end: Callable[[], None]) -> None:
        """Run it, in a task of the nursery where it takes one, and call `on_end` at its end."""

    def reset(self) -> None:
        """End it: both sides get a reset."""

    def measure(self) -> None:
        """Publish how many bytes it has moved so far."""


class Begin(Protocol):
    """Begins a flow, and publishes flow.open."""

    def __call__(
        self,
        number: int,
        connection: IncomingConnection,
        services: Services,
        process: RunningProcess | None = None,
    ) -> Carried: ...


class Flows:
    """Runs a flow for each connection."""

    def __init__(
        self, hub: Hub, limits: Limits, max_flows: int | None, on_limit: Callable[[str], None]
    ) -> None:
        """`on_limit` is called once `max_flows` have started. Connections beyond them, which came
        before the source was closed, are relayed unseen and publish no events."""
        self.force_stop = trio.Event()
        """Set it to end every wait for flows."""
        self.begin: Begin = Flow
        """Flows are carried in this process, or in others."""
        self.open: dict[int, Carried] = {}
        """By number."""
        self._surplus: dict[int, Carried] = {}
        """Flows beyond `max_flows`."""
        self._hub = hub
        self._limits = limits
        self._crowd = Crowd(limits)
        self._max_flows = max_flows
        self._on_limit = on_limit
        self._begun = 0
        self._refused_one = False
        self._one_closed = trio.Event()

    def enter(self, queued: QueuedConnection) -> None:
        """Queue a connection, or refuse it where there is no room."""
        if self._crowd.enter(queued):
            return
        queued.connection.refuse(None)
        self._hub.publish(ConnectionRefused())
        if not self._refused_one:
            self._refused_one = True
            said = f"too many connections, some are refused: there may be {self._limits}"
            self._hub.publish(Note(said))

    async def run(self) -> None:
        """Start the connections that wait. Until cancelled; open flows are then cancelled too."""
        async with trio.open_nursery() as nursery:
            while True:
                for queued in await self._crowd.next():
                    self._begin(nursery, queued)
                await trio.lowlevel.checkpoint()

    async def wait_closed(self, drain_s: float, *, counted_s: float | None = None) -> None:
        """Wait until no flow is open and no connection waits, but no longer than `drain_s`; for the
        flows that `max_flows` counts, `counted_s` where it is given."""
        await self._wait(self.open, drain_s if counted_s is None else counted_s)
        await self._wait(self._surplus, drain_s)

    async def wait_delivered(self) -> None:
        """Wait until servers have acknowledged what the clients of open flows have sent."""
        while (  # noqa: ASYNC110 - the kernel tells nobody
            not all(flow.is_delivered for flow in self.open.values())
            and not self.force_stop.is_set()
        ):
            await trio.sleep(_POLL_INTERVAL_S)

    def refuse_waiting(self) -> None:
        """Refuse the connections that have not started."""
        for queued in self._crowd.all_waiting():
            queued.connection.refuse(None)

    def reset(self, number: int) -> bool:
        """Reset both sides of a flow. Returns whether it was open."""
        flow = self.open.get(number)
        if flow:
            flow.reset()
        return flow is not None

    def measure(self, number: int) -> None:
        """Publish the byte counts of a flow, if it is open."""
        if flow := self.open.get(number):
            flow.measure()

    def _begin(self, nursery: trio.Nursery, queued: QueuedConnection) -> None:
        services = queued.services
        is_looked_at = self._crowd.look_at(queued)
        if not is_looked_at:
            services = unopened(services, _TOO_MANY)
        if self._begun == self._max_flows:
            flow = self.begin(0, queued.connection, unheard(unopened(services, MAX_FLOWS)))
            among, key = self._surplus, id(flow)
        else:
            self._begun += 1
            flow = self.begin(self._begun, queued.connection, services, queued.process)
            among, key = self.open, self._begun
        among[key] = flow
        flow.start(nursery, partial(self._leave, queued, among, key, is_looked_at))
        if among is self.open and self._begun == self._max_flows:
            self._on_limit(MAX_FLOWS)

    def _leave(
        self, queued: QueuedConnection, among: dict[int, Carried], key: int, is_looked_at: bool
    ) -> None:
        del among[key]
        self._crowd.leave(queued, looked_at=is_looked_at)
        self._one_closed.set()
        self._one_closed = trio.Event()

    async def _wait(self, flows: Mapping[int, Carried], timeout_s: float) -> None:
        with trio.move_on_after(timeout_s):
            while (flows or self._crowd.has_waiting) and not self.force_stop.is_set():
                await first_of(self._one_closed.wait, self.force_stop.wait)


def unopened(services: Services, reason: str) -> Services:
    """The services for flows that are relayed unseen. Where the policy requires that they are
    inspected, they are, but no TLS is intercepted in them."""
    return replace(services, unseen=reason, policy=without_interception(services.policy, reason))


def unheard(services: Services) -> Services:
    """The services for flows that publish no events."""
    return replace(services, publish=lambda _event: None, wants=lambda _kind: False)
