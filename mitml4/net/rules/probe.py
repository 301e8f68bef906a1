"""A test connection through the rules, before a real one is intercepted.

The client is in an anonymous network namespace, which a pair of virtual interfaces connects to the
host. During the test, the rules cover only that interface. The test covers this host's kernel,
firewall and reverse path filter. Only descriptors of this process hold the namespace, so it
disappears with us, and its interfaces with it.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, Literal, TypeAlias

import trio

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.errors import MachineError
from mitml4.net.dial import source_towards
from mitml4.net.gate.gate import SynGate
from mitml4.net.identity import Identity
from mitml4.net.netns import NetNamespace
from mitml4.net.place import Place
from mitml4.net.rules.owned import OwnedSockets
from mitml4.net.rules.scope import Owner
from mitml4.net.sysctl import write_sysctl
from mitml4.net.tools import run, run_ip

__all__ = ["CannotProbeError", "InnerProbe", "ProbeLink", "probe_interface", "probe_link"]

Origin: TypeAlias = Literal["forwarded", "local"]
Network: TypeAlias = IPv4Network | IPv6Network

# Addresses that no network routes: for benchmarks (RFC 2544), then for documentation (RFC 5737, RFC
# 3849); a unique local prefix (RFC 4193). The first without a route on this host is used.
_POOLS_V4: Final = ("198.18.{}.0/28", "198.19.{}.0/28", "203.0.113.64/28", "192.0.2.64/28")
_POOLS_V6: Final = ("fd4d:346d:6974:{:x}::/64", "2001:db8:4d34:{:x}::/64")
_HOST, _CLIENT, _TARGET = 1, 2, 9
_MACS: Final = {_HOST: "02:4d:34:00:00:01", _CLIENT: "02:4d:34:00:00:02"}

# A handshake on this host takes well under a millisecond. But the first SYN may be lost until the
# pair's carrier is detected, and TCP would retransmit only after a second. The last attempt is for
# a very busy machine; it takes its full time only if connections never arrive.
_ATTEMPTS_S: Final = (0.05, 0.15, 0.4, 1.0)

_TARGET_PORT: Final = 443
_INSIDE: Final = "probe"


class CannotProbeError(MachineError):
    """There is no namespace, or no virtual interface: the test is impossible."""


@dataclass(frozen=True, slots=True)
class ProbeLink:
    """The connected namespace: `interface` is the host's end of the pair."""

    interface: str
    namespace: NetNamespace
    targets: tuple[str, ...]
    """One address for each IP version, without a host."""

    async def fails(self, origin: Origin, gate: SynGate) -> str | None:
        """None if connections arrive through the gate; otherwise the reason, within two seconds.

        Raises CannotProbeError if policy routes of others route them away from the pair.
        """
        for ip in self.targets:
            target = Address(ip, _TARGET_PORT)
            reason: str | None = None
            for timeout_s in _ATTEMPTS_S:
                reason = await self._try(origin, target, gate, timeout_s)
                if reason is None:
                    break
            else:
                if f"dev {self.interface} " not in await run_ip("route", "get", ip):
                    raise CannotProbeError(f"{ip} is routed elsewhere, by the policy rules")
                return f"IPv{6 if target.is_v6 else 4}: {reason}"
        return None

    async def _try(
        self, origin: Origin, target: Address, gate: SynGate, timeout_s: float
    ) -> str | None:
        made = await trio.to_thread.run_sync(self._client, origin, target)
        return await _fails(made, target, gate, timeout_s)

    async def mistakes(self, owned: OwnedSockets, owner: Owner, gate: SynGate) -> str | None:
        """None if a connection of an owner arrives through the gate, and one of another does not;
        otherwise the reason, within two seconds."""
        target = Address(self.targets[0], _TARGET_PORT)
        reason: str | None = None
        for timeout_s in _ATTEMPTS_S:
            if (pair := owned.take(owner)) is None:
                break
            inside, other = pair
            with other:
                # It comes first, so when the second has arrived, it does not come.
                other.setblocking(False)
                with suppress(OSError):
                    other.connect((target.ip, target.port))
                stranger = other.getsockname()[1]
                reason = await _fails(inside, target, gate, timeout_s, unexpected=stranger)
            if reason is None:
                return None
        return reason

    def _client(self, origin: Origin, target: Address) -> socket.socket:
        family = socket.AF_INET6 if target.is_v6 else socket.AF_INET
        if origin == "forwarded":
            return self.namespace.socket(family)
        return socket.socket(family, socket.SOCK_STREAM)


class InnerProbe:
    """A test connection that is started in another network namespace, over its own routes."""

    targets: Final = (
        Address("198.18.52.77", _TARGET_PORT),
        Address("2001:db8:4d34::9", _TARGET_PORT),
    )

    def __init__(self, place: Place) -> None:
        self._place = place
        self.networks: tuple[Network, ...] = tuple(ip_network(each.ip) for each in self.targets)

    async def fails(self, _origin: Origin, gate: SynGate) -> str | None:
        """None if connections arrive through the gate; otherwise the reason, within two seconds.

        Raises CannotProbeError if there is no route out of the namespace.
        """
        routed = [target for target in self.targets if self._has_route(target)]
        if not routed:
            raise CannotProbeError(
                "the network has no route to the outside, so there is nothing to intercept"
            )
        for target in routed:
            family = socket.AF_INET6 if target.is_v6 else socket.AF_INET
            for timeout_s in _ATTEMPTS_S:
                client = self._place.socket(family, socket.SOCK_STREAM)
                reason = await _fails(client, target, gate, timeout_s)
                if reason is None:
                    break
            else:
                return f"IPv{6 if target.is_v6 else 4}: {reason}"
        return None

    def _has_route(self, target: Address) -> bool:
        with suppress(OSError):
            return bool(source_towards(target, place=self._place))
        return False


