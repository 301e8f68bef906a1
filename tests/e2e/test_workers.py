"""`--workers`: what several processes carry is one session. A worker that dies takes only its own
flows with it."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from mitml4.lab.network import LAN, SERVER_V4
from mitml4.net.netns import NetNamespace

from .conftest import HOST, IN_A_GROUP, ROOT, SLOW_S, TIMEOUT_S, Interception, poll

pytestmark = pytest.mark.usefixtures("nginx")


def workers(session: Interception) -> list[int]:
    """The workers in the network namespace of a session, in which there is one."""
    place = os.readlink(f"/proc/{session.process.pid}/ns/net")
    return [pid for pid, name in ours(place) if name == b"mitml4: worker"]


def several(session: Interception, count: int) -> list[int] | None:
    found = workers(session)
    return found if len(found) == count else None


def carries(pid: int, place: NetNamespace | None = None) -> bool:
    """Whether this process has a connection, in its network or in another."""
    net = Path(f"/proc/{pid}/net" if place is None else "/proc/thread-self/net")

    def rows() -> list[str]:
        return [
            row for name in ("tcp", "tcp6") for row in (net / name).read_text().splitlines()[1:]
        ]

    inodes = {row.split()[9] for row in (place.call(rows) if place else rows())}
    open_files = {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()}
    return any(f"socket:[{each}]" in open_files for each in inodes)


def ours(place: str) -> Iterator[tuple[int, bytes]]:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            name = (process / "cmdline").read_bytes().rstrip(b"\0")
            if name.startswith(b"mitml4: ") and os.readlink(process / "ns/net") == place:
                yield int(process.name), name


@pytest.fixture
def session(lab, authority, tmp_path) -> Iterator[Interception]:
    """It is killed in the end, by the test or here."""
    argv = [*IN_A_GROUP, sys.executable, "-m", "mitml4", "intercept", "--json", "--iface", LAN]
    argv += ["--ca-dir", str(tmp_path / "ca"), "--upstream-ca", str(authority.root)]
    argv += ["--workers", "3"]
    process = lab.router.popen(
        argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    running = Interception(process, tmp_path / "ca" / "mitml4-ca.pem")
    running.wait_for(lambda: running.of_type("session.start"), "session.start")
    try:
        yield running
    finally:
        running.stop(signal.SIGKILL)


class Client:
    def __init__(self, client, context: ssl.SSLContext) -> None:
        self._client = client
        self._context = context

    def open(self, resumed: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        """A connection on which one request was answered."""
        sock = self._client.connect(SERVER_V4, 443)
        sock.settimeout(TIMEOUT_S)
        connection = self._context.wrap_socket(sock, server_hostname=HOST, session=resumed)
        request(connection)
        return connection

    def open_everywhere(self, session: Interception, count: int) -> dict[int, ssl.SSLSocket]:
        """Connections by their flows, of which each of so many workers carries one, and the session
        another."""
        found = poll(lambda: several(session, count), "the workers")
        flows: dict[int, ssl.SSLSocket] = {}
        while not all(map(carries, found)):
            connection = self.open()
            flows[flow_of(session, connection)] = connection
            assert len(flows) < 100
        return flows


def request(connection: ssl.SSLSocket) -> str:
    """The answer."""
    connection.sendall(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
    heard = b""
    while not heard.endswith(b"hello from nginx\n"):
        piece = connection.recv(4096)
        assert piece
        heard += piece
    return heard.decode()


def says(connection: ssl.SSLSocket, text: str) -> bool:
    return text in request(connection)


def lost(connection: ssl.SSLSocket) -> bool:
    """Asked in a thread of its own: with OpenSSL 3.6, Python's ssl shows the error of a connection
    at the next one too, which its thread uses."""
    with ThreadPoolExecutor(1) as thread:
        error = thread.submit(request, connection).exception()
    if error and not isinstance(error, OSError | AssertionError):
        raise error
    return error is not None


def flow_of(session: Interception, connection: socket.socket) -> int:
    port = connection.getsockname()[1]

    def opened() -> list[int]:
        return [e["flow"] for e in session.of_type("flow.open") if e["client"]["port"] == port]

    return poll(opened, "its flow.open")[0]


def events_of(session: Interception, flow: int) -> list[dict]:
    return [event for event in session.events if event.get("flow") == flow]


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def closed_for_us(session: Interception) -> list[dict]:
    """flow.close of the flows that a fault of mitml4's has ended."""
    faults = {e["flow"] for e in session.of_type("flow.error") if e["kind"] == "internal"}
    return [e for e in session.of_type("flow.close") if e["flow"] in faults]


