"""Three machines in a row, made of anonymous network namespaces.

    client ──────────── lan ┤ router ├ wan ──────────── server
    192.0.2.2      192.0.2.1          198.51.100.1      198.51.100.2
    2001:db8:1::2  2001:db8:1::1      2001:db8:2::1     2001:db8:2::2

The addresses are those that documentation may use (RFC 5737, RFC 3849), so nothing here can be
mistaken for a place in the world. The router forwards; mitml4 is started in it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, Self

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

_SETTLED_WITHIN_S: Final = 5.0
_IF_INET6: Final = Path("/proc/thread-self/net/if_inet6")
"""A line each: address, interface's index, prefix length, scope, flags (in hex), interface."""
_SCOPE_LINK: Final = 0x20  # net/ipv6.h: IPV6_ADDR_LINKLOCAL
_IFA_F_TENTATIVE: Final = 0x40  # linux/if_addr.h


class LabNetwork:
    """The three namespaces, up and routed. Close it, or use it as a context manager."""

    def __init__(self) -> None:
        """Build it; a few `ip` calls each. Raises MachineError without CAP_SYS_ADMIN."""
        with ExitStack() as undo:
            self.client = undo.enter_context(NetNamespace())
            self.router = undo.enter_context(NetNamespace())
            self.server = undo.enter_context(NetNamespace())
            self._wire()
            self._undo = undo.pop_all()

    def _wire(self) -> None:
        for namespace in (self.client, self.router, self.server):
            namespace.call(_expect_no_duplicates)
            namespace.run("ip", "link", "set", "lo", "up")
        connect_with_veth(self.router, LAN, self.client, _UPLINK)
        connect_with_veth(self.router, WAN, self.server, _UPLINK)
        _address(self.router, LAN, ROUTER_LAN_V4, ROUTER_LAN_V6)
        _address(self.router, WAN, ROUTER_WAN_V4, ROUTER_WAN_V6)
        _address(self.client, _UPLINK, CLIENT_V4, CLIENT_V6)
        _address(self.server, _UPLINK, SERVER_V4, SERVER_V6)
        _default_route(self.client, ROUTER_LAN_V4, ROUTER_LAN_V6)
        _default_route(self.server, ROUTER_WAN_V4, ROUTER_WAN_V6)
        self.router.call(_forward)
        self.router.call(partial(_settle, LAN, WAN))
        for namespace in (self.client, self.server):
            namespace.call(partial(_settle, _UPLINK))

    def close(self) -> None:
        """Let go of the namespaces; what still runs inside keeps its own alive."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _address(namespace: NetNamespace, interface: str, v4: str, v6: str) -> None:
    """Bring an interface up with a /24 and a /64."""
    namespace.run("ip", "address", "add", f"{v4}/24", "dev", interface)
    namespace.run("ip", "address", "add", f"{v6}/64", "dev", interface, "nodad")
    namespace.run("ip", "link", "set", interface, "up")


def _default_route(namespace: NetNamespace, v4: str, v6: str) -> None:
    namespace.run("ip", "route", "add", "default", "via", v4)
    namespace.run("ip", "-6", "route", "add", "default", "via", v6)


def _expect_no_duplicates() -> None:
    """Addresses are usable at once. Duplicate detection would hold IPv6 up for two seconds: the
    router cannot ask for a neighbour before its link-local address is through with it."""
    _set("ipv6/conf/default/accept_dad", "0")


def _settle(*interfaces: str) -> None:
    """Wait for the last things that the kernel does with a new interface, in its own time: routes
    lose their mark `linkdown`, a link-local address comes, and at its end its routes.

    Else the machine still changes of itself while somebody watches whether mitml4 changes it.
    """
    deadline = time.monotonic() + _SETTLED_WITHIN_S
    while not _are_settled(interfaces) and time.monotonic() < deadline:
        time.sleep(0.01)


def _are_settled(interfaces: Sequence[str]) -> bool:
    rows = [row.split() for row in _IF_INET6.read_text().splitlines()]
    with_link_local = {row[5] for row in rows if int(row[3], 16) == _SCOPE_LINK}
    tentative = any(int(row[4], 16) & _IFA_F_TENTATIVE for row in rows)
    return with_link_local.issuperset(interfaces) and not tentative


def _forward() -> None:
    _set("ipv4/ip_forward", "1")
    _set("ipv6/conf/all/forwarding", "1")


def _set(name: str, value: str) -> None:
    """Set a sysctl of the calling thread's namespace, which is the one /proc/sys/net shows."""
    Path("/proc/sys/net", name).write_text(value)
