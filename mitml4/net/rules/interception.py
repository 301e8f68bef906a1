"""Set up a session's rules, test them, and remove them.

`preparing` starts the guard that owns the table (guard.py), and sends test connections (probe.py)
through rules for a separate interface. `intercepting` then creates the listener, and the gate
that holds connections, and loads the rules.
"""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import trio

from mitml4.dataclass import dataclass
from mitml4.errors import MachineError, UsageError
from mitml4.net import capabilities
from mitml4.net.capabilities import Capability
from mitml4.net.firewall.chains import Chain
from mitml4.net.firewall.host_rules import HostRules
from mitml4.net.gate.gate import SynGate
from mitml4.net.gate.nflog import open_log
from mitml4.net.gate.quic import COPY_BYTES
from mitml4.net.identity import Identity
from mitml4.net.links import Change, LinkWatch, has_global_v6, vrf_of
from mitml4.net.listener import Listener
from mitml4.net.place import HERE, Place
from mitml4.net.rules.arrival import arrives
from mitml4.net.rules.cgroups import CgroupWatch
from mitml4.net.rules.channel import HostChannel
from mitml4.net.rules.guard import Guard, GuardLostError, NftError
from mitml4.net.rules.notes import belongs, drops_sent, notes_on
from mitml4.net.rules.owned import OwnedSockets
from mitml4.net.rules.probe import CannotProbeError, InnerProbe, ProbeLink, probe_link
from mitml4.net.rules.ruleset import Ruleset
from mitml4.net.rules.scope import Cgroup, Owner, Scope
from mitml4.net.rules.watch import RulesWatch
from mitml4.net.sysctl import read_sysctl
from mitml4.net.tools import check_tools
from mitml4.tasks import both

__all__ = [
    "Interception",
    "Preparation",
    "check",
    "intercepting",
    "plan",
    "preparing",
]

_SHOWN_PORT: Final = 40000
_IF_INET6: Final = Path("/proc/self/net/if_inet6")
_GLOBAL_SCOPE: Final = "00"  # /proc/net/if_inet6
_CHAINS: Final = "list chains"


