"""The rules against a real kernel: a session in the router, between a client and a server.

The servers and clients are sockets of this process that live in the namespaces; the session under
test (rules_driver.py) is a process inside the router's.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from mitml4.lab.network import (
    CLIENT_V4,
    CLIENT_V6,
    LAN,
    ROUTER_LAN_V4,
    ROUTER_LAN_V6,
    ROUTER_WAN_V4,
    ROUTER_WAN_V6,
    SERVER_V4,
    SERVER_V6,
    WAN,
    LabNetwork,
)
from mitml4.lab.snapshot import difference, take_snapshot
from mitml4.net.netns import NetNamespace, connect_with_veth
from tests.e2e import forked

DRIVER = "tests.e2e.rules_driver"
ROOT = Path(__file__).parents[2]
TIMEOUT_S = 10.0
SLOW_S = 60.0

CLIENT = {4: CLIENT_V4, 6: CLIENT_V6}
ROUTER_LAN = {4: ROUTER_LAN_V4, 6: ROUTER_LAN_V6}
ROUTER_WAN = {4: ROUTER_WAN_V4, 6: ROUTER_WAN_V6}
SERVER = {4: SERVER_V4, 6: SERVER_V6}

VERSIONS = (4, 6)


# --- the world around the session --------------------------------------------------------------


def family(ip: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


def shown(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def set_sysctl(host: NetNamespace, name: str, value: int) -> None:
    host.call(lambda: Path("/proc/sys/net", name).write_text(str(value)))


def tentative(host: NetNamespace) -> str:
    return host.run("ip", "-6", "addr", "show", "tentative").stdout


def load(host: NetNamespace, rules: str) -> None:
    host.run("nft", "-f", "-", input=rules)


def wait_until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + SLOW_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.02)


class EchoServer:
    """Names the peer that it sees in a line, and then sends every byte back."""

    def __init__(self, host: NetNamespace, ip: str, port: int) -> None:
        self.listening = host.socket(family(ip))
        self.listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listening.bind((ip, port))
        self.listening.listen()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                sock, name = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self.echo, args=(sock, name[0]), daemon=True).start()

    @staticmethod
    def echo(sock: socket.socket, peer: str) -> None:
        with sock, suppress(OSError):
            sock.sendall(f"{peer}\n".encode())
            while chunk := sock.recv(65536):
                sock.sendall(chunk)

    def close(self) -> None:
        with suppress(OSError):
            self.listening.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listening.close()


class Talk:
    """A client's connection to an EchoServer."""

    def __init__(self, host: NetNamespace, ip: str, port: int, scope: int = 0) -> None:
        self.sock = host.socket(family(ip))
        self.sock.settimeout(TIMEOUT_S)
        try:
            self.sock.connect((ip, port, 0, scope) if scope else (ip, port))
            self.reader = self.sock.makefile("rb")
            self.peer = self.reader.readline().decode().strip()
        except BaseException:
            self.sock.close()
            raise

    def exchange(self, message: bytes = b"ping\n") -> None:
        self.sock.sendall(message)
        assert self.reader.read(len(message)) == message

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()
        self.sock.close()


def peer_seen(host: NetNamespace, ip: str, port: int = 80) -> str:
    """Connect, exchange a few bytes, close; the client's address as the server saw it."""
    with Talk(host, ip, port) as talk:
        talk.exchange()
        return talk.peer


# --- the session -------------------------------------------------------------------------------


