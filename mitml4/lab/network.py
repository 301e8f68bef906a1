"""Three connected machines, made of anonymous network namespaces.

    client ──────────── lan ┤ router ├ wan ──────────── server
    192.0.2.2      192.0.2.1          198.51.100.1      198.51.100.2
    2001:db8:1::2  2001:db8:1::1      2001:db8:2::1     2001:db8:2::2

The addresses are reserved for documentation (RFC 5737, RFC 3849), so none belongs to a real host.
The router forwards; mitml4 runs in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, Self, TypeAlias

from mitml4.net.netns import NetNamespace, connect_with_veth

__all__ = [
    "CLIENT_V4",
    "CLIENT_V6",
    "LAN",
    "ROUTER_LAN_V4",
    "ROUTER_LAN_V6",
    "ROUTER_WAN_V4",
    "ROUTER_WAN_V6",
    "SERVER_V4",
    "SERVER_V6",
    "WAN",
    "LabNetwork",
]

LAN: Final = "lan"
"""The router's interface towards the client."""
WAN: Final = "wan"
"""The router's interface towards the server."""

CLIENT_V4: Final = "192.0.2.2"
CLIENT_V6: Final = "2001:db8:1::2"
ROUTER_LAN_V4: Final = "192.0.2.1"
ROUTER_LAN_V6: Final = "2001:db8:1::1"
ROUTER_WAN_V4: Final = "198.51.100.1"
ROUTER_WAN_V6: Final = "2001:db8:2::1"
SERVER_V4: Final = "198.51.100.2"
SERVER_V6: Final = "2001:db8:2::2"

_UPLINK: Final = "eth0"

Connect: TypeAlias = Callable[[NetNamespace, str, NetNamespace, str], None]
"""Connects two namespaces by interfaces of these names, both down, without addresses."""

_SETUP_TIMEOUT_S: Final = 5.0
_IF_INET6: Final = Path("/proc/thread-self/net/if_inet6")
"""One line each: address, interface index, prefix length, scope, flags (in hex), interface."""
_SCOPE_LINK: Final = 0x20  # net/ipv6.h: IPV6_ADDR_LINKLOCAL
_IFA_F_TENTATIVE: Final = 0x40  # linux/if_addr.h


class LabNetwork:
    """The three namespaces, up and routed. Close it, or use it as a context manager."""

    def __init__(self, connect: Connect = connect_with_veth) -> None:
        """Create it, with an `ip` call or two per namespace. Raises MachineError without
        CAP_SYS_ADMIN."""
        with ExitStack() as undo:
            self.client = undo.enter_context(NetNamespace())
            self.router = undo.enter_context(NetNamespace())
            self.server = undo.enter_context(NetNamespace())
            self._wire(connect)
            self._undo = undo.pop_all()

    def _wire(self, connect: Connect) -> None:
        for namespace in (self.client, self.router, self.server):
            namespace.call(_expect_no_duplicates)
        connect(self.router, LAN, self.client, _UPLINK)
        connect(self.router, WAN, self.server, _UPLINK)
        _batch(
            self.router,
            _addresses(LAN, ROUTER_LAN_V4, ROUTER_LAN_V6),
            _addresses(WAN, ROUTER_WAN_V4, ROUTER_WAN_V6),
        )
        _batch(
            self.client,
            _addresses(_UPLINK, CLIENT_V4, CLIENT_V6),
            _default_routes(ROUTER_LAN_V4, ROUTER_LAN_V6),
        )
        _batch(
            self.server,
            _addresses(_UPLINK, SERVER_V4, SERVER_V6),
            _default_routes(ROUTER_WAN_V4, ROUTER_WAN_V6),
        )
        self.router.call(_forward)
        self.router.call(partial(_wait_until_ready, LAN, WAN))
        for namespace in (self.client, self.server):
            namespace.call(partial(_wait_until_ready, _UPLINK))

    def close(self) -> None:
        """Release the namespaces; a process that still runs inside keeps its namespace alive."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _batch(namespace: NetNamespace, *commands: str) -> None:
    """Run commands of `ip` in one process, once loopback is up."""
    namespace.run("ip", "-batch", "-", input="".join(("link set lo up\n", *commands)))


def _addresses(interface: str, v4: str, v6: str) -> str:
    """Bring an interface up with a /24 and a /64."""
    return (
        f"address add {v4}/24 dev {interface}\naddress add {v6}/64 dev {interface} nodad\n"
        f"link set {interface} up\n"
    )


def _default_routes(v4: str, v6: str) -> str:
    return f"route add default via {v4}\nroute add default via {v6}\n"


def _expect_no_duplicates() -> None:
    """Make addresses usable at once. Duplicate address detection would delay IPv6 for two seconds:
    the router cannot send neighbour solicitations before it has checked its link-local address."""
    _set("ipv6/conf/default/accept_dad", "0")


def _wait_until_ready(*interfaces: str) -> None:
    """Wait until the kernel has finished with new interfaces: routes lose their flag `linkdown`, a
    link-local address appears, and then its routes.

    Otherwise the machine's state would still change while a test checks whether mitml4 changes it.
    """
    deadline = time.monotonic() + _SETUP_TIMEOUT_S
    while not _are_ready(interfaces) and time.monotonic() < deadline:
        time.sleep(0.01)


def _are_ready(interfaces: Sequence[str]) -> bool:
    rows = [row.split() for row in _IF_INET6.read_text().splitlines()]
    with_link_local = {row[5] for row in rows if int(row[3], 16) == _SCOPE_LINK}
    tentative = any(int(row[4], 16) & _IFA_F_TENTATIVE for row in rows)
    return with_link_local.issuperset(interfaces) and not tentative


def _forward() -> None:
    _set("ipv4/ip_forward", "1")
    _set("ipv6/conf/all/forwarding", "1")


def _set(name: str, value: str) -> None:
    """Set a sysctl of the calling thread's network namespace, which /proc/sys/net shows."""
    Path("/proc/sys/net", name).write_text(value)
