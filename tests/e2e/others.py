"""What others do in the router, and what a connection comes to."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from mitml4.lab.network import SERVER_V4, SERVER_V6
from mitml4.net.netns import NetNamespace
from mitml4.net.sysctl import write_sysctl
from tests.e2e.conftest import SLOW_S, TIMEOUT_S

PORT, ALSO_OPEN, CLOSED = 7001, 7002, 9
SHORT_S = 0.7
"""How long one waits for what is dropped."""
NOBODY = 65534

CONNECT = """
import errno, socket, sys
from concurrent.futures import ThreadPoolExecutor

port, timeout_s, ttl, *addresses = sys.argv[1:]

def outcome(address):
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    sock.settimeout(float(timeout_s))
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, int(ttl))
    else:
        sock.setsockopt(socket.SOL_IP, socket.IP_TTL, int(ttl))
    try:
        sock.connect((address, int(port)))
        sock.sendall(b"\\xc0\\xffhello")
        heard = b""
        while len(heard) < 7 and (more := sock.recv(7)):  # MSG_WAITALL would not wait
            heard += more
        return "echo" if heard == b"\\xc0\\xffhello" else "nothing"
    except OSError as error:
        return errno.errorcode.get(error.errno, "TIMEOUT")

with ThreadPoolExecutor() as workers:
    print(*workers.map(outcome, addresses))
"""
BOTH = (SERVER_V4, SERVER_V6)


@dataclass
class Router:
    """What others do in it, until the end of the test."""

    namespace: NetNamespace
    undo: ExitStack

    def load(self, body: str) -> None:
        self.namespace.run("nft", "-f", "-", input=f"table inet theirs {{\n{body}\n}}\n")
        self.undo.callback(self.namespace.run, "nft", "delete", "table", "inet", "theirs")

    def ip(self, command: str) -> None:
        self.namespace.run("ip", *command.split())
        self.undo.callback(self.namespace.run, "ip", *command.replace(" add ", " del ").split())

    def sysctl(self, name: str, value: str) -> None:
        self.namespace.call(partial(write_sysctl, name, value))
        self.undo.callback(self.namespace.call, partial(write_sysctl, name, "0"))


def comes_to(
    host: NetNamespace,
    expected: str,
    addresses: tuple[str, ...] = BOTH,
    *,
    port: int = PORT,
    ttl: int = 64,
    uid: int = 0,
) -> None:
    """Connections to these, all at once, come to `echo`, or to an error of this name."""
    timeout_s = SHORT_S if expected == "TIMEOUT" else TIMEOUT_S
    argv = [sys.executable, "-c", CONNECT, str(port), str(timeout_s), str(ttl), *addresses]
    if uid:
        argv = ["setpriv", f"--reuid={uid}", "--clear-groups", *argv]
    outcomes = host.run(*argv, timeout=SLOW_S).stdout.split()
    assert outcomes == [expected] * len(addresses)


def chain(hook: str, rule: str, priority: str = "filter", policy: str = "accept") -> str:
    return f"chain c {{\ntype filter hook {hook} priority {priority}; policy {policy}\n{rule}\n}}\n"
