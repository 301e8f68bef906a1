"""A worker and its flows, as the session sees them."""

from __future__ import annotations

import math
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias, cast

import trio

from mitml4.events import FlowLayer
from mitml4.layers.report import Report
from mitml4.net.listener import HeldConnection, IncomingConnection
from mitml4.process import RunningProcess
from mitml4.protocols.http.events import HttpEnd
from mitml4.session.flows.services import Services
from mitml4.session.sources.proxy import ProxyClient
from mitml4.session.workers.balance import Carrier
from mitml4.session.workers.channel import Channel
from mitml4.session.workers.worker import BEGINNINGS, Begun

__all__ = ["RemoteFlow", "RemoteWorker"]

Place: TypeAlias = tuple[int, int]
"""The depth and the stream of an exchange."""

_LOST: Final = "the worker process that carried it has ended"
_HUNG: Final = "the worker process that carried it did not answer, and was killed"

_MAX_UNANSWERED: Final = 10
"""A process that has something to do and is silent for so many beats after it was asked hangs."""


class RemoteWorker(Carrier):
    """A worker, as the session sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.channel: Channel | None = None
        """None: it has not been started, or has ended."""
        self.nursery: trio.Nursery | None = None
        """Of what it has asked."""
        self.serving = trio.CancelScope()
        """Cancelled when it is given up."""
        self.pid = 0
        """0: it has not said it yet. It is given no flows before.

        Signals go to this number. It is free only if the starter has reaped this worker, which it
        does when it is asked for another one, and the end of this one's channel has not been read.
        Until then the kernel, which gives out numbers in turn, would have to come to it again, and
        for a process of the session's user. A pidfd would cost each worker a descriptor."""
        self.silence = 0
        """Beats since anything came from it, while it has flows or messages to read; it was asked
        at the first."""
        self.is_given_up = False
        self.has_ended = False
        """Whether the end of its channel was read."""
        self.flows: dict[int, RemoteFlow] = {}
        self.asked: dict[int, trio.CancelScope] = {}
        self.ended = trio.Event()
        """It has ended, and is not replaced."""

    def begin(self, channel: Channel) -> None:
        """A process was started for it."""
        self.channel, self.serving = channel, trio.CancelScope()
        self.silence, self.is_given_up, self.has_ended = 0, False, False
        self.avoided_s, self.avoided_until = 0.0, -math.inf
        self.asked.clear()

    @property
    def is_able(self) -> bool:
        """Whether it can be given flows."""
        return bool(self.pid) and not (self.is_silent or self.is_given_up or self.has_ended)

    @property
    def is_silent(self) -> bool:
        """Whether it has not answered for a whole beat, so that it is given no flows."""
        return self.silence > 1

    def beat(self) -> None:
        """A beat later. It is asked for an answer, and given up when nothing comes from it. Beats
        are counted and not seconds: there are none while this process does not run either."""
        if not self.pid or not self.channel:
            return
        if not (self.flows or self.channel.unsent_bytes):
            self.silence = 0
            return
        self.silence += 1
        if self.silence == 1:
            self.channel.send("ping")
        elif self.silence > _MAX_UNANSWERED:
            self.give_up()

    def give_up(self) -> None:
        """Kill it; its flows are lost."""
        self.is_given_up = True
        if self.pid:
            with suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)
        self.serving.cancel()

    def flow(self, key: int) -> RemoteFlow:
        """Raises OSError if it has ended."""
        flow = self.flows.get(key)
        if flow is None:
            raise ConnectionAbortedError
        return flow

    def note_layer(self, layer: FlowLayer) -> None:
        """A layer of a flow is known. If this process ends, the stack is told."""
        if flow := self.flows.get(layer.flow):
            flow.report.enter(layer.depth, layer.protocol)

    def note_end(self, key: int, *, is_closed: bool) -> None:
        """A flow has ended. `is_closed`: its flow.close is published by who calls this."""
        if flow := self.flows.get(key):
            flow.is_closed |= is_closed
            flow.end()

    def note_exchange(self, number: int, place: Place, *, is_begun: bool) -> None:
        """An exchange of HTTP has begun or ended in a flow."""
        if flow := self.flows.get(number):
            if is_begun:
                flow.exchanges[place] = flow.services.clock()
            else:
                flow.exchanges.pop(place, None)

    def lose_flows(self) -> None:
        """It has ended, and its flows with it."""
        reason = _HUNG if self.is_given_up else _LOST
        for flow in [*self.flows.values()]:
            flow.lose(reason)

    def cut_flows(self) -> None:
        """The session ends without waiting for it."""
        for flow in [*self.flows.values()]:
            flow.refuse(None)
            flow.end()


