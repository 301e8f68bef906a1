"""Connections that test the rules of a session before they apply to any other connection."""

from __future__ import annotations

import trio

from mitml4.errors import MachineError
from mitml4.net.firewall.host_rules import HostRules
from mitml4.net.gate.gate import SynGate
from mitml4.net.identity import Identity
from mitml4.net.links import loopback_is_up
from mitml4.net.listener import Listener
from mitml4.net.place import HERE, Place
from mitml4.net.rules.channel import holding
from mitml4.net.rules.guard import Guard, NftError
from mitml4.net.rules.notes import remedy_for
from mitml4.net.rules.owned import OwnedSockets
from mitml4.net.rules.probe import CannotProbeError, InnerProbe, ProbeLink, probe_link
from mitml4.net.rules.ruleset import Ruleset
from mitml4.net.rules.scope import Cgroup, Owner, Scope

__all__ = ["rules_of_others", "try_connections", "try_inside"]


async def try_connections(
    scope: Scope, guard: Guard, owned: OwnedSockets | None, *, ipv6: bool
) -> str | None:
    """Test the rules with connections. Returns why that is impossible, if it is.

    Raises MachineError if no connection arrives, or if cgroups are in scope and it is impossible: a
    rule for a cgroup may load and match nothing.
    """
    try:
        async with probe_link(guard.identity, ipv6=ipv6) as link:
            failure = await _try(scope, guard, link, ipv6=ipv6)
            if owned and failure is None:
                for owner in scope.owners:
                    await _try_owner(owner, owned, guard, link)
    except CannotProbeError as error:
        untested = f"the rules could not be tested: {error.message}"
        if cgroup := next((each for each in scope.owners if isinstance(each, Cgroup)), None):
            raise MachineError(
                f"{untested}; so connections of the cgroup {cgroup} may not be told from others",
                hint="run as root: sudo mitml4 …; or --user NAME, which needs no test",
            ) from error
        return untested
    if failure is not None:
        raise MachineError(
            f"intercepted connections do not reach mitml4: {failure}",
            hint=await _remedy(),
        )
    return None


async def try_inside(guard: Guard, place: Place) -> str | None:
    """The same in another network namespace, where nothing is set up for it: the connection goes to
    an address that nobody has, and rules cover only that."""
    probe = InnerProbe(place)
    trial = Scope(to=probe.networks, quic="allow")
    with holding(guard.identity, trial, place) as (listener, channel):
        rules = _trial_rules(trial, guard.identity, listener, ipv6=True)
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
            hint=_remedy_inside(place),
        )
    return None


async def _try(scope: Scope, guard: Guard, link: ProbeLink, *, ipv6: bool) -> str | None:
    """Load the rules for the probe's interface only, and connect. None, or why it failed."""
    trial = Scope(interfaces=(link.interface,), quic="allow")
    with holding(guard.identity, trial) as (listener, channel):
        rules = _trial_rules(trial, guard.identity, listener, ipv6=ipv6)
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
    with holding(guard.identity, trial) as (listener, channel):
        rules = _trial_rules(trial, guard.identity, listener, ipv6=True)
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


async def _remedy() -> str:
    if not loopback_is_up(HERE):
        return "lo is down, and they arrive over it: ip link set lo up"
    return remedy_for(await rules_of_others())


def _remedy_inside(place: Place) -> str:
    if not loopback_is_up(place):
        return "lo is down in it, and they arrive over it; run there: ip link set lo up"
    return "look for a rule that drops what goes over lo; run there: nft list ruleset"


def _trial_rules(scope: Scope, identity: Identity, listener: Listener, *, ipv6: bool) -> Ruleset:
    port = listener.address.port
    return Ruleset(scope=scope, identity=identity, port=port, ipv6=ipv6, is_trial=True)


async def rules_of_others() -> HostRules:
    """None of them if they cannot be read."""
    try:
        return await trio.to_thread.run_sync(HostRules.read)
    except MachineError:
        return HostRules("")