async def _fails(
    made: socket.socket,
    target: Address,
    gate: SynGate,
    timeout_s: float,
    unexpected: int | None = None,
) -> str | None:
    """Connect with a socket; None, or why that does not come through the gate: also if another
    does, from the port `unexpected`."""
    reason: str | None = "its first packet did not arrive"
    with trio.socket.from_stdlib_socket(made) as client, trio.move_on_after(timeout_s):
        await client.bind(("", 0))
        port = client.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gate.run)
            nursery.start_soon(_connect, client, target)
            connection = await gate.accept()
            while connection.client.port not in (port, unexpected):  # that of an earlier attempt
                connection = await gate.accept()
            reason = f"it arrived, but for {connection.destination}"
            if connection.client.port == unexpected:
                reason = "others are intercepted, too"
            elif connection.destination == target:
                reason = "its first packet arrived, and nothing more"
                (await connection.accept()).abort()
                reason = None
            nursery.cancel_scope.cancel()
    return reason


async def _connect(client: trio.socket.SocketType, target: Address) -> None:
    with suppress(OSError):  # that it does not arrive is the result
        await client.connect((target.ip, target.port))


def probe_interface(identity: Identity) -> str:
    """The name of the host's end of the pair."""
    return f"{identity.table}p"


@asynccontextmanager
async def probe_link(identity: Identity, *, ipv6: bool) -> AsyncIterator[ProbeLink]:
    """Create the namespace and the pair, and remove them. Raises MachineError."""
    interface = probe_interface(identity)
    pools = (_POOLS_V4, _POOLS_V6) if ipv6 else (_POOLS_V4,)
    networks = [await _free_network([text.format(identity.slot) for text in p]) for p in pools]
    async with AsyncExitStack() as undo:
        try:
            namespace = undo.enter_context(await trio.to_thread.run_sync(NetNamespace))
            undo.push_async_callback(_remove, interface)
            await run_ip(batch=_pair(interface, namespace))
            if ipv6:
                _enable_ipv6(interface)
            await run_ip(batch=_ip_commands(interface, networks, _HOST, _CLIENT))
            await trio.to_thread.run_sync(_configure_client, namespace, networks)
        except (MachineError, OSError) as error:
            raise CannotProbeError(str(error)) from error
        yield ProbeLink(interface, namespace, tuple(str(net[_TARGET]) for net in networks))


async def _remove(interface: str) -> None:
    with trio.CancelScope(shield=True):
        await run_ip("-force", batch=f"link del {interface}\n")


async def _free_network(pool: Sequence[str]) -> Network:
    """The first network of a pool without a route on this host, except the default route."""
    for text in pool:
        network = ip_network(text)
        try:
            found = await run_ip("-j", "route", "get", "fibmatch", str(network[_TARGET]))
        except MachineError:  # unreachable
            return network
        if '"dst":"default"' in found:
            return network
    raise MachineError(
        "no address range is free for the session's test connection", hint="ip route show table all"
    )


def _pair(interface: str, namespace: NetNamespace) -> str:
    return (
        f"link add {interface} address {_MACS[_HOST]} type veth"
        f" peer name {_INSIDE} address {_MACS[_CLIENT]} netns {namespace.path}\n"
    )


def _enable_ipv6(interface: str) -> None:
    """Enable IPv6 where new interfaces do not have it. The setting is removed with the
    interface."""
    write_sysctl(f"net/ipv6/conf/{interface}/disable_ipv6", "0")


def _ip_commands(interface: str, networks: Sequence[Network], own: int, other: int) -> str:
    """The `ip` commands for one end. Neighbours are entered statically, and there is no link-local
    address, so there is nothing to wait for (duplicate address detection takes two seconds)."""
    lines = [f"link set {interface} addrgenmode none"]
    for net in networks:
        nodad = " nodad" if net.version == 6 else ""
        lines.append(f"addr add {net[own]}/{net.prefixlen} dev {interface}{nodad}")
    lines.append(f"link set {interface} up")
    lines += [f"neigh add {net[other]} lladdr {_MACS[other]} dev {interface}" for net in networks]
    return "".join(f"{line}\n" for line in lines)


def _configure_client(namespace: NetNamespace, networks: Sequence[Network]) -> None:
    """Configure the client's end, which reaches the targets through the host."""
    batch = _ip_commands(_INSIDE, networks, _CLIENT, _HOST) + "".join(
        f"route add {net[_TARGET]} via {net[_HOST]} dev {_INSIDE}\n" for net in networks
    )
    namespace.call(partial(run, "ip", "-batch", "-", given=batch))