class RemoteFlow:
    """A flow that a worker carries."""

    def __init__(
        self,
        key: int,
        worker: RemoteWorker,
        connection: IncomingConnection,
        services: Services,
        process: RunningProcess | None,
    ) -> None:
        assert worker.channel
        self._channel = worker.channel
        self._worker = worker
        self._key = key
        self.connection = connection
        self.services = services
        self.report = Report(max(key, 0), services.publish, services.wants)
        self.opened_at = services.clock()
        self._on_end: Callable[[], None] | None = None
        self.is_closed = False
        """Whether flow.close was published."""
        self.exchanges: dict[Place, float] = {}
        """When those that have not ended began; the layers of the flow bound how many there are."""
        self.has_delivered = False
        self._has_asked = False
        self._is_answered = False
        """Whether its client's connection was sent to the worker, or refused."""
        destination = connection.destination
        names = tuple(services.names_of(destination))
        name = names[0] if names else None
        begun = Begun(
            key=key,
            source=services.source,
            client=connection.client,
            destination=destination,
            origin=connection.source,
            interface=connection.interface,
            local_ends=connection.local_ends,
            process=process,
            names=names,
            unseen=services.unseen,
            expected=services.expectations.take(
                "tcp", destination.ip, destination.port, self.opened_at
            ),
        )
        worker.flows[key] = self
        self.report.open(connection, name, services.container, process.process if process else None)
        descriptor = None
        if isinstance(connection, ProxyClient):
            self._is_answered = True
            descriptor = connection.accepted.socket.detach()
        self._channel.send("begin", BEGINNINGS.values(begun), descriptor=descriptor)

    def start(self, _nursery: trio.Nursery, on_end: Callable[[], None]) -> None:
        """See `flows.Carried`. No task of this process waits for its end."""
        self._on_end = on_end

    def end(self) -> None:
        """The worker no longer carries it."""
        if self._worker.flows.pop(self._key, None):
            self._close("shutdown")
            if self._on_end:
                self._on_end()

    @property
    def is_delivered(self) -> bool:
        if not self._has_asked:
            self._has_asked = True
            self._channel.send("deliver", self._key)
        return self.has_delivered or self._key not in self._worker.flows

    def reset(self) -> None:
        self._channel.send("reset", self._key)

    def measure(self) -> None:
        self._channel.send("measure", self._key)

    def accept(self) -> None:
        """Let the client in, and send the worker its connection."""
        if self._is_answered:  # a socket that was sent with the flow has not arrived
            self._channel.send("gone", self._key)
        else:
            cast("HeldConnection", self.connection).let_in(self._send_accepted)

    def _send_accepted(self, sock: socket.socket | None) -> None:
        if sock is None:
            self._channel.send("gone", self._key)
        else:
            self._is_answered = True
            self._channel.send("accepted", self._key, descriptor=sock.detach())

    def refuse(self, reason: OSError | None) -> None:
        """Unless it is too late: then, what the worker has got is closed there."""
        if not self._is_answered:
            self._is_answered = True
            self.connection.refuse(reason)

    def lose(self, reason: str) -> None:
        """Its worker has ended, and the kernel has reset what it had accepted. A client that still
        waits is not answered: it asks again, and another process carries it."""
        self.refuse(TimeoutError())
        if not self.is_closed:
            self.report.error("client", "relay", "internal", reason)
        self._close("error")
        self.end()

    def _close(self, reason: Any) -> None:
        if not self.is_closed:
            self.is_closed = True
            now = self.services.clock()
            for (depth, stream), began in self.exchanges.items():
                end = HttpEnd(
                    stream=stream,
                    request_bytes=0,
                    response_bytes=0,
                    duration_s=now - began,
                    outcome="cut",
                )
                self.report.protocol_event(depth, end)
            self.report.close(reason, up=0, down=0, duration_s=now - self.opened_at)