def test_several_processes_are_one_session(lab, client, session):
    trusting = ssl.create_default_context(cafile=session.ca)
    visitor = Client(client, trusting)

    # One leaf, and one numbering.
    flows = visitor.open_everywhere(session, 2)
    first_workers = workers(session)
    assert len({each.getpeercert(True) for each in flows.values()}) == 1
    assert list(flows) == [*range(1, len(flows) + 1)]

    # What one has shown counts at the others: connections that are done alternate.
    for each in [visitor.open(flows[1].session) for _ in range(3)]:
        assert each.session_reused
        each.close()
    distrusting = ssl.create_default_context()
    distrusting.set_ciphers("ECDHE+AESGCM")  # another kind of client
    for done in (4, 5, 6):
        with pytest.raises(ssl.SSLCertVerificationError):
            Client(client, distrusting).open()
        session.wait_for(lambda done=done: len(session.of_type("flow.close")) == done, "its end")
    actions = [e["action"] for e in session.of_type("flow.layer") if e["protocol"] == "tls"]
    assert actions[-3:] == ["intercepted", "passthrough", "passthrough"]

    # A worker dies, with its flows and no others, and is replaced.
    os.kill(first_workers[0], signal.SIGKILL)
    session.wait_for(lambda: closed_for_us(session), "the end of its flow")
    dead = {number for number, each in flows.items() if lost(each)}
    session.wait_for(lambda: len(closed_for_us(session)) >= len(dead), "the end of all of them")
    gone = {e["flow"]: (e["reason"], e["stack"]) for e in closed_for_us(session)}
    assert 1 not in gone
    assert len(gone) < len(flows) - 1
    assert set(gone) == dead
    assert all(each == ("error", ["tls", "http/1"]) for each in gone.values())
    replaced = poll(lambda: several(session, 2), "another worker in its place")
    assert first_workers[0] not in replaced
    later = [visitor.open() for _ in range(3)]
    alive = flows[1]
    assert {each.getpeercert(True) for each in later} == {alive.getpeercert(True)}

    # Ctrl-Z holds open connections too.
    session.process.send_signal(signal.SIGTSTP)
    poll(lambda: set(map(state, workers(session))) == {"T"}, "stopped workers")
    session.process.send_signal(signal.SIGCONT)
    poll(lambda: "T" not in map(state, workers(session)), "workers that go on")
    request(alive)

    # The events of each flow are in order, and flows open in the order of their numbers.
    opened = [e["flow"] for e in session.of_type("flow.open")]
    assert opened == sorted(set(opened))
    for number in opened:
        kinds = [e["type"] for e in events_of(session, number)]
        assert kinds[0] == "flow.open"
        assert "flow.close" not in kinds[:-1]

    # Nothing outlives the session, however it ends.
    place = os.readlink(f"/proc/{session.process.pid}/ns/net")
    session.process.kill()
    session.process.wait(SLOW_S)
    poll(lambda: not list(ours(place)), "the end of all workers")
    assert lost(alive)
    poll(lambda: "mitml4" not in lab.router.run("nft", "list", "tables").stdout, "no rules")
    for each in (*flows.values(), *later):
        each.close()


