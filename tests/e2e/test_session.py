"""A session begins and ends: by signal, by pipe, by time, by force. The machine is as it was."""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from mitml4.lab.network import CLIENT_V4, SERVER_V4
from mitml4.lab.snapshot import difference, take_snapshot
from tests.crypto.quic_packets import crypto, initial, vectors
from tests.e2e.conftest import IN_A_GROUP

ROOT = Path(__file__).parents[2]
V4, V6 = "198.51.100.2", "2001:db8:2::2"
TIMEOUT_S = 60


@pytest.fixture
def mitml4(lab):
    """Runs the command line in the router, to its end."""

    def run(*arguments, **options):
        settings = {"check": False, "cwd": ROOT, "timeout": TIMEOUT_S} | options
        return lab.router.run(sys.executable, "-m", "mitml4", *arguments, **settings)

    return run


@pytest.fixture
def echo(serve_once):
    for port in (7001, 7002):
        serve_once(
            *("socat", f"TCP6-LISTEN:{port},fork,reuseaddr,ipv6only=0,backlog=256", "EXEC:cat"),
            port=port,
        )


def ask(client, address=V4, port=7001):
    with client.connect(address, port) as sock:
        sock.sendall(b"\xc0\xffhello")
        return hear(sock, 7)


def hear(sock, count):
    """So many bytes, or as many as come before its end."""
    heard = b""
    while len(heard) < count and (chunk := sock.recv(count - len(heard))):
        heard += chunk
    return heard


# --- the end


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])  # SIGINT ends all others
def test_a_signal_ends_the_session_and_nothing_is_left(intercept, client, echo, how):
    session = intercept(wrapper=())  # which compares the machine before and after
    assert ask(client) == b"\xc0\xffhello"
    assert session.stop(how) == 0
    assert session.events[-1]["type"] == "session.stop"
    assert session.events[-1]["flows"] == 1


def test_under_nohup_the_end_of_the_terminal_is_none_of_the_sessions(intercept, client, echo):
    session = intercept(wrapper=["nohup"])
    session.process.send_signal(signal.SIGHUP)
    watch = session.watch()
    assert ask(client) == b"\xc0\xffhello"
    assert watch.flow().stack == ["unknown"]
    assert session.stop() == 0
    assert session.events[-1]["reason"] == "SIGINT"


def test_what_a_script_has_in_its_background_it_can_end(intercept):
    """Where a shell without job control has SIGINT ignored."""
    session = intercept(wrapper=["sh", "-c", "trap '' INT; exec \"$@\"", "sh"])
    assert session.stop(signal.SIGINT) == 0