class Session:
    """A running rules_driver.py."""

    def __init__(self, host: NetNamespace, *, prefix: tuple[str, ...] = (), **scope: Any) -> None:
        settings: dict[str, Any] = {
            "cwd": ROOT,
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
        }
        self.process: subprocess.Popen[str] | forked.Forked
        if prefix:
            argv = [*prefix, sys.executable, "-m", DRIVER, json.dumps(scope)]
            self.process = host.popen(argv, text=True, **settings)
        else:
            settings |= {"namespace": host, "stderr": 2, "module": DRIVER}
            self.process = forked.start([json.dumps(scope)], **settings)
        self.events: list[dict[str, Any]] = []
        self.start: dict[str, Any] = {}
        self.unread = b""

    def event(self, *kinds: str) -> dict[str, Any]:
        """The next event of a kind; those before it are kept in `events`."""
        while True:
            event: dict[str, Any] = json.loads(self.line())
            if event["type"] in kinds:
                return event
            self.events.append(event)

    def line(self) -> bytes:
        assert self.process.stdout is not None
        deadline = time.monotonic() + SLOW_S
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self.unread:
                assert selector.select(deadline - time.monotonic()), "the driver says nothing"
                chunk = os.read(self.process.stdout.fileno(), 65536)
                assert chunk, "the driver has ended"
                self.unread += chunk
        line, _, self.unread = self.unread.partition(b"\n")
        return line

    def ask(self, command: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return self.event(command)

    def flows(self) -> list[tuple[str, str]]:
        """(destination, interface) of the flows since the last call."""
        self.ask("sync")
        flows, self.events = self.events, []
        return [(item["destination"], item["interface"]) for item in flows]

    def guard(self) -> dict[str, int]:
        """The pids of the guard's programs, by their names."""
        return {
            Path(f"/proc/{pid}/comm").read_text().strip(): pid for pid in children(self.process.pid)
        }

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


class Lab(LabNetwork):
    """The lab's network, with servers and sessions that end with it."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = ExitStack()
        wait_until(lambda: not any(map(tentative, self.hosts())), "addresses are usable")

    def hosts(self) -> tuple[NetNamespace, ...]:
        return self.client, self.router, self.server

    def serve(self, host: NetNamespace, ip: str, port: int = 80) -> None:
        self.closing.callback(EchoServer(host, ip, port).close)

    def attempt(self, **options: Any) -> dict[str, Any]:
        """Start a session; how it started: `ready`, or `error`."""
        return self.begin(**options).event("ready", "error")

    def begin(self, **options: Any) -> Session:
        session = Session(self.router, **options)
        self.closing.callback(session.close)
        return session

    def session(self, **options: Any) -> Session:
        session = self.begin(**options)
        session.start = session.event("ready", "error")
        assert session.start["type"] == "ready", session.start
        return session

    def close(self) -> None:
        self.closing.close()
        super().close()


@pytest.fixture
def net() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@contextmanager
def nothing_changes(host: NetNamespace) -> Iterator[None]:
    """What is there before is there afterwards, within the time the kernel takes, and no more."""
    before = host.call(take_snapshot)
    yield
    left = [""]

    def same() -> bool:
        left[0] = difference(before, host.call(take_snapshot))
        return not left[0]

    try:
        wait_until(same, "nothing is left")
    except AssertionError:
        pytest.fail(f"left behind:\n{left[0]}")


def assert_intercepted(
    net: Lab, session: Session, interface: str, hosts: Sequence[NetNamespace] = ()
) -> None:
    """A connection of each host's (the client's) is, over both versions of IP."""
    assert session.start["notes"] == []
    for version in VERSIONS:
        net.serve(net.server, SERVER[version])
        for host in hosts or (net.client,):
            assert peer_seen(host, SERVER[version]) == ROUTER_WAN[version]
            assert session.flows() == [(shown(SERVER[version], 80), interface)]


# --- what is intercepted -----------------------------------------------------------------------


@pytest.mark.parametrize("interface", [LAN, WAN], ids=["entering", "leaving"])
def test_a_forwarded_connection_is_intercepted(net: Lab, interface: str) -> None:
    session = net.session(interfaces=[interface])
    assert_intercepted(net, session, interface)


def test_a_connection_that_this_host_starts_is_intercepted(net: Lab) -> None:
    session = net.session(interfaces=[WAN])
    assert_intercepted(net, session, WAN, hosts=(net.router,))


def test_the_interface_that_a_flow_enters_by_names_it(net: Lab) -> None:
    net.serve(net.server, SERVER_V4)
    session = net.session(interfaces=[WAN, LAN])
    peer_seen(net.client, SERVER_V4)
    assert session.flows() == [(f"{SERVER_V4}:80", LAN)]


def test_a_client_may_use_one_port_for_several_servers(net: Lab) -> None:
    """Once translated, its connections would have the same ends."""
    ports = (80, 81, 82)
    session = net.session(interfaces=[LAN])
    for version in VERSIONS:
        for port in ports:
            net.serve(net.server, SERVER[version], port)
        with ExitStack() as stack:
            socks = [stack.enter_context(net.client.socket(family(SERVER[version]))) for _ in ports]
            for sock, port in zip(socks, ports, strict=True):
                sock.settimeout(TIMEOUT_S)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((CLIENT[version], 45000))
                sock.connect((SERVER[version], port))
                assert sock.makefile("rb").readline() == f"{ROUTER_WAN[version]}\n".encode()
            session.ask("sync")
            clients, session.events = [event["client"] for event in session.events], []
            assert clients == [shown(CLIENT[version], 45000)] * 3


def test_services_of_this_host_are_left_alone(net: Lab) -> None:
    session = net.session(interfaces=[LAN, WAN])
    for version in VERSIONS:
        net.serve(net.router, ROUTER_LAN[version])
        assert peer_seen(net.client, ROUTER_LAN[version]) == CLIENT[version]
        assert peer_seen(net.router, ROUTER_LAN[version]) == ROUTER_LAN[version]
    assert session.flows() == []


def test_a_link_local_destination_is_left_alone(net: Lab) -> None:
    """It means nothing without its interface, which a redirect does not tell."""
    net.serve(net.server, "::")
    shown = net.server.run("ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "link").stdout
    ip = shown.split()[3].partition("/")[0]
    session = net.session(interfaces=[WAN])
    scope = net.router.call(lambda: socket.if_nametoindex(WAN))
    with Talk(net.router, ip, 80, scope) as talk:
        assert talk.peer.startswith("fe80:")
    assert session.flows() == []


@pytest.mark.parametrize(
    ("direction", "forwarded", "local"), [("forwarded", 1, 0), ("local", 0, 1), ("both", 1, 1)]
)
def test_a_direction_leaves_the_other_alone(
    net: Lab, direction: str, forwarded: int, local: int
) -> None:
    net.serve(net.server, SERVER_V4)
    session = net.session(interfaces=[WAN], direction=direction)
    peer_seen(net.client, SERVER_V4)
    assert len(session.flows()) == forwarded
    peer_seen(net.router, SERVER_V4)
    assert len(session.flows()) == local


@pytest.mark.parametrize(
    ("options", "ports"),
    [
        ({"ports": "81,8000-8001", "to": [f"{SERVER_V4}/32"]}, [81, 8000]),
        ({"exclude_ports": "80,8000-9000"}, [81]),
        ({"ports": "80-81", "exclude_ports": "81"}, [80]),
        ({"to": ["2001:db8::/32"]}, []),
        ({"from_": ["192.0.2.0/24", "198.51.100.0/24"]}, [80, 81, 8000]),
        ({"from_": ["10.0.0.0/8", "192.0.2.128/25"]}, []),
    ],
)
def test_only_what_is_in_scope_is_intercepted(
    net: Lab, options: dict[str, Any], ports: list[int]
) -> None:
    for port in (80, 81, 8000):
        net.serve(net.server, SERVER_V4, port)
    session = net.session(interfaces=[WAN], **options)
    expected = [(f"{SERVER_V4}:{port}", WAN) for port in ports]
    for host in (net.client, net.router):
        for port in (80, 81, 8000):
            peer_seen(host, SERVER_V4, port)
        assert session.flows() == expected


def test_networks_of_one_version_exclude_the_other(net: Lab) -> None:
    net.serve(net.server, SERVER_V6)
    session = net.session(interfaces=[WAN], to=["0.0.0.0/0"])
    peer_seen(net.client, SERVER_V6)
    assert session.flows() == []


def test_the_source_can_be_kept(net: Lab) -> None:
    session = net.session(interfaces=[WAN], spoof_source=True)
    for version in VERSIONS:
        net.serve(net.server, SERVER[version])
        assert peer_seen(net.client, SERVER[version]) == CLIENT[version]
        assert peer_seen(net.router, SERVER[version]) == ROUTER_WAN[version]
        assert len(session.flows()) == 2


# --- what was there before stays ---------------------------------------------------------------

TRACKING = (
    "table inet other {\n chain c {\n type filter hook prerouting priority 0\n ct state new\n }\n}"
)


@pytest.mark.parametrize("tracked", [False, True], ids=["untracked", "tracked"])
def test_connections_that_were_open_before_live_on(net: Lab, tracked: bool) -> None:
    if tracked:
        load(net.router, TRACKING)
    net.serve(net.server, SERVER_V4)
    net.serve(net.router, ROUTER_LAN_V4)
    ends = (net.client, SERVER_V4), (net.router, SERVER_V4), (net.client, ROUTER_LAN_V4)
    with ExitStack() as stack:
        talks = [stack.enter_context(Talk(host, ip, 80)) for host, ip in ends]
        session = net.session(interfaces=[LAN, WAN])
        for talk in talks:
            talk.exchange()
        assert session.flows() == []
        session.close()
        for talk in talks:
            talk.exchange()


def test_marks_of_others_survive(net: Lab) -> None:
    load(
        net.router,
        """
        table inet other {
            counter kept { }
            counter lost { }
            chain first {
                type filter hook prerouting priority -160
                meta mark set 0x1234 ct state new ct mark set 0x4321
            }
            chain last {
                type filter hook input priority 0
                ct status & dnat != dnat return
                meta mark and 0xffff != 0x1234 counter name lost
                ct mark and 0xffff != 0x4321 counter name lost
                counter name kept
            }
        }
        """,
    )
    net.serve(net.server, SERVER_V4)
    session = net.session(interfaces=[LAN])
    peer_seen(net.client, SERVER_V4)
    assert len(session.flows()) == 1
    assert packets(net.router, "kept") > 0
    assert packets(net.router, "lost") == 0


TRANSLATING = """
table inet other {{
    chain translation {{
        type nat hook prerouting priority dstnat
        meta nfproto ipv4 tcp dport 80 {verdict}
    }}
}}
"""


def test_what_others_redirect_to_this_host_is_its_own_service(net: Lab) -> None:
    load(net.router, TRANSLATING.format(verdict="redirect to :3128"))
    net.serve(net.router, "0.0.0.0", 3128)
    session = net.session(interfaces=[LAN, WAN])
    assert peer_seen(net.client, SERVER_V4) == CLIENT_V4
    assert session.flows() == []


def test_what_others_translate_is_intercepted_on_its_way_to_where_it_goes(net: Lab) -> None:
    load(net.router, TRANSLATING.format(verdict=f"dnat ip to {SERVER_V4}:81"))
    net.serve(net.server, SERVER_V4, 81)
    session = net.session(interfaces=[WAN])
    assert session.start["notes"] == []
    assert peer_seen(net.client, "203.0.113.7") == ROUTER_WAN_V4
    assert session.flows() == [(f"{SERVER_V4}:81", WAN)]


def packets(host: NetNamespace, counter: str) -> int:
    listed = host.run("nft", "-j", "list", "counter", "inet", "other", counter).stdout
    return next(item["counter"]["packets"] for item in json.loads(listed)["nftables"][1:])


def test_two_sessions_share_a_host(net: Lab) -> None:
    """The later one takes what both cover; neither takes what the other sends out."""
    net.serve(net.server, SERVER_V4)
    earlier, later = (net.session(interfaces=[LAN, WAN]) for _ in range(2))
    assert earlier.start["table"] != later.start["table"]
    for host in (net.client, net.router):
        peer_seen(host, SERVER_V4)
        assert len(later.flows()) == 1
        assert earlier.flows() == []
    later.close()
    wait_until(lambda: later.start["table"] not in tables(net.router), "the later one is gone")
    for host in (net.client, net.router):
        peer_seen(host, SERVER_V4)
        assert len(earlier.flows()) == 1


def test_two_sessions_on_different_interfaces_each_have_their_own(net: Lab) -> None:
    net.serve(net.server, SERVER_V4)
    net.serve(net.client, CLIENT_V4)
    one = net.session(interfaces=[LAN], direction="local")
    other = net.session(interfaces=[WAN], direction="local")
    peer_seen(net.router, SERVER_V4)
    assert (one.flows(), other.flows()) == ([], [(f"{SERVER_V4}:80", WAN)])
    peer_seen(net.router, CLIENT_V4)
    assert (one.flows(), other.flows()) == ([(f"{CLIENT_V4}:80", LAN)], [])


def tables(host: NetNamespace) -> set[str]:
    return set(host.run("nft", "list", "tables").stdout.split())


def test_sessions_that_start_at_once_do_not_meet(net: Lab) -> None:
    sessions = [net.begin(interfaces=[LAN]) for _ in range(4)]
    starts = [session.event("ready", "error") for session in sessions]
    assert [start.get("notes") for start in starts] == [[]] * 4, starts
    assert len({start["table"] for start in starts}) == 4


def test_listeners_cannot_be_reached_directly(net: Lab) -> None:
    session = net.session(interfaces=[LAN])
    for host in (net.client, net.router):
        for version in VERSIONS:
            with pytest.raises(ConnectionRefusedError):
                Talk(host, ROUTER_LAN[version], session.start["port"])
    assert session.flows() == []


def test_a_server_on_a_listener_s_port_is_intercepted_all_the_same(net: Lab) -> None:
    session = net.session(interfaces=[LAN, WAN])
    port = session.start["port"]
    net.serve(net.server, SERVER_V4, port)
    for host in (net.client, net.router):
        assert peer_seen(host, SERVER_V4, port) == ROUTER_WAN_V4
        assert len(session.flows()) == 1


# --- QUIC --------------------------------------------------------------------------------------


def send_quic(host: NetNamespace, ip: str) -> None:
    """Two datagrams to UDP/443, and what comes of them: an error, or an answer."""
    with host.socket(family(ip), socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT_S)
        sock.connect((ip, 443))
        for _ in range(2):
            sock.send(b"initial")
        assert sock.recv(100) == b"answer"


def test_quic_is_refused_and_counted(net: Lab) -> None:
    """Also the first datagram, which is dropped: of this host's own, that is an error at once."""
    session = net.session(interfaces=[WAN])
    assert session.ask("quic")["packets"] == 0
    for version in VERSIONS:
        with net.server.socket(family(SERVER[version]), socket.SOCK_DGRAM) as listening:
            listening.bind((SERVER[version], 443))
            for host in (net.client, net.router):
                with pytest.raises((ConnectionRefusedError, PermissionError)):
                    send_quic(host, SERVER[version])
    assert session.ask("quic")["packets"] == 2 * 2 + 2


