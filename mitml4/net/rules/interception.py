"""Set up a session's rules, test them, and remove them.

`preparing` starts the guard that owns the table (guard.py), and sends test connections (probe.py)
through rules for a separate interface. `intercepting` then creates the listener, and the gate
that holds connections, and loads the rules.
"""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from functools import partial
from typing import Final

import trio

from mitml4.dataclass import dataclass
from mitml4.errors import MachineError
from mitml4.net.firewall.chains import Chain
from mitml4.net.firewall.host_rules import HostRules
from mitml4.net.gate.gate import SynGate
from mitml4.net.gate.nflog import open_log
from mitml4.net.gate.quic import COPY_BYTES
from mitml4.net.identity import Identity
from mitml4.net.links import Change, LinkWatch
from mitml4.net.listener import Listener
from mitml4.net.place import HERE, Place
from mitml4.net.rules.arrival import arrives
from mitml4.net.rules.cgroups import CgroupWatch
from mitml4.net.rules.channel import HostChannel, holding
from mitml4.net.rules.guard import Guard, GuardLostError, NftError
from mitml4.net.rules.notes import belongs, drops_sent, notes_on, remedy_for
from mitml4.net.rules.owned import OwnedSockets
from mitml4.net.rules.requirements import check, check_interfaces, has_ipv6
from mitml4.net.rules.ruleset import Ruleset
from mitml4.net.rules.scope import Cgroup, Scope
from mitml4.net.rules.trial_connections import rules_of_others, try_connections, try_inside
from mitml4.net.rules.watch import RulesWatch
from mitml4.tasks import both

__all__ = [
    "Interception",
    "Preparation",
    "intercepting",
    "plan",
    "preparing",
]

_SHOWN_PORT: Final = 40000
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

        If the guard has ended there are no rules, and nothing is done. Raises NftError.
        """
        with suppress(GuardLostError):
            await self._guard.tell(self._rules.stop_interception)

    async def resume_intercepting(self) -> None:
        """Intercept new connections again. Raises NftError."""
        with suppress(GuardLostError):
            await self._guard.tell(self._rules.resume_interception)

    async def outlive(self, pid: int) -> None:
        """Where this process is killed, keep the rules until that one has ended too."""
        await self._guard.outlive(pid)

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
        return remedy_for(await self._chains_of_others())

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
            with suppress(GuardLostError, NftError):
                answer = await self._guard.tell(self._rules.count_quic)
                found = re.search(r"packets (\d+)", answer)
                assert found is not None, answer
                self._quic_blocked = int(found[1])
        return self._quic_blocked


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
        ipv6 = has_ipv6(scope, place)
        rules = HostRules("")
        if place is HERE:
            untested, rules = await both(
                partial(try_connections, scope, guard, owned, ipv6=ipv6), rules_of_others
            )
        else:
            untested = await try_inside(guard, place)
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
        holding(guard.identity, scope, place) as (listener, channel),
        ExitStack() as more,
    ):
        rules = Ruleset(
            scope=scope,
            identity=guard.identity,
            port=listener.address.port,
            ipv6=preparation.ipv6,
            indexes=links.indexes,
        )
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
        check_interfaces(scope)
    identity = next(Identity.candidates())
    ipv6 = has_ipv6(scope, place)
    rules = Ruleset(scope=scope, identity=identity, port=_SHOWN_PORT, ipv6=ipv6)
    return (
        "# nft -i, whose end is the end of this table, and which ends when mitml4 does",
        *rules.text.splitlines(),
        f"# undo: none is needed; by hand: nft delete table inet {identity.table}",
    )


def _quic_log(identity: Identity, place: Place) -> socket.socket:
    try:
        return open_log(identity.quic_group, copy_bytes=COPY_BYTES, place=place)
    except OSError as error:
        raise MachineError(
            f"the kernel cannot log datagrams: {error.strerror}",
            hint="modprobe nfnetlink_log, or add --quic allow",
        ) from error


def _names(chains: Iterable[Chain]) -> frozenset[str]:
    return frozenset(map(str, chains))
