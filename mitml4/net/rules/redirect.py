"""Put a session's rules in place, prove that they work, and take them away.

`intercepting` is the whole of it: listeners, the guard that owns the table (guard.py), the policy
routes, and a connection of the session's own through all of it (probe.py) before the first real
one is touched. TPROXY is tried first; where it cannot work, redirect does, and a note says why.
"""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

import trio

from mitml4.errors import MachineError, UsageError
from mitml4.net import capabilities
from mitml4.net.capabilities import Capability
from mitml4.net.firewall.host_rules import HostRules
from mitml4.net.identity import Identity
from mitml4.net.listener import Listener
from mitml4.net.mechanism import Mechanism
from mitml4.net.rules.guard import Guard, GuardLostError, NftError, add_policy_routes
from mitml4.net.rules.probe import CannotProbeError, ProbeLink, probe_link
from mitml4.net.rules.ruleset import Port, Ruleset, policy_routes
from mitml4.net.rules.scope import Scope
from mitml4.net.sysctl import read_sysctl
from mitml4.net.tools import check_tools, run_ip

__all__ = ["Interception", "check", "intercepting", "plan"]

_FAMILIES: Final = ("-4", "-6")


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
        self._quic_blocked = 0

    async def close_intake(self) -> None:
        """New connections are no longer intercepted; those that were live on.

        What had been handed over before still waits in the listeners: accept it, or close them.
        Where the guard has died there are no rules, and nothing to do.
        """
        with suppress(GuardLostError):
            await self._guard.tell(self._rules.stop_intake)

    async def wait_lost(self) -> str:
        """Sleep until the guard dies under us, undo what it left, and return the reason."""
        reason = await self._guard.wait()
        await self._guard.aclose()
        return reason

    async def quic_blocked(self) -> int:
        """How many QUIC packets were refused, as far as is known."""
        if self._rules.blocks_quic:
            with suppress(GuardLostError):
                answer = await self._guard.tell(f"list counter inet {self.table} quic")
                found = re.search(r"packets (\d+)", answer)
                assert found is not None, answer
                self._quic_blocked = int(found[1])
        return self._quic_blocked

    async def remove(self) -> None:
        """Everything is gone from the machine, and the listeners are closed. Idempotent."""
        await _remove(self._guard, self.listeners)


def check(scope: Scope) -> None:
    """Raises UsageError, MachineError for what is known without touching anything."""
    _check_interfaces(scope)
    _check_privilege()
    check_tools()


@asynccontextmanager
async def intercepting(scope: Scope) -> AsyncIterator[Interception]:
    """Intercept what is in scope; when this yields, a client may connect.

    Raises UsageError for an interface that is not there, MachineError where this machine cannot.
    On leaving, everything is removed.
    """
    check(scope)
    guard = await Guard.claim()
    listeners: list[Listener] = []
    try:
        setup = await _settle(scope, guard)
        listeners += _listen(scope, setup)
        rules = setup.ruleset(scope, guard.identity, map(_port, listeners))
        await guard.load(rules.text)
        yield Interception(guard, rules, listeners, setup.notes)
    finally:
        await _remove(guard, listeners)


async def _remove(guard: Guard, listeners: Iterable[Listener]) -> None:
    # The rules first: they must not send a connection where nobody listens any more.
    try:
        await guard.aclose()
    finally:
        for listener in listeners:
            listener.close()