@pytest.mark.parametrize("options", [{"quic": "allow"}, {"ports": "80"}, {"to": ["10.0.0.0/8"]}])
def test_quic_out_of_scope_passes(net: Lab, options: dict[str, Any]) -> None:
    with net.server.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.settimeout(TIMEOUT_S)
        listening.bind((SERVER_V4, 443))
        answering = threading.Thread(
            target=lambda: listening.sendto(b"answer", listening.recvfrom(100)[1])
        )
        answering.start()
        session = net.session(interfaces=[WAN], **options)
        send_quic(net.client, SERVER_V4)
        answering.join()
        assert session.ask("quic")["packets"] == 0


# --- hostile environments ----------------------------------------------------------------------

DROPPING = """
table inet wall {
    chain door {
        type filter hook input priority 0; policy drop
        ct state established,related accept
        iif lo accept
        meta l4proto icmpv6 accept
    }
}
"""

DROPPING_MORE = DROPPING.replace("iif lo accept", "iif lo ip saddr 127.0.0.0/8 accept")


def test_an_input_policy_of_drop_does_not_hurt(net: Lab) -> None:
    """As ufw and firewalld have it: what is open, and what comes over lo, may come in."""
    load(net.router, DROPPING)
    assert_intercepted(net, net.session(interfaces=[WAN]), WAN, hosts=(net.client, net.router))