def test_a_killed_session_leaves_nothing(lab, tmp_path, wait_until):
    before = lab.router.call(take_snapshot)
    process = lab.router.popen(
        [
            *(sys.executable, "-m", "mitml4", "intercept", "--iface", "lan", "--json"),
            *("--ca-dir", str(tmp_path / "ca")),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        assert b"session.start" in process.stdout.readline()
        assert difference(before, lab.router.call(take_snapshot)) != ""
        process.kill()
    wait_until(
        lambda: difference(before, lab.router.call(take_snapshot)) == "", "everything is undone"
    )


def test_a_reader_that_goes_away_ends_the_session_quietly(lab, client, echo, tmp_path):
    before = lab.router.call(take_snapshot)
    process = lab.router.popen(
        [
            *(sys.executable, "-m", "mitml4", "intercept", "--iface", "lan", "--json"),
            *("--ca-dir", str(tmp_path / "ca")),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert b"session.start" in process.stdout.readline()
        process.stdout.close()
        ask(client)  # the next event finds nobody to read it
        assert process.wait(TIMEOUT_S) == 0
        talk = process.stderr.read().decode()
    assert "error" not in talk
    assert "Traceback" not in talk
    assert difference(before, lab.router.call(take_snapshot)) == ""


def test_a_duration_ends_the_session(intercept):
    session = intercept("--duration", "1s")
    session.wait_for(lambda: session.of_type("session.stop"), "session.stop")
    assert session.wait_ended() == 0


def test_open_flows_get_time_to_end(intercept, client, echo):
    session = intercept("--drain", "10s")
    with client.connect(V4, 7001) as sock:
        sock.sendall(b"\xc0\xffone")
        assert hear(sock, 5) == b"\xc0\xffone"
        session.process.send_signal(signal.SIGINT)
        sock.sendall(b"two")
        assert hear(sock, 3) == b"two"
    assert session.wait_ended() == 0
    assert [flow.closed["reason"] for flow in session.flows()] == ["closed"]


def is_connected(sock):
    with contextlib.suppress(OSError):
        return sock.getpeername()


@pytest.mark.parametrize(("options", "seen"), [((), 20), (("--max-flows", "3"), 3)])
def test_connections_that_wait_to_be_accepted_at_the_end_are_carried(
    intercept, client, echo, wait_until, options, seen
):
    session = intercept("--drain", "10s", *options)
    session.process.send_signal(signal.SIGSTOP)
    families = {V4: socket.AF_INET, V6: socket.AF_INET6}
    socks = [client.namespace.socket(families[each]) for each in (V4, V6) for _ in range(10)]
    try:
        for sock, address in zip(socks, [V4] * 10 + [V6] * 10, strict=True):
            sock.setblocking(False)
            assert sock.connect_ex((address, 7001)) == errno.EINPROGRESS
        if not options:
            session.process.send_signal(signal.SIGINT)
        session.process.send_signal(signal.SIGCONT)
        for sock in socks:
            sock.settimeout(TIMEOUT_S)
            wait_until(partial(is_connected, sock), "it is connected")
            sock.sendall(b"\xc0\xffhello")
            assert hear(sock, 7) == b"\xc0\xffhello"
    finally:
        for sock in socks:
            sock.close()
    assert session.wait_ended() == 0
    assert len(session.flows()) == session.events[-1]["flows"] == seen


def test_a_connection_whose_client_thinks_it_made_is_carried(
    intercept, client, echo, wait_until, lab
):
    """The last packet of its handshake comes when the session has stopped intercepting."""
    session = intercept("--drain", "10s")
    before = lab.router.call(take_snapshot)
    rule = (
        "table inet late { chain out { type filter hook output priority 0; tcp dport 7001 %s; }; }"
    )
    no_ack = rule % "tcp flags & (syn | ack) == ack drop"
    client.namespace.run("nft", "-f", "-", input=no_ack)
    with contextlib.ExitStack() as stack:
        try:
            socks = [stack.enter_context(client.connect(address, 7001)) for address in (V4, V6)]
            session.process.send_signal(signal.SIGINT)
            wait_until(lambda: lab.router.call(take_snapshot) != before, "interception has stopped")
        finally:
            client.namespace.run("nft", "delete", "table", "inet", "late")
        for sock in socks:
            sock.sendall(b"\xc0\xffhello")
            assert hear(sock, 7) == b"\xc0\xffhello"
    assert session.wait_ended() == 0
    assert session.events[-1]["flows"] == 2


def test_a_second_signal_ends_it_at_once(intercept, client, echo, wait_until, lab):
    session = intercept("--drain", "60s")
    before = lab.router.call(take_snapshot)
    with client.connect(V4, 7001) as sock:
        sock.sendall(b"\xc0\xffone")
        assert hear(sock, 5) == b"\xc0\xffone"
        session.process.send_signal(signal.SIGINT)
        wait_until(lambda: lab.router.call(take_snapshot) != before, "the rules are gone")
        session.process.send_signal(signal.SIGINT)
        assert session.wait_ended() == 0
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert [flow.closed["reason"] for flow in session.flows()] == ["shutdown"]


def test_while_it_is_suspended_new_connections_pass_by(intercept, client, echo, wait_until):
    """As by Ctrl-Z; the open one stands still, and goes on with it."""
    session = intercept(wrapper=IN_A_GROUP)
    pid = session.process.pid

    def state() -> str:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    with client.connect(V4, 7001) as sock:
        sock.sendall(b"\xc0\xffone")
        assert hear(sock, 5) == b"\xc0\xffone"
        session.wait_for(session.flows, "the flow")
        os.kill(pid, signal.SIGTSTP)
        wait_until(lambda: state() == "T", "it is stopped")
        for address in (V4, V6):
            assert ask(client, address) == b"\xc0\xffhello"
        sock.sendall(b"two")
        os.kill(pid, signal.SIGCONT)
        assert hear(sock, 3) == b"two"
        before = len(session.flows())

        def is_seen() -> bool:
            ask(client)
            return len(session.flows()) > before

        wait_until(is_seen, "connections are intercepted again")
    assert session.stop() == 0
    assert before == 1


def test_a_connection_that_was_open_before_stays_open_and_unseen(intercept, client, echo):
    with client.connect(V4, 7001) as sock:
        sock.sendall(b"before")
        assert hear(sock, 6) == b"before"
        session = intercept()
        sock.sendall(b"during")
        assert hear(sock, 6) == b"during"
        assert session.stop() == 0
        sock.sendall(b"after")
        assert hear(sock, 5) == b"after"
    assert session.flows() == []


# --- interfaces


@pytest.fixture
def add_interface(lab):
    """Makes a pair of virtual interfaces, by which the client reaches the server over the router's
    `extra`."""

    def add() -> None:  # alike each time
        near = ("extra", "index", "76", "address", "02:00:00:00:00:01", "type", "veth")
        lab.router.run(
            *("ip", "link", "add", *near, "peer", "name", "far", "index", "77"),
            *("netns", lab.client.path),
        )
        lab.router.run("ip", "addr", "add", "10.9.0.1/24", "dev", "extra")
        lab.router.run("ip", "link", "set", "extra", "addrgenmode", "none", "up")
        lab.client.run("ip", "addr", "add", "10.9.0.2/24", "dev", "far")
        lab.client.run("ip", "link", "set", "far", "up")
        lab.client.run("ip", "route", "replace", V4, "via", "10.9.0.1", "dev", "far")

    lab.server.run("ip", "route", "add", "10.9.0.0/24", "via", "198.51.100.1")
    add()
    yield add
    lab.router.run("ip", "link", "del", "extra")
    lab.server.run("ip", "route", "del", "10.9.0.0/24")


def test_interfaces_that_change_are_told_of_and_followed(
    lab, add_interface, intercept, client, echo, tmp_path, wait_until
):
    session = intercept(iface="extra", wrapper=())

    def ip(*command: str, says: str | None = None) -> None:
        lab.router.run("ip", "link", *command)
        if says:
            said = (tmp_path / "stderr.txt").read_text
            wait_until(lambda: f"note: {says}" in said(), says)

    def is_seen(name: str) -> None:
        watch = session.watch()
        assert ask(client) == b"\xc0\xffhello"
        assert watch.flow().opened["interface"] == name

    is_seen("extra")
    ip("set", "extra", "name", "renamed", says="extra is now renamed, and is intercepted as before")
    is_seen("renamed")
    ip("set", "renamed", "name", "extra", says="renamed is now extra")
    ip("del", "extra", says="extra has gone: nothing is intercepted over it until it comes back")
    add_interface()
    ip("show", says="extra is back: new connections over it are intercepted")
    is_seen("extra")
    ip("add", "bridge", "type", "bridge")
    ip("set", "extra", "master", "bridge", says="extra belongs to bridge: connections arrive over")
    ip("del", "bridge", says="extra no longer belongs to bridge, and is intercepted again")
    is_seen("extra")


# --- the scope


def test_local_connections_are_intercepted(intercept, lab, echo):
    session = intercept("--direction", "local", iface="wan")
    watch = session.watch()
    for address in (V4, V6):
        with lab.router.call(partial(socket.create_connection, (address, 7001), 10)) as sock:
            sock.sendall(b"\xc0\xffhello")
            assert hear(sock, 7) == b"\xc0\xffhello"
    flows = watch.flows(2)
    assert [flow.opened["destination"]["ip"] for flow in flows] == [V4, V6]
    assert [flow.stack for flow in flows] == [["unknown"]] * 2
    assert [flow.opened["process"]["pid"] for flow in flows] == [os.getpid()] * 2


def test_forwarded_connections_are_none_of_the_local_directions(intercept, client, echo):
    session = intercept("--direction", "local", iface="wan")
    assert ask(client) == b"\xc0\xffhello"
    session.stop()
    assert session.flows() == []


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        (("--port", "1-7001", "--to", "198.51.100.0/24", "--from", "192.0.2.2/32"), [7001]),
        (("--exclude-port", "7001"), [7002]),
        (("--to", "203.0.113.0/24"), []),
        (("--from", "192.0.2.3/32"), []),
    ],
    ids=lambda value: " ".join(map(str, value)) or "everything",
)
def test_the_user_says_what_is_in_scope(intercept, client, echo, options, seen):
    session = intercept(*options)
    for port in (7001, 7002):
        assert ask(client, port=port) == b"\xc0\xffhello"
    session.stop()
    assert [flow.opened["destination"]["port"] for flow in session.flows()] == seen


def test_spoof_source_keeps_the_clients_address(intercept, lab, client):
    intercept("--spoof-source")
    with lab.server.socket() as listener:
        listener.settimeout(TIMEOUT_S)
        listener.bind((V4, 7005))
        listener.listen()
        with client.connect(V4, 7005), listener.accept()[0] as accepted:
            assert accepted.getpeername()[0] == "192.0.2.2"


@pytest.mark.parametrize("options", [(), ("--spoof-source",)], ids=["own", "spoofed"])
def test_a_program_of_this_host_can_have_the_port_of_an_intercepted_connection(
    intercept, lab, client, echo, options
):
    """While the connection is open, and in its TIME_WAIT; also without SO_REUSEADDR."""

    def listen():
        for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            with lab.router.socket(family) as listener:
                listener.bind((address, 7001))
                listener.listen()

    session = intercept(*options)
    watch = session.watch()
    for address in (V4, V6):
        with client.connect(address, 7001) as sock:
            sock.sendall(b"\xc0\xffhello")
            assert hear(sock, 7) == b"\xc0\xffhello"
            listen()
    watch.flows(2)
    listen()


# --- many


def test_many_connections_at_once(intercept, client, echo):
    session = intercept()
    watch = session.watch()
    socks = [client.connect(address, 7001) for address in (V4, V6) for _ in range(100)]
    try:
        for number, sock in enumerate(socks):
            sock.sendall(b"\xc0\xff%d" % number)
        for number, sock in enumerate(socks):
            said = b"\xc0\xff%d" % number
            assert hear(sock, len(said)) == said
    finally:
        for sock in socks:
            sock.close()
    assert {tuple(flow.stack) for flow in watch.flows(200)} == {("unknown",)}


# --- what goes wrong before it begins


def test_an_interface_that_is_not_there_is_named(mitml4, tmp_path):
    result = mitml4("intercept", "--iface", "nowhere0", "--ca-dir", str(tmp_path))
    assert result.returncode == 2
    assert "nowhere0" in result.stderr
    assert "hint:" in result.stderr
    assert result.stdout == ""


def test_a_user_without_privilege_is_told_so(lab, tmp_path):
    dropped = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    command = [sys.executable, "-m", "mitml4", "intercept", "--iface", "lan"]
    result = lab.router.run(
        *dropped, *command, "--ca-dir", str(tmp_path / "ca"), check=False, cwd=ROOT
    )
    assert result.returncode == 3, result.stderr
    assert "hint:" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_dry_run_shows_the_rules_and_changes_nothing(lab, mitml4, tmp_path):
    before = lab.router.call(take_snapshot)
    result = mitml4("intercept", "--iface", "lan", "--dry-run", "--ca-dir", str(tmp_path / "ca"))
    assert result.returncode == 0, result.stderr
    assert "table inet" in result.stdout
    assert "log group" in result.stdout
    assert difference(before, lab.router.call(take_snapshot)) == ""
    assert not (tmp_path / "ca").exists()


def test_a_connection_that_has_begun_before_the_session_goes_on_when_it_is_answered(
    lab, intercept, nginx, wait_until
) -> None:
    """Its SYN has passed, and comes again."""
    rules = "add table inet t; add chain inet t c { type filter hook input priority 0; }"
    lab.server.run("nft", f"{rules}; add rule inet t c tcp dport 80 drop")
    tracked = rules.replace("inet t", "inet tracked").replace("hook input", "hook postrouting")
    # The counter has the router track the connection.
    lab.router.run("nft", f"{tracked}; add rule inet tracked c tcp dport 80 ct state new counter")
    outcome: list[bytes] = []

    def ask() -> None:
        with socket.create_connection((SERVER_V4, 80), timeout=60) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            outcome.append(connection.recv(12))

    asking = threading.Thread(target=lambda: lab.client.call(ask))
    asking.start()
    wait_until(
        lambda: (
            "packets 0 " not in lab.router.run("nft", "list", "table", "inet", "tracked").stdout
        ),
        "the first SYN",
    )
    session = intercept()
    lab.server.run("nft", "delete table inet t")
    asking.join()
    assert outcome == [b"HTTP/1.1 200"]
    assert session.flows() == []


# --- QUIC


def test_quic_of_a_client_is_told_with_its_hello_of_two_datagrams(intercept, lab):
    """The first datagram is dropped without an error, and the second is rejected."""
    hello = vectors()[0].client_payload[4:]
    session = intercept()
    with lab.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT_S)
        sock.connect((SERVER_V4, 443))
        for number, (start, end) in enumerate(((100, None), (0, 100))):
            sock.send(initial(crypto(start, hello[start:end]) + bytes(900), number))
        with pytest.raises(ConnectionRefusedError):
            sock.recv(100)
    assert session.stop() == 0
    (told,) = [event for event in session.events if event["type"] == "quic.refused"]
    assert (told["sni"], told["alpn"]) == ("example.com", ["alpn"])
    assert (told["client"]["ip"], told["destination"]["port"]) == (CLIENT_V4, 443)
