"""A connection of the session's own, through the rules, before a real one is touched.

A network namespace that nobody sees plays the client. A pair of virtual interfaces joins it to the
host; while the probe lasts, the rules cover that interface and nothing else. What it proves is
this host: its kernel, its firewall, its reverse path filter. The namespace is held by descriptors
of this process alone, so it vanishes with us, and its interfaces with it.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, Literal, TypeAlias

import trio

from mitml4.address import Address
from mitml4.errors import MachineError
from mitml4.net.gate.gate import SynGate
from mitml4.net.identity import Identity
from mitml4.net.netns import NetNamespace
from mitml4.net.sysctl import write_sysctl
from mitml4.net.tools import run, run_ip

__all__ = ["CannotProbeError", "ProbeLink", "probe_interface", "probe_link"]

Origin: TypeAlias = Literal["forwarded", "local"]
Network: TypeAlias = IPv4Network | IPv6Network

# Addresses that no network routes: for benchmarks (RFC 2544), then for documentation (RFC 5737,
# RFC 3849); a unique local prefix (RFC 4193). The first that this host has no route into is taken.
_POOLS_V4: Final = ("198.18.{}.0/28", "198.19.{}.0/28", "203.0.113.64/28", "192.0.2.64/28")
_POOLS_V6: Final = ("fd4d:346d:6974:{:x}::/64", "2001:db8:4d34:{:x}::/64")
_HOST, _CLIENT, _TARGET = 1, 2, 9
_MACS: Final = {_HOST: "02:4d:34:00:00:01", _CLIENT: "02:4d:34:00:00:02"}

# A handshake on this host takes well under a millisecond. The first SYN may be lost all the same,
# until the pair's carrier is noticed, and TCP would send the second only a second later. The last
# attempt is for a machine that is very busy: only where connections never arrive is it waited for.
_ATTEMPTS_S: Final = (0.05, 0.15, 0.4, 1.0)

_TARGET_PORT: Final = 443
_INSIDE: Final = "probe"


class CannotProbeError(MachineError):
    """No namespace, or no virtual interfaces: nothing is proven, neither way."""


@dataclass(frozen=True, slots=True)
class ProbeLink:
    """The joined namespace: `interface` is the host's end of the pair."""

    interface: str
    namespace: NetNamespace
    targets: tuple[str, ...]
    """One address for each IP version, which leads nowhere."""

    async def fails(self, origin: Origin, gate: SynGate) -> str | None:
        """None when connections come in through the gate; or why not, within two seconds.

        Raises CannotProbeError where the policy routes of others lead them away from the pair.
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
        reason: str | None = "its first packet did not arrive"
        with trio.socket.from_stdlib_socket(made) as client, trio.move_on_after(timeout_s):
            await client.bind(("", 0))
            port = client.getsockname()[1]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(gate.run)
                nursery.start_soon(_connect, client, target)
                connection = await gate.accept()
                while connection.client.port != port:  # that of a former attempt
                    connection = await gate.accept()
                reason = f"it arrived, but for {connection.destination}"
                if connection.destination == target:
                    reason = "its first packet arrived, and nothing more"
                    (await connection.accept()).abort()
                    reason = None
                nursery.cancel_scope.cancel()
        return reason

    def _client(self, origin: Origin, target: Address) -> socket.socket:
        family = socket.AF_INET6 if target.is_v6 else socket.AF_INET
        if origin == "forwarded":
            return self.namespace.socket(family)
        return socket.socket(family, socket.SOCK_STREAM)


async def _connect(client: trio.socket.SocketType, target: Address) -> None:
    with suppress(OSError):  # that it does not arrive says as much
        await client.connect((target.ip, target.port))


def probe_interface(identity: Identity) -> str:
    """What the host's end of the pair is called."""
    return f"{identity.table}p"


@asynccontextmanager
async def probe_link(identity: Identity, *, ipv6: bool) -> AsyncIterator[ProbeLink]:
    """Make the namespace and the pair, and remove them. Raises MachineError."""
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
            await run_ip(batch=_furniture(interface, networks, _HOST, _CLIENT))
            await trio.to_thread.run_sync(_furnish, namespace, networks)
        except (MachineError, OSError) as error:
            raise CannotProbeError(str(error)) from error
        yield ProbeLink(interface, namespace, tuple(str(net[_TARGET]) for net in networks))


async def _remove(interface: str) -> None:
    with trio.CancelScope(shield=True):
        await run_ip("-force", batch=f"link del {interface}\n")


async def _free_network(pool: Sequence[str]) -> Network:
    """The first network of a pool that no route of this host leads into, except the default."""
    for text in pool:
        network = ip_network(text)
        try:
            found = await run_ip("-j", "route", "get", "fibmatch", str(network[_TARGET]))
        except MachineError:  # unreachable
            return network
        if '"dst":"default"' in found:
            return network
    raise MachineError("no address range is free for the session's test connection")


def _pair(interface: str, namespace: NetNamespace) -> str:
    return (
        f"link add {interface} address {_MACS[_HOST]} type veth"
        f" peer name {_INSIDE} address {_MACS[_CLIENT]} netns {namespace.path}\n"
    )


def _enable_ipv6(interface: str) -> None:
    """Where new interfaces are born without IPv6. The setting vanishes with the interface."""
    write_sysctl(f"net/ipv6/conf/{interface}/disable_ipv6", "0")


def _furniture(interface: str, networks: Sequence[Network], own: int, other: int) -> str:
    """What `ip` must do at one end. Neighbours are entered by hand, and no link-local address is
    made: so there is nothing to wait for (duplicate detection takes two seconds)."""
    lines = [f"link set {interface} addrgenmode none"]
    for net in networks:
        nodad = " nodad" if net.version == 6 else ""
        lines.append(f"addr add {net[own]}/{net.prefixlen} dev {interface}{nodad}")
    lines.append(f"link set {interface} up")
    lines += [f"neigh add {net[other]} lladdr {_MACS[other]} dev {interface}" for net in networks]
    return "".join(f"{line}\n" for line in lines)


def _furnish(namespace: NetNamespace, networks: Sequence[Network]) -> None:
    """The client's end, whose way to the targets leads through the host."""
    batch = _furniture(_INSIDE, networks, _CLIENT, _HOST) + "".join(
        f"route add {net[_TARGET]} via {net[_HOST]} dev {_INSIDE}\n" for net in networks
    )
    namespace.call(partial(run, "ip", "-batch", "-", given=batch))