def test_a_wall_that_stops_it_is_named_with_its_remedy(net: Lab) -> None:
    load(net.router, DROPPING_MORE)
    with nothing_changes(net.router):
        error = net.attempt(interfaces=[WAN])
        assert error["error"] == "MachineError"
        assert "inet wall door" in error["hint"]
    net.router.run(*error["hint"].partition("mitml4 marks: ")[2].split())
    net.serve(net.server, SERVER_V4)
    session = net.session(interfaces=[WAN])
    assert session.start["notes"] == []
    assert peer_seen(net.client, SERVER_V4) == ROUTER_WAN_V4


def test_strict_reverse_paths_with_marks_do_not_hurt(net: Lab) -> None:
    for interface in ("all", "default", LAN, WAN):
        set_sysctl(net.router, f"ipv4/conf/{interface}/rp_filter", 1)
        set_sysctl(net.router, f"ipv4/conf/{interface}/src_valid_mark", 1)
    assert_intercepted(net, net.session(interfaces=[WAN]), WAN)


def test_answers_that_inherit_the_mark_find_their_way(net: Lab) -> None:
    set_sysctl(net.router, "ipv4/tcp_fwmark_accept", 1)
    set_sysctl(net.router, "ipv4/fwmark_reflect", 1)
    assert_intercepted(net, net.session(interfaces=[LAN]), LAN)


