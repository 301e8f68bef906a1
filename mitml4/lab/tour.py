"""The demo: the real `mitml4 intercept` in the lab's router, and one client after the other.

The interception is a separate process, as if a user had started it; the tour only reads its events.
It compares the machine's state before and after.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import trio

from mitml4.dataclass import dataclass
from mitml4.errors import MitmError
from mitml4.lab.certificates import Identity, LabAuthority
from mitml4.lab.clients import VISITS, Trust, Visit
from mitml4.lab.network import LAN, LabNetwork
from mitml4.lab.scratch import scratch_directory
from mitml4.lab.servers import Servers
from mitml4.lab.snapshot import difference, take_snapshot
from mitml4.signals import ending_signals

__all__ = ["Seen", "TourReport", "make_servers", "take_tour"]

_READY_TIMEOUT_S: Final = 30.0
_EVENT_TIMEOUT_S: Final = 10.0
_STOP_TIMEOUT_S: Final = 15.0
_OPTIONS: Final = ("--duration", "120s", "--drain", "1s")
"""With a duration, the interception ends even if the demo is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A visit, the client's result, and the stacks in its events."""

    visit: Visit
    outcome: str
    stacks: tuple[tuple[str, ...], ...]

    @property
    def as_expected(self) -> bool:
        return self.stacks == (self.visit.stack,)


@dataclass(frozen=True, slots=True, kw_only=True)
class TourReport:
    """The results of the tour, and a diff of the snapshots, empty if nothing was left."""

    seen: tuple[Seen, ...]
    interrupted: bool
    leftovers: str


def make_servers(lab: LabNetwork, authority: LabAuthority) -> Servers:
    """The lab's servers, with certificates for names below `.example` (one of them expired)."""
    names = ("www.example", "mail.example")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    expired = (yesterday - timedelta(days=30), yesterday)
    return Servers(
        namespace=lab.server,
        tls=_context(authority.issue(*names)),
        expired=_context(authority.issue(*names, valid=expired)),
    )


