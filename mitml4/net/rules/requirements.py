"""What interception needs of the machine and of the interfaces, as far as it can be found without
changing anything."""

from __future__ import annotations

import socket

from mitml4.errors import MachineError, UsageError
from mitml4.net import capabilities
from mitml4.net.capabilities import Capability
from mitml4.net.links import has_global_v6, vrf_of
from mitml4.net.place import HERE, Place
from mitml4.net.rules.scope import Scope
from mitml4.net.sysctl import read_sysctl
from mitml4.net.tools import check_tools

__all__ = ["check", "check_interfaces", "has_ipv6"]


def check(scope: Scope, place: Place = HERE) -> None:
    """Raises UsageError or MachineError for problems that can be found without changing
    anything."""
    if place is HERE:
        check_interfaces(scope)
        _check_privilege()
    check_tools()


def has_ipv6(scope: Scope, place: Place) -> bool:
    """Whether there is a global IPv6 address, and IPv6 on any of the interfaces."""

    def has_it(interface: str) -> bool:
        return read_sysctl(f"net/ipv6/conf/{interface}/disable_ipv6") == "0"

    is_on = place is not HERE or not scope.interfaces
    is_on = is_on or (any(map(has_it, scope.interfaces)) and has_it("lo"))
    return is_on and has_global_v6(place)


def check_interfaces(scope: Scope) -> None:
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
            raise MachineError(
                f"interception needs {name}", hint=capabilities.missing_capability_hint(image="…")
            )