def test_syn_cookies_do_not_hurt(net: Lab) -> None:
    """There is no socket yet when the third packet of the handshake comes."""
    set_sysctl(net.router, "ipv4/tcp_syncookies", 2)  # for each connection
    assert_intercepted(net, net.session(interfaces=[WAN]), WAN)


@pytest.mark.parametrize("interface", ["br0", WAN], ids=["entering", "leaving"])
@pytest.mark.parametrize("filtered", [False, True])
def test_what_a_bridge_brings_is_intercepted(net: Lab, interface: str, filtered: bool) -> None:
    """With bridge-nf-call-iptables (Docker), prerouting is passed while still on the bridge."""
    net.router.run(
        *("ip", "-batch", "-"),
        input=f"addr flush dev {LAN}\nlink add br0 type bridge\nlink set {LAN} master br0\n"
        f"addr add {ROUTER_LAN_V4}/24 dev br0\naddr add {ROUTER_LAN_V6}/64 dev br0 nodad\n"
        "link set br0 up\n",
    )
    for name in ("iptables", "ip6tables"):
        set_sysctl(net.router, f"bridge/bridge-nf-call-{name}", int(filtered))
    wait_until(lambda: not tentative(net.router), "addresses are usable")
    assert_intercepted(net, net.session(interfaces=[interface]), interface)