class Interception:
    """The rules and sockets of a running session. Run its gate, and accept from it."""

    def __init__(
        self,
        guard: Guard,
        rules: Ruleset,
        listener: Listener,
        channel: HostChannel,
        links: LinkWatch,
        watch: RulesWatch,
        cgroups: CgroupWatch | None,
        preparation: Preparation,
        notes: Sequence[str],
        quic_log: socket.socket | None,
    ) -> None:
        self.table: str = guard.identity.table
        self.own_mark: int = guard.identity.own_mark
        self.address = listener.address
        self.channel = channel
        self.gate = SynGate(listener, channel)
        self.quic_log = quic_log
        """Where datagrams of QUIC that are refused arrive (gate/quic.py); None if none are."""
        self.untested = preparation.untested
        """Why no test connection was possible; None if one came through."""
        self.notes: tuple[str, ...] = (
            *filter(None, [preparation.untested]),
            *preparation.notes,
            *notes,
        )
        """Notes for the user."""
        self._guard = guard
        self._links = links
        self._watch = watch
        self._cgroups = cgroups
        self._rules = rules
        self._quic_blocked = 0
        self._dropping_sent = preparation.dropping_sent

    async def stop_intercepting(self) -> None:
        """Stop intercepting new connections; open ones continue.

        If the guard has ended there are no rules, and nothing is done.
        """
        with suppress(GuardLostError):
            await self._guard.tell(self._rules.stop_interception)

    async def resume_intercepting(self) -> None:
        """Intercept new connections again."""
        with suppress(GuardLostError):
            await self._guard.tell(self._rules.resume_interception)

    async def cgroup_changes(self) -> list[str]:
        """What the user is told when cgroups in scope have gone or are there anew; waits until some
        are. Their connections are intercepted again then."""
        if self._cgroups is None:
            await trio.sleep_forever()
        assert self._cgroups
        told = []
        for index, is_there in await self._cgroups.changes():
            cgroup = self._cgroups.cgroups[index]
            fate = "has gone: nothing of it is intercepted until it comes back"
            if is_there:
                number = self._rules.scope.owners.index(cgroup)
                try:
                    await self._guard.tell(self._rules.renewal(number))
                except (NftError, GuardLostError):
                    continue  # it has gone again, which is the next change; or all has
                fate = "is there anew: new connections of it are intercepted"
            told.append(f"the cgroup {cgroup} {fate}")
        return told

    async def changes(self) -> list[Change]:
        """The changes of the interfaces since the last call; waits until there are some. The rules
        match one that is renamed or comes back by themselves."""
        found = await self._links.changes()
        self.channel.interfaces = self._links.names
        return found

    async def wait_in_doubt(self) -> bool:
        """Wait until new connections may no longer arrive: the rules of this host have changed, or
        an accepted connection does not arrive. Returns whether the rules have changed."""
        have_changed = False
        async with trio.open_nursery() as nursery:

            async def wait_changed() -> None:
                nonlocal have_changed
                await self._watch.changed()
                have_changed = True
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait_changed)
            await self.gate.wait_missing()
            nursery.cancel_scope.cancel()
        return have_changed

    async def arrives(self) -> bool:
        """Whether a test connection arrives at the listener, as new connections do."""
        return await arrives(self.channel, ipv6=self._rules.ipv6)

    async def notes_since(self) -> list[str]:
        """Notes about chains of others that now drop by policy what this host sends."""
        rules = await self._chains_of_others()
        added = [each for each in rules.dropping_sent if str(each) not in self._dropping_sent]
        self._dropping_sent = _names(rules.dropping_sent)
        return list(map(drops_sent, added))

    async def remedy(self) -> str:
        """What the user can do if no connection arrives."""
        return _remedy(await self._chains_of_others())

    async def _chains_of_others(self) -> HostRules:
        """Their chains, without rules. None of them if they cannot be read."""
        with suppress(GuardLostError, NftError):
            return HostRules(await self._guard.tell(_CHAINS))
        return HostRules("")

    async def wait_lost(self) -> str:
        """Wait until the guard ends unexpectedly, and return the reason."""
        reason = await self._guard.wait()
        await self._guard.aclose()
        return reason

    async def quic_blocked(self) -> int:
        """How many QUIC packets were refused, as far as is known."""
        if self._rules.blocks_quic:
            with suppress(GuardLostError):
                answer = await self._guard.tell(self._rules.count_quic)
                found = re.search(r"packets (\d+)", answer)
                assert found is not None, answer
                self._quic_blocked = int(found[1])
        return self._quic_blocked


def check(scope: Scope, place: Place = HERE) -> None:
    """Raises UsageError or MachineError for problems that can be found without changing
    anything."""
    if place is HERE:
        _check_interfaces(scope)
        _check_privilege()
    check_tools()


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """A guard, and what the test has shown."""

    scope: Scope
    place: Place
    guard: Guard
    ipv6: bool
    untested: str | None
    """Why no test connection was possible; None if one came through."""
    notes: Sequence[str]
    dropping_sent: frozenset[str]
    """The chains of others that drop by policy what this host sends."""


@asynccontextmanager
async def preparing(
    scope: Scope, place: Place = HERE, owned: OwnedSockets | None = None
) -> AsyncIterator[Preparation]:
    """Test whether connections in scope can be intercepted. No real connection is affected yet.
    `owned`: for test connections of the users and cgroups in scope.

    Raises UsageError for an interface that does not exist, MachineError if this machine cannot
    intercept. On exit, the guard and its rules are removed.
    """
    check(scope, place)
    guard = await Guard.claim(place)
    try:
        ipv6 = _has_ipv6(scope, place)
        rules = HostRules("")
        if place is HERE:
            untested, rules = await both(
                partial(_test_connection, scope, guard, owned, ipv6=ipv6), _rules_of_others
            )
        else:
            untested = await _test_inside(guard, place)
        yield Preparation(
            scope=scope,
            place=place,
            guard=guard,
            ipv6=ipv6,
            untested=untested,
            notes=tuple(notes_on(scope, rules)),
            dropping_sent=_names(rules.dropping_sent),
        )
    finally:
        await guard.aclose()


