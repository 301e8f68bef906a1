"""The rules against a real kernel: client – router – server, one network namespace each.

The servers and clients are sockets of this process that live in the namespaces; the session under
test (rules_driver.py) is a process inside the router's.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mitml4.net.netns import NetNamespace, connect_with_veth

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces and nftables"),
]

DRIVER = Path(__file__).with_name("rules_driver.py")
ROOT = Path(__file__).parents[2]
PATIENCE_S = 5.0

CLIENT = {4: "10.1.0.2", 6: "fd01::2"}
ROUTER_LAN = {4: "10.1.0.1", 6: "fd01::1"}
ROUTER_WAN = {4: "10.2.0.1", 6: "fd02::1"}
SERVER = {4: "10.2.0.2", 6: "fd02::2"}


def family(ip: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


def shown(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


class Lab:
    """Three hosts in a row, with a server on the far one that names its peer and then echoes."""

    def __init__(self) -> None:
        self.client, self.router, self.server = (NetNamespace() for _ in range(3))
        connect_with_veth(self.client, "eth0", self.router, "lan0")
        connect_with_veth(self.server, "eth0", self.router, "wan0")
        for host, interface, address in (
            (self.client, "eth0", CLIENT),
            (self.router, "lan0", ROUTER_LAN),
            (self.router, "wan0", ROUTER_WAN),
            (self.server, "eth0", SERVER),
        ):
            self.ip(
                host,
                "link set lo up",
                f"addr add {address[4]}/24 dev {interface}",
                f"addr add {address[6]}/64 dev {interface} nodad",
                f"link set {interface} up",
            )
        for host, gateway in ((self.client, ROUTER_LAN), (self.server, ROUTER_WAN)):
            self.ip(host, *(f"route add default via {gateway[version]}" for version in (4, 6)))
        self.sysctl(self.router, "ipv4/ip_forward", 1)
        self.sysctl(self.router, "ipv6/conf/all/forwarding", 1)
        self._closing = ExitStack()

    def ip(self, host: NetNamespace, *commands: str) -> None:
        host.run("ip", "-batch", "-", input="".join(f"{item}\n" for item in commands))

    def nft(self, host: NetNamespace, rules: str) -> None:
        host.run("nft", "-f", "-", input=rules)

    def sysctl(self, host: NetNamespace, name: str, value: int) -> None:
        host.call(lambda: Path("/proc/sys/net", name).write_text(str(value)))

    def listen(self, host: NetNamespace, ip: str, port: int) -> None:
        """Serve there until the lab closes: the peer's IP in a line, then every byte back."""
        sock = host.socket(family(ip))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((ip, port))
        sock.listen()
        self._closing.callback(sock.close)
        self._closing.callback(sock.shutdown, socket.SHUT_RDWR)
        threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def connect(
        self, host: NetNamespace, ip: str, port: int, *, timeout: float = PATIENCE_S
    ) -> Talk:
        sock = host.socket(family(ip))
        sock.settimeout(timeout)
        try:
            sock.connect((ip, port))
            return Talk(sock)
        except BaseException:
            sock.close()
            raise

    def reach(self, host: NetNamespace, ip: str, port: int) -> str:
        """Connect, exchange a few bytes, close; the peer that the server saw."""
        with self.connect(host, ip, port) as talk:
            talk.exchange()
            return talk.peer

    def close(self) -> None:
        self._closing.close()
        for host in (self.client, self.router, self.server):
            host.close()

    @staticmethod
    def _serve(listening: socket.socket) -> None:
        def echo(sock: socket.socket, peer: str) -> None:
            with sock:
                try:
                    sock.sendall(f"{peer}\n".encode())
                    while chunk := sock.recv(65536):
                        sock.sendall(chunk)
                except OSError:
                    return

        while True:
            try:
                sock, name = listening.accept()
            except OSError:
                return
            threading.Thread(target=echo, args=(sock, name[0]), daemon=True).start()


class Talk:
    """A client's connection to the echoing server."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reader = sock.makefile("rb")
        self.peer = self.reader.readline().decode().strip()

    def exchange(self, message: bytes = b"ping\n") -> None:
        self.sock.sendall(message)
        assert self.reader.read(len(message)) == message

    def ended(self) -> bool:
        """Whether the other side has ended it by a FIN or a RST."""
        try:
            return self.reader.read(1) == b""
        except ConnectionResetError:
            return True

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()
        self.sock.close()


class Session:
    """A running rules_driver.py."""

    def __init__(self, host: NetNamespace, **scope: Any) -> None:
        self.process = host.popen(
            [sys.executable, str(DRIVER), json.dumps(scope)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.events: list[dict[str, Any]] = []
        self.unread = b""
        self.start = self.event("ready", "error")

    def event(self, *kinds: str) -> dict[str, Any]:
        """The next event of a kind; those before it are kept in `events`."""
        while True:
            event: dict[str, Any] = json.loads(self._line())
            if event["type"] in kinds:
                return event
            self.events.append(event)

    def ask(self, command: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n".encode())
        self.process.stdin.flush()
        return self.event(command)

    def flows(self) -> list[tuple[str, str]]:
        """(destination, interface) of the flows since the last call."""
        self.ask("sync")
        flows, self.events = self.events, []
        return [(item["destination"], item["interface"]) for item in flows]

    def stop(self) -> int:
        """End it in an orderly way; its exit status."""
        assert self.process.stdin is not None
        if not self.process.stdin.closed:
            self.process.stdin.close()
        return self.wait()

    def wait(self) -> int:
        status = self.process.wait(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def _line(self) -> bytes:
        assert self.process.stdout is not None
        deadline = time.monotonic() + PATIENCE_S
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self.unread:
                assert selector.select(deadline - time.monotonic()), "the driver says nothing"
                chunk = os.read(self.process.stdout.fileno(), 65536)
                assert chunk, "the driver has ended"
                self.unread += chunk
        line, _, self.unread = self.unread.partition(b"\n")
        return line


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


@contextmanager
def session(host: NetNamespace, **scope: Any) -> Iterator[Session]:
    running = Session(host, **scope)
    try:
        assert running.start["type"] == "ready", running.start
        yield running
    finally:
        running.close()


both_families = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])


@both_families
@pytest.mark.parametrize("interface", ["lan0", "wan0"], ids=["entering", "leaving"])
def test_a_forwarded_connection_is_intercepted(lab: Lab, version: int, interface: str) -> None:
    lab.listen(lab.server, SERVER[version], 80)
    with session(lab.router, interfaces=[interface]) as running:
        assert lab.reach(lab.client, SERVER[version], 80) == ROUTER_WAN[version]
        assert running.flows() == [(shown(SERVER[version], 80), interface)]


@both_families
def test_a_connection_that_this_host_starts_is_intercepted(lab: Lab, version: int) -> None:
    lab.listen(lab.server, SERVER[version], 80)
    with session(lab.router, interfaces=["wan0"]) as running:
        assert lab.reach(lab.router, SERVER[version], 80) == ROUTER_WAN[version]
        assert running.flows() == [(shown(SERVER[version], 80), "wan0")]