def test_a_host_without_ipv6_intercepts_ipv4(net: Lab) -> None:
    set_sysctl(net.router, "ipv6/conf/all/disable_ipv6", 1)
    net.serve(net.server, SERVER_V4)
    with nothing_changes(net.router):
        session = net.session(interfaces=[WAN])
        assert session.start["notes"] == []
        assert peer_seen(net.client, SERVER_V4) == ROUTER_WAN_V4
        assert len(session.flows()) == 1
        session.close()


def test_a_host_whose_loopback_lacks_ipv6_leaves_ipv6_alone(net: Lab) -> None:
    """TPROXY delivers by a route over lo."""
    set_sysctl(net.router, "ipv6/conf/lo/disable_ipv6", 1)
    net.serve(net.server, SERVER_V6)
    session = net.session(interfaces=[WAN])
    assert peer_seen(net.client, SERVER_V6) == CLIENT_V6
    assert session.flows() == []


def test_interfaces_that_are_born_without_ipv6_do_not_hurt(net: Lab) -> None:
    set_sysctl(net.router, "ipv6/conf/default/disable_ipv6", 1)
    assert net.session(interfaces=[WAN]).start["notes"] == []


def test_a_narrow_path_to_the_client_is_found_out(net: Lab) -> None:
    """An ICMP error about a packet that we sent in the server's name comes to us."""
    narrow = 1280
    with NetNamespace() as hop:
        connect_with_veth(hop, "left", net.client, "eth1")
        connect_with_veth(hop, "right", net.router, "side")
        batches = {
            net.client: "addr add 10.1.0.2/24 dev eth1\nlink set eth1 up\n"
            f"route add {SERVER_V4} via 10.1.0.1\n",
            hop: "addr add 10.1.0.1/24 dev left\naddr add 10.2.0.1/24 dev right\n"
            f"link set left mtu {narrow} up\nlink set right up\nlink set lo up\n"
            "route add default via 10.2.0.2\n",
            net.router: "addr add 10.2.0.2/24 dev side\nlink set side up\n"
            "route add 10.1.0.0/24 via 10.2.0.1\n",
        }
        for host, batch in batches.items():
            host.run("ip", "-batch", "-", input=batch)
        set_sysctl(hop, "ipv4/ip_forward", 1)
        net.serve(net.server, SERVER_V4)
        session = net.session(interfaces=["side"])
        with Talk(net.client, SERVER_V4, 80) as talk:
            for _ in range(20):
                talk.sock.sendall(b"x" * 1000)
            assert len(talk.reader.read(20000)) == 20000
        assert len(session.flows()) == 1