@asynccontextmanager
async def intercepting(preparation: Preparation) -> AsyncIterator[Interception]:
    """Intercept the connections in scope; when this yields, clients may connect. Raises
    MachineError. On exit, everything is removed."""
    scope, guard, place = preparation.scope, preparation.guard, preparation.place
    with (
        closing(LinkWatch(scope.interfaces, place)) as links,
        closing(RulesWatch(place)) as watch,
        _holding(guard.identity, scope, place) as (listener, channel),
        ExitStack() as more,
    ):
        rules = _ruleset(scope, guard.identity, listener, ipv6=preparation.ipv6)
        rules = replace(rules, indexes=links.indexes)
        quic_log = None
        if rules.blocks_quic:
            quic_log = more.enter_context(_quic_log(guard.identity, place))
        cgroups = None
        if watched := [owner for owner in scope.owners if isinstance(owner, Cgroup)]:
            cgroups = more.enter_context(closing(CgroupWatch(watched)))
        try:
            await guard.load(rules.text)
            await guard.restrict(
                rules.stop_interception,
                rules.resume_interception,
                rules.count_quic,
                _CHAINS,
                *(rules.renewal(number) for number in range(len(scope.owners))),
            )
            notes = [belongs(*pair) for pair in links.masters.items()]
            yield Interception(
                guard, rules, listener, channel, links, watch, cgroups, preparation, notes, quic_log
            )
        finally:
            # Before the listener is closed: otherwise the rules would hold connections that
            # nothing accepts.
            await guard.aclose()


def plan(scope: Scope, place: Place = HERE) -> tuple[str, ...]:
    """The rules of a session, one line each; nothing is changed.

    The slot and the port are examples; a session uses free ones. Needs no privileges. Raises
    UsageError like `intercepting`.
    """
    if place is HERE:
        _check_interfaces(scope)
    identity = next(Identity.candidates())
    ipv6 = _has_ipv6(scope, place)
    rules = Ruleset(scope=scope, identity=identity, port=_SHOWN_PORT, ipv6=ipv6)
    return (
        "# nft -i, whose end is the end of this table, and which ends when mitml4 does",
        *rules.text.splitlines(),
        f"# undo: none is needed; by hand: nft delete table inet {identity.table}",
    )


@contextmanager
def _holding(
    identity: Identity, scope: Scope, place: Place = HERE
) -> Iterator[tuple[Listener, HostChannel]]:
    """What the gate needs: the listener, and the channel for SYNs."""
    listener = Listener(place=place)
    try:
        channel = HostChannel(identity, listener.address.port, scope.interfaces, place)
        try:
            yield listener, channel
        finally:
            channel.close()
    finally:
        listener.close()


def _quic_log(identity: Identity, place: Place) -> socket.socket:
    try:
        return open_log(identity.quic_group, copy_bytes=COPY_BYTES, place=place)
    except OSError as error:
        raise MachineError(
            f"the kernel cannot log datagrams: {error.strerror}",
            hint="modprobe nfnetlink_log, or add --quic allow",
        ) from error


def _ruleset(
    scope: Scope, identity: Identity, listener: Listener, *, ipv6: bool, is_trial: bool = False
) -> Ruleset:
    return Ruleset(
        scope=scope,
        identity=identity,
        port=listener.address.port,
        ipv6=ipv6,
        is_trial=is_trial,
    )


async def _test_connection(
    scope: Scope, guard: Guard, owned: OwnedSockets | None, *, ipv6: bool
) -> str | None:
    """Test the rules with connections. Returns why that is impossible, if it is.

    Raises MachineError if no connection arrives.
    """
    try:
        async with probe_link(guard.identity, ipv6=ipv6) as link:
            failure = await _try(scope, guard, link, ipv6=ipv6)
            if owned and failure is None:
                for owner in scope.owners:
                    await _try_owner(owner, owned, guard, link)
    except CannotProbeError as error:
        return f"the rules could not be tested: {error.message}"
    if failure is not None:
        raise MachineError(
            f"intercepted connections do not reach mitml4: {failure}",
            hint=_remedy(await _rules_of_others()),
        )
    return None


async def _test_inside(guard: Guard, place: Place) -> str | None:
    """The same in another network namespace, where nothing is set up for it: the connection goes to
    an address that nobody has, and rules cover only that."""
    probe = InnerProbe(place)
    trial = Scope(to=probe.networks, quic="allow")
    with _holding(guard.identity, trial, place) as (listener, channel):
        rules = _ruleset(trial, guard.identity, listener, ipv6=True, is_trial=True)
        try:
            await guard.load(rules.text)
            failure = await probe.fails("local", SynGate(listener, channel))
        except NftError as error:
            failure = error.message
        except CannotProbeError as error:
            return error.message
    if failure is not None:
        raise MachineError(
            f"intercepted connections do not reach mitml4 in that network namespace: {failure}",
            hint="is its lo up, and does no rule there drop what goes over it?",
        )
    return None