def _context(identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


async def take_tour(
    *, pause_s: float, copy_events: Callable[[str], None] | None, color: str = "auto"
) -> TourReport:
    """Build the lab, visit every server through mitml4, and remove everything.

    With `copy_events`, that function gets each JSON line; without it, the interception draws its
    table on our terminal, in `color` (--color). `pause_s` is the time between two visits, for the
    viewer. Ctrl-C (and SIGTERM) end the tour early. Raises MitmError if the interception cannot
    start.
    """
    host_before = take_snapshot()
    with LabNetwork() as lab, scratch_directory() as directory:
        router_before = lab.router.call(take_snapshot)
        authority = LabAuthority(directory)
        trust = Trust(mitml4=directory / "ca" / "mitml4-ca.pem", lab=authority.root)
        seen: list[Seen] = []
        async with trio.open_nursery() as nursery:
            await nursery.start(make_servers(lab, authority).run)
            with trio.CancelScope() as visits:
                await nursery.start(_cancel_at_signal, visits)
                async with _interception(lab, trust, copy_events, color) as events:
                    for visit in VISITS:
                        seen.append(await _make(visit, lab, trust, events))
                        await trio.sleep(pause_s)
            nursery.cancel_scope.cancel()
        router_left = difference(router_before, lab.router.call(take_snapshot))
    return TourReport(
        seen=tuple(seen),
        interrupted=visits.cancelled_caught,
        leftovers=router_left + difference(host_before, take_snapshot()),
    )


async def _cancel_at_signal(
    scope: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(*ending_signals()) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()


async def _make(visit: Visit, lab: LabNetwork, trust: Trust, events: _Events) -> Seen:
    """Run a client, and wait until mitml4 has reported all its flows."""
    before = len(events.stacks)
    outcome = await trio.to_thread.run_sync(
        lab.client.call, partial(visit.client, trust), abandon_on_cancel=True
    )
    await events.wait_quiet(more_than=before)
    return Seen(visit=visit, outcome=outcome, stacks=tuple(events.stacks[before:]))


@dataclass(slots=True)
class _Events:
    """The events of the interception so far."""

    ready: bool = False
    stopped: bool = False
    """`session.stop` has arrived."""
    ended: bool = False
    """Its output has ended."""
    open_flows: int = 0
    stacks: list[tuple[str, ...]] = field(default_factory=list)
    """Those of closed flows, in the order of closing."""
    changed: trio.Condition = field(default_factory=trio.Condition)

    async def take(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "session.start":
                self.ready = True
            case "session.stop":
                self.stopped = True
            case "flow.open":
                self.open_flows += 1
            case "flow.close":
                self.open_flows -= 1
                self.stacks.append(tuple(event["stack"]))
        await self.notify()

    async def notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def wait_ready(self) -> None:
        await self._wait(lambda: self.ready, _READY_TIMEOUT_S, "it did not get ready")

    async def wait_quiet(self, *, more_than: int) -> None:
        """Wait until more flows have closed than given, and none is open."""
        await self._wait(
            lambda: len(self.stacks) > more_than and self.open_flows == 0,
            _EVENT_TIMEOUT_S,
            "it did not see a client's connection to its end",
        )

    async def _wait(self, condition: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
        with trio.move_on_after(timeout_s) as scope:
            async with self.changed:
                while not condition():
                    if self.ended:
                        raise MitmError("the interception ended early")
                    await self.changed.wait()
        if scope.cancelled_caught:
            raise MitmError(
                f"the interception has unexpected results: {otherwise}",
                hint="to see its events: mitml4 demo --json",
            )


@asynccontextmanager
async def _interception(
    lab: LabNetwork, trust: Trust, copy_events: Callable[[str], None] | None, color: str
) -> AsyncIterator[_Events]:
    """`mitml4 intercept` in the router, ready; on exit it is stopped and waited for."""
    read_end, write_end = os.pipe()
    stream = trio.lowlevel.FdStream(read_end)
    argv = [
        *(sys.executable, "-m", "mitml4", "--quiet", "--color", color),
        *("intercept", "--iface", LAN, *_OPTIONS),
        *("--ca-dir", str(trust.mitml4.parent), "--upstream-ca", str(trust.lab)),
    ]
    if copy_events is None:
        process = _start(lab, [*argv, "-o", f"/dev/fd/{write_end}"], pass_fds=[write_end])
    else:
        process = _start(lab, [*argv, "--json"], stdout=write_end)
    os.close(write_end)
    events = _Events()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read_events, stream, events, copy_events)
        try:
            await events.wait_ready()
            yield events
        finally:
            await _stop(process)
    if process.returncode != 0 or not events.stopped:
        raise MitmError(
            f"the interception ended with code {process.returncode}, which is a bug of mitml4",
            hint="to see its last events: mitml4 demo --json",
        )


def _start(lab: LabNetwork, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """Remove the user's MITML4_… variables, which are not meant for the lab."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MITML4_")}
    return lab.router.popen(argv, env=environment, stdin=subprocess.DEVNULL, **options)


async def _stop(process: subprocess.Popen[Any]) -> None:
    with trio.CancelScope(shield=True):
        process.terminate()
        with trio.move_on_after(_STOP_TIMEOUT_S) as timeout:
            await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)
        if timeout.cancelled_caught:
            process.kill()
            process.wait()


async def _read_events(
    stream: trio.abc.ReceiveStream, events: _Events, copy: Callable[[str], None] | None
) -> None:
    """Read until the interception has closed its output, since its last events are needed too."""
    rest = b""
    with trio.CancelScope(shield=True):
        async for data in stream:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if copy is not None:
                    copy(line.decode())
                await events.take(json.loads(line))
        events.ended = True
        await events.notify()
