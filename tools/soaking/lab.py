"""The three machines of `mitml4.lab`, connected by links that can lose, delay and reorder."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from mitml4.lab.network import LAN, WAN, LabNetwork
from mitml4.net.netns import NetNamespace

__all__ = ["CALM", "Lab", "Quality"]

_TUNSETIFF: Final = 0x400454CA  # linux/if_tun.h
_IFF_TAP_WITHOUT_HEADER: Final = 0x0002 | 0x1000
_TOOLS: Final = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How a link carries frames."""

    loss: float = 0.0
    """The share of frames that are lost."""
    delay_s: float = 0.0
    jitter_s: float = 0.0
    """A frame is delayed by up to so much more."""


CALM: Final = Quality()


def _open_tap(name: str) -> int:
    """In the calling thread's namespace."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(
        descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP_WITHOUT_HEADER)
    )
    return descriptor


_KEEPALIVE: Final = {"time": 5, "intvl": 2, "probes": 6}
"""Of the router: a peer whose last packet was lost is noticed within 20 seconds, and not two
hours."""


def _notice_vanished_peers() -> None:
    for name, value in _KEEPALIVE.items():
        Path(f"/proc/sys/net/ipv4/tcp_keepalive_{name}").write_text(str(value))


def _keep_addresses() -> None:
    """Those of IPv6, of interfaces that go down."""
    Path("/proc/sys/net/ipv6/conf/all/keep_addr_on_down").write_text("1")


class Lab(LabNetwork):
    """Close it, or use it as a context manager. It needs root, and /dev/net/tun."""

    def __init__(self, seed: int) -> None:
        self._undo_taps = ExitStack()
        self._taps: list[int] = []
        try:
            super().__init__(connect=self._connect)
            for namespace in (self.client, self.router, self.server):
                namespace.call(_keep_addresses)
            self.router.call(_notice_vanished_peers)
            self._link = self._start_wire(seed)
        except BaseException:
            self._undo_taps.close()
            raise

    def _connect(
        self, left: NetNamespace, left_name: str, right: NetNamespace, right_name: str
    ) -> None:
        for namespace, name in ((left, left_name), (right, right_name)):
            tap = namespace.call(partial(_open_tap, name))
            self._undo_taps.callback(os.close, tap)
            self._taps.append(tap)

    def _start_wire(self, seed: int) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "soaking.wire", str(seed), *map(str, self._taps)]
        process = subprocess.Popen(
            argv, cwd=_TOOLS, stdin=subprocess.PIPE, pass_fds=self._taps, start_new_session=True
        )
        self._undo_taps.callback(process.wait)
        self._undo_taps.callback(process.kill)
        return process

    def set_quality(self, quality: Quality) -> None:
        """Of both links, in both directions."""
        assert self._link.stdin is not None
        self._link.stdin.write(json.dumps(asdict(quality)).encode() + b"\n")
        self._link.stdin.flush()

    def set_link(self, interface: str, *, up: bool) -> None:
        """One of the router's."""
        self.router.run("ip", "link", "set", interface, "up" if up else "down")

    def set_mtu(self, size: int) -> None:
        """Of the link between router and server, at both ends."""
        self.router.run("ip", "link", "set", WAN, "mtu", str(size))
        self.server.run("ip", "link", "set", "eth0", "mtu", str(size))

    def mend(self) -> None:
        """As it was in the beginning."""
        self.set_quality(CALM)
        self.set_mtu(1500)
        for interface in (LAN, WAN):
            self.set_link(interface, up=True)

    def close(self) -> None:
        self._undo_taps.close()
        super().close()
