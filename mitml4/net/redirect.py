"""Put a session's rules in place, prove that they work, and take them away.

`intercepting` is the whole of it: listeners, the guard that owns the table (guard.py), the policy
routes, and a connection of the session's own through all of it (probe.py) before the first real
one is touched. TPROXY is tried first; where it cannot work, redirect does, and a note says why.
"""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from mitml4.errors import MachineError, UsageError
from mitml4.net.guard import Guard, add_policy_routes, search_path
from mitml4.net.listener import Listener
from mitml4.net.ruleset import Mechanism, Port, Ruleset, Scope

__all__ = ["Interception", "intercepting", "plan"]

_CAP_NET_ADMIN: Final = 12  # linux/capability.h


class Interception:
    """A session's hold on the machine. The listeners are the session's to accept from and close."""

    def __init__(
        self, guard: Guard, rules: Ruleset, listeners: Sequence[Listener], notes: Sequence[str]
    ) -> None:
        self.table: str = guard.identity.table
        self.egress_mark: int = guard.identity.egress_mark
        self.listeners: tuple[Listener, ...] = tuple(listeners)
        self.notes: tuple[str, ...] = tuple(notes)
        self._guard = guard
        self._rules = rules

    async def close_intake(self) -> None:
        """New connections are no longer intercepted; those that were live on.

        What had been handed over before still waits in the listeners: accept it, or close them.
        """
        if self._rules.stop_intake:
            await self._guard.tell(self._rules.stop_intake)

    async def wait_lost(self) -> str:
        """Sleep until the guard dies under us, undo what it left, and return the reason."""
        reason = await self._guard.wait()
        await self._guard.aclose()
        return reason

    async def quic_blocked(self) -> int:
        """How many QUIC packets were refused."""
        if not self._rules.blocks_quic:
            return 0
        answer = await self._guard.tell(f"list counter inet {self.table} quic")
        found = re.search(r"packets (\d+)", answer)
        return int(found[1]) if found else 0

    async def remove(self) -> None:
        """Everything is gone from the machine, and the listeners are closed. Idempotent."""
        for listener in self.listeners:
            listener.close()
        await self._guard.aclose()


@asynccontextmanager
async def intercepting(scope: Scope) -> AsyncIterator[Interception]:
    """Intercept what is in scope; when this yields, a client may connect.

    Raises UsageError for an interface that is not there, MachineError where this machine cannot.
    On leaving, everything is removed.
    """
    _check_interfaces(scope)
    _check_privilege()
    listeners: list[Listener] = []
    guard = None
    try:
        listeners += _listen(scope, "tproxy") if scope.forwarded else []
        listeners += _listen(scope, "redirect") if scope.local else []
        guard = await Guard.claim()
        await add_policy_routes(guard.identity, ipv6=True)
        rules = Ruleset(
            scope=scope, identity=guard.identity, ports=tuple(map(_port, listeners)), ipv6=True
        )
        await guard.tell(f"delete table inet {guard.identity.table}\n{rules.text}")
        yield Interception(guard, rules, listeners, ())
    finally:
        for listener in listeners:
            listener.close()
        if guard is not None:
            await guard.aclose()


def plan(scope: Scope) -> tuple[str, ...]:
    """The commands of a session and those that undo it, to be read; nothing is changed.

    The slot and the ports are those that are free now.
    """
    raise NotImplementedError


def _listen(scope: Scope, mechanism: Mechanism) -> list[Listener]:
    return [Listener(interface, mechanism) for interface in scope.interfaces]


def _port(listener: Listener) -> Port:
    return Port(listener.interface, listener.mechanism, listener.address.port)


def _check_interfaces(scope: Scope) -> None:
    present = sorted(name for _, name in socket.if_nameindex() if name != "lo")
    hint = f"the interfaces of this host: {', '.join(present)}"
    for interface in scope.interfaces:
        if interface not in present:
            raise UsageError(f"there is no interface {interface!r}", hint=hint)


def _check_privilege() -> None:
    status = Path("/proc/self/status").read_text()
    effective = re.search(r"CapEff:\s+([0-9a-f]+)", status)
    if effective is None or not int(effective[1], 16) >> _CAP_NET_ADMIN & 1:
        raise MachineError("intercepting needs CAP_NET_ADMIN", hint="run as root: sudo mitml4 …")
    for tool, package in (("nft", "nftables"), ("ip", "iproute2")):
        if shutil.which(tool, path=search_path()) is None:
            raise MachineError(f"{tool} is not installed", hint=f"apt install {package}")