def test_flows_of_a_worker_that_dies_or_hangs_end_with_all_their_events(client, session):
    visitor = Client(client, ssl.create_default_context(cafile=session.ca))
    flows = visitor.open_everywhere(session, 2)
    for each in flows.values():
        each.sendall(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 9\r\n\r\nfour".encode())
    session.wait_for(lambda: len(session.of_type("http.request")) == 2 * len(flows), "all requests")
    killed, hanging = workers(session)
    os.kill(killed, signal.SIGKILL)
    session.wait_for(lambda: closed_for_us(session), "the end of its flow")
    replaced = poll(lambda: several(session, 2), "another worker in its place")

    # One that hangs is replaced as well.
    dead = {e["flow"] for e in closed_for_us(session)}
    os.kill(hanging, signal.SIGSTOP)
    session.wait_for(lambda: len(closed_for_us(session)) > len(dead), "the end of its flows")
    poll(lambda: hanging not in workers(session) and several(session, 2), "another in its place")
    assert hanging in replaced

    # At the end of the session it is not waited for.
    more = visitor.open_everywhere(session, 2)
    for pid in workers(session):
        os.kill(pid, signal.SIGSTOP)
    session.process.send_signal(signal.SIGINT)
    assert session.stop(signal.SIGINT) == 0
    gone = {e["flow"] for e in closed_for_us(session)}
    assert dead < gone
    assert gone - flows.keys()
    for number in gone:
        *_, cut, close = events_of(session, number)
        if number in flows:
            assert (cut["type"], cut["outcome"]) == ("http.end", "cut")
        assert (close["type"], close["reason"]) == ("flow.close", "error")
    assert len(session.of_type("http.end")) == len(session.of_type("http.request"))
    assert len(session.of_type("flow.close")) == len(session.of_type("flow.open"))
    for each in (*flows.values(), *more.values()):
        each.close()


def test_clients_hear_of_the_end_of_a_session_that_is_killed(lab, client, session):
    """Their connections end also where what starts workers, and ends with them, is stopped: it goes
    on then, and the rules stay as long."""
    visitor = Client(client, ssl.create_default_context(cafile=session.ca))
    flows = visitor.open_everywhere(session, 2)
    place = os.readlink(f"/proc/{session.process.pid}/ns/net")
    (starter,) = [pid for pid, name in ours(place) if name == b"mitml4: starts workers"]
    for pid in (starter, *workers(session)):
        os.kill(pid, signal.SIGSTOP)
    session.process.kill()
    session.process.wait(SLOW_S)
    for each in flows.values():
        with suppress(ConnectionError, ssl.SSLEOFError):
            assert each.recv(1) == b""
        each.close()
    poll(lambda: not list(ours(place)), "the end of all processes")
    poll(lambda: "mitml4" not in lab.router.run("nft", "list", "tables").stdout, "no rules")


SCRIPT = """
flows = set()

def response(flow, request, response):
    flows.add(flow.number)
    response.headers["X-Flows"] = ",".join(map(str, sorted(flows)))
"""
RULE = '[[rule]]\nset-response-headers = {{ "X-Rule" = "{}" }}\n'


def test_rules_and_scripts_are_those_of_all_workers_which_end_with_the_session(
    client, intercept, tmp_path
):
    script, rules = tmp_path / "count.py", tmp_path / "rules.toml"
    script.write_text(SCRIPT)
    rules.write_text(RULE.format("first"))
    session = intercept(
        *("--workers", "2", "--drain", "0s", "--script", str(script), "--rules", str(rules))
    )
    visitor = Client(client, ssl.create_default_context(cafile=session.ca))
    flows = visitor.open_everywhere(session, 1)
    for each in flows.values():
        answer = request(each)
        assert f"X-Flows: {','.join(map(str, flows))}\r\n" in answer
        assert "X-Rule: first\r\n" in answer
    rules.write_text(RULE.format("second"))
    script.write_text(SCRIPT.replace("X-Flows", "X-Seen"))
    for each in flows.values():
        poll(partial(says, each, "X-Rule: second\r\n"), "the rule of now")
        poll(partial(says, each, "X-Seen: "), "the script of now")
    place = os.readlink(f"/proc/{session.process.pid}/ns/net")
    assert session.stop(signal.SIGTERM) == 0
    assert [e["reason"] for e in session.of_type("flow.close")] == ["shutdown"] * len(flows)
    assert session.events[-1]["flows"] == len(flows)
    poll(lambda: not list(ours(place)), "the end of all workers")
    for each in flows.values():
        assert lost(each)
        each.close()


def of_an_interface(intercept, _client):
    return intercept()


def with_the_address_of_the_client(intercept, _client):
    return intercept("--spoof-source")


def of_another_network(intercept, client):
    return intercept(scope=("--netns", client.namespace.path))


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor: one process")
@pytest.mark.parametrize(
    "begin", [of_an_interface, with_the_address_of_the_client, of_another_network]
)
def test_workers_are_started_once_many_connections_are_open(client, intercept, begin):
    session = begin(intercept, client)
    visitor = Client(client, ssl.create_default_context(cafile=session.ca))
    flows = [visitor.open() for _ in range(8)]
    assert not workers(session)
    flows += [visitor.open() for _ in range(2)]
    found = poll(lambda: workers(session), "a worker")
    place = client.namespace if begin is of_another_network else None
    while not any(carries(each, place) for each in found):
        flows.append(visitor.open())
        assert len(flows) < 100
    assert len({each.getpeercert(True) for each in flows}) == 1
    for each in flows:
        request(each)
        each.close()
    assert session.stop() == 0
    assert [e["flow"] for e in session.of_type("flow.open")] == [*range(1, len(flows) + 1)]
    assert {e["stack"][-1] for e in session.of_type("flow.close")} == {"http/1"}