def plan(scope: Scope) -> tuple[str, ...]:
    """The commands of a session and those that undo it, a line each; nothing is changed.

    The slot and the ports stand for those that a session finds free. Needs no privilege. Raises
    UsageError like `intercepting`.
    """
    _check_interfaces(scope)
    identity = next(Identity.candidates())
    setup = _first_choice(scope)
    ports = [
        Port(*place, port) for place, port in zip(setup.places(scope), count(40000), strict=False)
    ]
    routes = policy_routes(identity) if scope.forwarded else ()
    families = _FAMILIES if setup.ipv6 else _FAMILIES[:1]
    return (
        "# nft -i, whose end is the end of this table, and which ends when mitml4 does",
        *setup.ruleset(scope, identity, ports).text.splitlines(),
        "# ip",
        *(f"ip {family} {add}" for family in families for add, _ in routes),
        "# undo, by the process that waits for nft to end",
        *(f"ip {family} {undo}" for family in families for _, undo in routes),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setup:
    """How connections are to reach us on this machine."""

    forwarding: Mechanism
    """Of forwarded connections; those that this host starts are redirected in any case."""
    ipv6: bool
    redirect_bridged: bool
    notes: tuple[str, ...] = ()

    def places(self, scope: Scope) -> list[tuple[str, Mechanism]]:
        """The listeners that are needed: an interface and a mechanism each."""
        mechanisms: list[Mechanism] = []
        if scope.forwarded and self.forwarding == "tproxy":
            mechanisms.append("tproxy")
        if scope.local or self.redirect_bridged or self.forwarding == "redirect":
            mechanisms.append("redirect")
        return [(interface, item) for interface in scope.interfaces for item in mechanisms]

    def ruleset(self, scope: Scope, identity: Identity, ports: Iterable[Port]) -> Ruleset:
        return Ruleset(
            scope=scope,
            identity=identity,
            ports=tuple(ports),
            ipv6=self.ipv6,
            redirect_bridged=self.redirect_bridged,
        )


def _first_choice(scope: Scope) -> _Setup:
    return _Setup(
        forwarding="tproxy",
        ipv6=_has_ipv6(scope),
        redirect_bridged=scope.forwarded and _filters_bridges(),
    )


async def _settle(scope: Scope, guard: Guard) -> _Setup:
    """Find out what works, by connections of the session's own. Raises MachineError if nothing."""
    setup = _first_choice(scope)
    if setup.redirect_bridged and await run_ip("link", "show", "type", "bridge"):
        note = "what comes in over a bridge is redirected: bridge-nf-call-iptables rules out TPROXY"
        setup = replace(setup, notes=(note,))
    if scope.forwarded:
        await add_policy_routes(guard.identity, ipv6=setup.ipv6, guard=guard)
    try:
        async with probe_link(guard.identity, ipv6=setup.ipv6) as link:
            failure = await _prove(scope, guard, setup, link)
            if failure is not None and scope.forwarded:
                note = f"TPROXY does not work here ({failure}): forwarded flows are redirected"
                setup = replace(setup, forwarding="redirect", redirect_bridged=False, notes=(note,))
                failure = await _prove(scope, guard, setup, link)
    except CannotProbeError as error:
        note = f"the session could not prove itself: {error.message}"
        return replace(setup, notes=(*setup.notes, note))
    if failure is not None:
        raise MachineError(
            f"intercepted connections do not reach mitml4: {failure}", hint=await _remedy()
        )
    return setup


async def _prove(scope: Scope, guard: Guard, setup: _Setup, link: ProbeLink) -> str | None:
    """Load the rules for the probe's interface alone, and connect. None, or why it failed."""
    scope = Scope(interfaces=(link.interface,), direction=scope.direction)
    listeners = _listen(scope, setup)
    try:
        rules = setup.ruleset(scope, guard.identity, map(_port, listeners))
        await guard.load(rules.text)
        if scope.forwarded:
            # The first listener is the forwarded connections' own.
            failure = await link.fails("forwarded", listeners[0])
            if failure is not None:
                return f"forwarded, {failure}"
        if scope.local:
            failure = await link.fails("local", listeners[-1])
            if failure is not None:
                return f"from this host, {failure}"
    except NftError as error:
        return error.message
    finally:
        for listener in listeners:
            listener.close()
    return None


async def _remedy() -> str:
    """Name the input chains that drop by policy, with the rule that lets our connections in."""
    try:
        rules = await trio.to_thread.run_sync(HostRules.read)
    except MachineError:
        rules = HostRules("")
    dropping = [chain.opening for chain in rules.inputs if chain.policy == "drop"]
    if not dropping:
        return "look for a firewall rule that drops what comes in: mitml4 doctor"
    return f"the input policy is drop; let in what mitml4 marks: {'; '.join(dropping)}"


def _listen(scope: Scope, setup: _Setup) -> list[Listener]:
    listeners: list[Listener] = []
    try:
        for interface, mechanism in setup.places(scope):
            listeners.append(Listener(interface, mechanism))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _port(listener: Listener) -> Port:
    return Port(listener.interface, listener.mechanism, listener.address.port)


def _has_ipv6(scope: Scope) -> bool:
    """Whether this host speaks IPv6 over any of the interfaces."""

    def has_it(interface: str) -> bool:
        return read_sysctl(f"net/ipv6/conf/{interface}/disable_ipv6") == "0"

    return any(map(has_it, scope.interfaces)) and has_it("lo")


def _filters_bridges() -> bool:
    """Whether bridged packets pass through prerouting while they are still on the bridge."""
    settings = (f"net/bridge/bridge-nf-call-{name}" for name in ("iptables", "ip6tables"))
    return any(read_sysctl(setting) == "1" for setting in settings)


def _check_interfaces(scope: Scope) -> None:
    present = sorted(name for _, name in socket.if_nameindex() if name != "lo")
    for interface in scope.interfaces:
        if interface == "lo":
            raise UsageError(
                "connections to this host's own services are not intercepted, so lo has none",
                hint="mitml4 run --loopback -- COMMAND",
            )
        if interface not in present:
            raise UsageError(
                f"there is no interface {interface!r}",
                hint=f"the interfaces of this host: {', '.join(present)}",
            )
        if set(interface) & set('"*\\'):
            raise UsageError(
                f"nft cannot name the interface {interface!r}", hint="ip link set … name …"
            )


def _check_privilege() -> None:
    if not capabilities.has(Capability.NET_ADMIN):
        raise MachineError("intercepting needs CAP_NET_ADMIN", hint="run as root: sudo mitml4 …")
