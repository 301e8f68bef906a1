"""`intercept --pid`, `--netns`: the connections of programs that run already."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mitml4.lab.network import CLIENT_V4, SERVER_V4, SERVER_V6
from mitml4.lab.snapshot import difference, take_snapshot
from tests.e2e.conftest import ROOT, TIMEOUT_S, Machine, poll


def listen(machine: Machine, address: str, port: int) -> socket.socket:
    """Listening there; whoever connects is accepted by `greet`."""
    listener = machine.namespace.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.settimeout(TIMEOUT_S)
    listener.bind((address, port))
    listener.listen()
    return listener


def exchange(client: Machine, listener: socket.socket, address: str) -> tuple[str, str]:
    """Connect, and say something in both directions; returns the addresses of the client, as it
    sees itself and as the server does."""
    with client.connect(address, listener.getsockname()[1]) as sock:
        accepted, peer = listener.accept()
        with accepted:
            say(sock, accepted)
            return sock.getsockname()[0], peer[0]


def say(one: socket.socket, other: socket.socket) -> None:
    for sender, receiver in ((one, other), (other, one)):
        sender.sendall(b"\xc0\xffhello")
        receiver.settimeout(TIMEOUT_S)
        assert receiver.recv(7, socket.MSG_WAITALL) == b"\xc0\xffhello"


@pytest.fixture
def program(client: Machine) -> Iterator[subprocess.Popen[bytes]]:
    """A program on the client's machine."""
    with client.namespace.popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def test_the_connections_of_a_running_program_are_intercepted(
    intercept, program, lab, client, beside
):
    """In its own network: with its addresses, and without those that were open, that come to it, or
    that stay inside."""
    before = client.namespace.call(take_snapshot)
    v4, v6 = listen(beside, SERVER_V4, 7100), listen(beside, SERVER_V6, 7100)
    inside, at_home = listen(client, "127.0.0.1", 7100), listen(client, CLIENT_V4, 7100)
    with v4, v6, inside, at_home, client.connect(SERVER_V4, 7100) as old, v4.accept()[0] as far:
        session = intercept(scope=("--pid", str(program.pid)))
        watch = session.watch()
        (start,) = session.of_type("session.start")
        assert start["attached"] == f"process {program.pid}"
        assert start["interfaces"] == ["eth0"]
        for listener, address in ((v4, SERVER_V4), (v6, SERVER_V6)):
            own, seen = exchange(client, listener, address)
            assert own == seen
        say(old, far)
        exchange(client, inside, "127.0.0.1")
        exchange(beside, at_home, CLIENT_V4)
        with pytest.raises(ConnectionRefusedError):
            client.connect(SERVER_V4, 7101)
        flows = watch.flows(3)
        say(old, far)
    assert [flow.opened["destination"]["ip"] for flow in flows] == [SERVER_V4, SERVER_V6, SERVER_V4]
    assert [flow.closed["reason"] for flow in flows] == ["closed", "closed", "refused"]
    assert {flow.opened["container"] for flow in flows} == {None}

    program.kill()
    assert session.wait_ended() == 0
    assert f"note: process {program.pid} has ended" in session.said()
    assert session.events[-1]["reason"] == "target ended"
    assert difference(before, client.namespace.call(take_snapshot)) == ""


def test_a_killed_session_leaves_nothing_in_another_network(lab, client, program, tmp_path):
    before = client.namespace.call(take_snapshot)
    argv = [sys.executable, "-m", "mitml4", "intercept", "--netns", f"/proc/{program.pid}/ns/net"]
    argv += ["--json", "--ca-dir", str(tmp_path / "ca")]
    out = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with lab.router.popen(argv, cwd=ROOT, **out) as process:
        assert b"session.start" in process.stdout.readline()
        assert difference(before, client.namespace.call(take_snapshot)) != ""
        process.kill()
    poll(lambda: difference(before, client.namespace.call(take_snapshot)) == "", "all is undone")