async def _try(scope: Scope, guard: Guard, link: ProbeLink, *, ipv6: bool) -> str | None:
    """Load the rules for the probe's interface only, and connect. None, or why it failed."""
    trial = Scope(interfaces=(link.interface,), quic="allow")
    with _holding(guard.identity, trial) as (listener, channel):
        rules = _ruleset(trial, guard.identity, listener, ipv6=ipv6, is_trial=True)
        try:
            await guard.load(rules.text)
        except NftError as error:
            return error.message
        gate = SynGate(listener, channel)
        if scope.forwarded and (failure := await link.fails("forwarded", gate)):
            return f"forwarded, {failure}"
        if scope.local and (failure := await link.fails("local", gate)):
            return f"from this host, {failure}"
    return None


async def _try_owner(owner: Owner, owned: OwnedSockets, guard: Guard, link: ProbeLink) -> None:
    """Connect as a user or in a cgroup, and as another one. Raises MachineError unless the first
    is intercepted, and only that."""
    trial = Scope(interfaces=(link.interface,), direction="local", quic="allow", owners=(owner,))
    what = f"user {owner}" if isinstance(owner, int) else f"cgroup {owner}"
    with _holding(guard.identity, trial) as (listener, channel):
        rules = _ruleset(trial, guard.identity, listener, ipv6=True, is_trial=True)
        try:
            await guard.load(rules.text)
        except NftError as error:
            raise MachineError(
                f"nft cannot match connections of the {what}: {error.message}",
                hint="modprobe nft_socket (Linux 5.13), or --user NAME",
            ) from error
        if failure := await link.mistakes(owned, owner, SynGate(listener, channel)):
            raise MachineError(
                f"connections of the {what} cannot be told from others: {failure}",
                hint="--user NAME, or --iface NAME",
            )


def _remedy(rules: HostRules) -> str:
    """Name the input chains that drop by policy, and the rule that accepts our connections."""
    dropping = [chain.opening for chain in rules.inputs if chain.policy == "drop"]
    if not dropping:
        return (
            "look for a firewall rule that drops what comes in, or goes out over lo: mitml4 doctor"
        )
    return f"the input policy is drop; let in what mitml4 marks: {'; '.join(dropping)}"


def _names(chains: Iterable[Chain]) -> frozenset[str]:
    return frozenset(map(str, chains))


async def _rules_of_others() -> HostRules:
    """None of them if they cannot be read."""
    try:
        return await trio.to_thread.run_sync(HostRules.read)
    except MachineError:
        return HostRules("")


def _has_ipv6(scope: Scope, place: Place) -> bool:
    """Whether there is a global IPv6 address, and IPv6 on any of the interfaces."""
    if place is not HERE or not scope.interfaces:
        return has_global_v6(place)

    def has_it(interface: str) -> bool:
        return read_sysctl(f"net/ipv6/conf/{interface}/disable_ipv6") == "0"

    return any(map(has_it, scope.interfaces)) and has_it("lo") and _has_global_v6()


def _has_global_v6() -> bool:
    try:
        rows = [row.split() for row in _IF_INET6.read_text().splitlines()]
    except OSError:
        return False
    return any(row[3] == _GLOBAL_SCOPE for row in rows)


def _check_interfaces(scope: Scope) -> None:
    present = sorted(name for _, name in socket.if_nameindex() if name != "lo")
    for interface in scope.interfaces:
        if interface == "lo":
            raise UsageError(
                "connections to this host's own services are not intercepted, so lo has none",
                hint="mitml4 run --loopback -- COMMAND",
            )
        if vrf := vrf_of(interface):
            raise UsageError(
                f"{interface} belongs to the VRF {vrf}, where mitml4 cannot connect to servers",
                hint="an interface that belongs to no VRF",
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
    for name, capability in (
        ("CAP_NET_ADMIN", Capability.NET_ADMIN),
        ("CAP_NET_RAW", Capability.NET_RAW),
    ):
        if not capabilities.has(capability):
            raise MachineError(f"interception needs {name}", hint="run as root: sudo mitml4 …")