def test_an_interface_that_cannot_be_is_refused(net: Lab) -> None:
    with nothing_changes(net.router):
        for interface in ("eth77", "lo", ""):
            assert net.attempt(interfaces=[interface])["error"] == "UsageError"


def test_without_privilege_it_says_so_and_changes_nothing(net: Lab) -> None:
    with nothing_changes(net.router):
        error = net.attempt(interfaces=[LAN], prefix=("setpriv", "--bounding-set", "-net_admin"))
        assert error["error"] == "MachineError"
        assert "CAP_NET_ADMIN" in error["message"]


def test_without_the_right_to_make_namespaces_it_works_untested(net: Lab) -> None:
    net.serve(net.server, SERVER_V4)
    session = net.session(interfaces=[LAN], prefix=("setpriv", "--bounding-set", "-sys_admin"))
    (note,) = session.start["notes"]
    assert "the rules could not be tested" in note
    assert peer_seen(net.client, SERVER_V4) == ROUTER_WAN_V4
    assert len(session.flows()) == 1


# --- the end -----------------------------------------------------------------------------------


def test_what_is_open_stays_when_nothing_new_is_intercepted(net: Lab) -> None:
    # Early demultiplexing would find an open flow's socket, and its route, without the rules.
    set_sysctl(net.router, "ipv4/ip_early_demux", 0)
    for version in VERSIONS:
        net.serve(net.server, SERVER[version])
    session = net.session(interfaces=[WAN])
    ends = [(host, SERVER[version]) for host in (net.client, net.router) for version in VERSIONS]
    with ExitStack() as stack:
        talks = [stack.enter_context(Talk(host, ip, 80)) for host, ip in ends]
        assert len(session.flows()) == len(talks)
        session.ask("stop_intercepting")
        for talk in talks:
            talk.exchange()
        for version in VERSIONS:
            assert peer_seen(net.client, SERVER[version]) == CLIENT[version]
            peer_seen(net.router, SERVER[version])
        assert session.flows() == []
        for talk in talks:
            talk.exchange(b"x" * 100_000)


@pytest.mark.parametrize(
    ("signum", "direction"),
    [
        (signal.SIGINT, "both"),
        (signal.SIGTERM, "local"),
        (signal.SIGHUP, "forwarded"),
        *((signal.SIGKILL, direction) for direction in ("forwarded", "local", "both")),
    ],
)
def test_nothing_is_left_when_a_signal_ends_it(net: Lab, signum: int, direction: str) -> None:
    net.serve(net.server, SERVER_V4)
    with nothing_changes(net.router):
        session = net.session(interfaces=[LAN, WAN], direction=direction)
        peer_seen(net.client, SERVER_V4)
        session.process.send_signal(signum)
        status = session.process.wait(SLOW_S)
        assert status == (-signum if signum == signal.SIGKILL else 0)
    assert peer_seen(net.client, SERVER_V4) == CLIENT_V4


@pytest.mark.parametrize("victim", ["nft", "sh"])
def test_nothing_is_left_when_the_guard_is_killed(net: Lab, victim: str) -> None:
    with nothing_changes(net.router):
        session = net.session(interfaces=[LAN, WAN])
        os.kill(session.guard()[victim], signal.SIGKILL)
        assert "the guard of the rules ended" in session.event("lost")["reason"]
        assert session.process.wait(SLOW_S) == 0


def test_signals_to_the_guard_do_not_end_it(net: Lab) -> None:
    session = net.session(interfaces=[LAN])
    for pid in session.guard().values():
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, signum)
    session.ask("quic")  # goes through nft, or finds it gone
    net.serve(net.server, SERVER_V4)
    assert peer_seen(net.client, SERVER_V4) == ROUTER_WAN_V4
    assert len(session.flows()) == 1


@pytest.mark.parametrize("sign", ["table inet mitml4", "link: mitml4"])
def test_nothing_is_left_when_it_is_killed_on_its_way_up(net: Lab, sign: str) -> None:
    def seen() -> bool:
        if sign == "table inet mitml4":
            return any("mitml4" in name for name in tables(net.router))
        return "mitml4" in net.router.run("ip", "link").stdout

    load(net.router, DROPPING_MORE)  # which makes it linger
    with nothing_changes(net.router):
        session = net.begin(interfaces=[LAN])
        wait_until(seen, sign)
        session.process.kill()
        session.process.wait()
