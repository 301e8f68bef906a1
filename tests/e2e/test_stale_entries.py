"""Entries in conntrack that nobody follows between two sessions, since only they need conntrack."""

import socket
import struct
from contextlib import closing
from pathlib import Path

import pytest

from mitml4.lab.network import CLIENT_V4, CLIENT_V6, SERVER_V4, SERVER_V6
from mitml4.net.gate.conntrack import Conntrack
from tests.e2e.conftest import TIMEOUT_S

PORT = 7001
CLIENT_PORT = 40001
ENDS = {SERVER_V4: CLIENT_V4, SERVER_V6: CLIENT_V6}
RESET = struct.pack("ii", 1, 0)  # struct linger: closing sends a RST
LOOSE = Path("/proc/sys/net/netfilter/nf_conntrack_tcp_loose")


@pytest.fixture(autouse=True)
def echo(serve_once):
    serve_once(
        *("socat", f"TCP6-LISTEN:{PORT},fork,reuseaddr,ipv6only=0,backlog=256", "EXEC:cat"),
        port=PORT,
    )


@pytest.fixture(autouse=True)
def clear(lab):
    """The next test begins without entries."""
    yield
    for machine in (lab.router, lab.client):
        with closing(machine.call(Conntrack)) as conntrack:
            for entry in entries(machine):
                conntrack.remove_found(entry)


def entries(machine):
    with closing(machine.call(Conntrack)) as conntrack:
        return list(conntrack.entries())


def connect(lab, server):
    """From the same port each time."""
    sock = lab.client.socket(socket.AF_INET6 if ":" in server else socket.AF_INET)
    sock.settimeout(TIMEOUT_S)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.bind((ENDS[server], CLIENT_PORT))
    sock.connect((server, PORT))
    return sock


def exchange(sock):
    said = b"\xc0\xffhello"
    sock.sendall(said)
    heard = b""
    while len(heard) < len(said) and (chunk := sock.recv(len(said))):
        heard += chunk
    assert heard == said


@pytest.mark.parametrize("server", ENDS)
def test_a_new_connection_from_the_port_of_an_old_one_is_seen(lab, intercept, server):
    earlier = intercept("--exclude-port", str(PORT))
    with connect(lab, server) as old:
        exchange(old)
        earlier.stop()
    session = intercept()
    watch = session.watch()
    with connect(lab, server) as new:
        exchange(new)
    assert watch.flow().opened["client"]["port"] == CLIENT_PORT


@pytest.fixture
def attached(lab):
    """The scope of a session that is attached to the client's network."""
    with lab.client.popen(["sleep", "600"]) as process:
        yield ("--pid", str(process.pid))
        process.kill()


@pytest.mark.parametrize("server", ENDS)
def test_the_same_where_a_session_is_attached(lab, intercept, attached, server):
    earlier = intercept("--no-trust", "--exclude-port", str(PORT), scope=attached)
    with connect(lab, server) as old:
        exchange(old)
        earlier.stop()
    session = intercept("--no-trust", scope=attached)
    watch = session.watch()
    with connect(lab, server) as new:
        exchange(new)
    assert watch.flow().opened["client"]["port"] == CLIENT_PORT


@pytest.mark.parametrize("server", ENDS)
def test_an_open_connection_goes_on_where_a_session_is_attached(lab, intercept, attached, server):
    earlier = intercept("--no-trust", "--exclude-port", str(PORT), scope=attached)
    with connect(lab, server) as sock:
        exchange(sock)
        earlier.stop()
        session = intercept("--no-trust", scope=attached)
        exchange(sock)
        session.stop()
        exchange(sock)
    assert session.flows() == []


def test_nothing_is_removed_where_rules_of_an_attached_network_need_conntrack(
    lab, intercept, attached
):
    follow = "chain f { type filter hook output priority 0; ct state established accept; }"
    lab.client.run("nft", "-f", "-", input=f"table inet others {{\n{follow}\n}}\n")
    with connect(lab, SERVER_V4) as sock:
        exchange(sock)
        before = entries(lab.client)
        session = intercept("--no-trust", scope=attached)
        assert set(before) <= set(entries(lab.client))
        exchange(sock)
        session.stop()
    assert len(before) == 1
    lab.client.run("nft", "delete", "table", "inet", "others")


@pytest.fixture(params=["1", "0"])
def loose(lab, request):
    """Whether conntrack begins to follow connections that are open already."""
    usual = lab.router.call(LOOSE.read_text)
    lab.router.call(lambda: LOOSE.write_text(request.param))
    yield
    lab.router.call(lambda: LOOSE.write_text(usual))


@pytest.mark.parametrize("server", ENDS)
def test_a_connection_that_is_open_across_both_sessions_goes_on(lab, loose, intercept, server):
    earlier = intercept("--exclude-port", str(PORT))
    with connect(lab, server) as sock:
        exchange(sock)
        earlier.stop()
        session = intercept()
        for _ in range(3):
            exchange(sock)
        session.stop()
        exchange(sock)
    assert session.flows() == []


@pytest.fixture(params=["", "ip protocol udp notrack", "ip protocol udp ct zone set 5"])
def others(lab, request):
    """A host's rules, which need conntrack; what asks for it may be exempt."""
    follow = "chain f { type filter hook forward priority 0; ct state established accept; }"
    exempt = f"chain p {{ type filter hook prerouting priority -300; {request.param}; }}"
    sent = exempt.replace("chain p", "chain o").replace("prerouting", "output")
    rules = f"table inet others {{\n{follow}\n{exempt}\n{sent}\n}}\n"
    lab.router.run("nft", "-f", "-", input=rules)
    yield
    lab.router.run("nft", "delete", "table", "inet", "others")


def test_where_rules_of_others_need_conntrack_nothing_is_removed(lab, others, intercept):
    with connect(lab, SERVER_V4) as sock:
        exchange(sock)
        before = entries(lab.router)
        assert len(before) == 1
        session = intercept()
        assert set(before) <= set(entries(lab.router))
        exchange(sock)
        session.stop()
