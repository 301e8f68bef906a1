"""`intercept --pid`, `--netns`: the connections of programs that run already."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from OpenSSL.crypto import FILETYPE_PEM, load_certificate

from mitml4.lab.certificates import LabAuthority
from mitml4.lab.network import CLIENT_V4, SERVER_V4, SERVER_V6
from mitml4.lab.snapshot import difference, take_snapshot
from mitml4.net.netns import NetNamespace
from mitml4.tls.java_keystore import read_truststore, write_jks
from tests.e2e import forked
from tests.e2e.conftest import ROOT, SLOW_S, TIMEOUT_S, Machine, poll


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


def inside(program: subprocess.Popen[bytes], *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the network and the files of a program, and no variables for roots."""
    command = ["nsenter", f"--target={program.pid}", "--net", "--mount", *argv]
    environ = {"PATH": os.environ["PATH"]}
    return subprocess.run(command, capture_output=True, text=True, timeout=SLOW_S, env=environ)


def covers(program: subprocess.Popen[bytes]) -> list[str]:
    mounts = Path(f"/proc/{program.pid}/mounts").read_text().splitlines()
    return [line.split()[1] for line in mounts if line.startswith("mitml4-cover")]


@pytest.fixture
def program(client: Machine, authority: LabAuthority, tmp_path: Path) -> Iterator[Any]:
    """A program on the client's machine, with files of its own that it cannot write: a bundle and
    a directory with the lab's root, and the usual key store of Java."""
    certs = tmp_path / "certs"
    certs.mkdir()
    root = authority.root.read_bytes()
    (certs / "ca-certificates.crt").write_bytes(root)
    (certs / f"{load_certificate(FILETYPE_PEM, root).subject_name_hash():08x}.0").write_bytes(root)
    (certs / "java").mkdir()
    (certs / "java/cacerts").write_bytes(write_jks([ssl.PEM_cert_to_DER_cert(root.decode())]))
    script = f"mount --bind {certs} /etc/ssl/certs && mount -o remount,bind,ro /etc/ssl/certs"
    command = ["unshare", "--mount", "sh", "-c", f"{script} && echo ready && exec sleep 600"]
    with client.namespace.popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


def test_the_connections_of_a_running_program_are_intercepted(
    intercept, program, client, beside, nginx, authority
):
    """In its own network: with its addresses, and without those that come to it, or that stay
    inside. Its programs trust the CA for as long."""
    before = client.namespace.call(take_snapshot)
    v4, v6 = listen(beside, SERVER_V4, 7100), listen(beside, SERVER_V6, 7100)
    loopback, own_server = listen(client, "127.0.0.1", 7100), listen(client, CLIENT_V4, 7100)
    with v4, v6, loopback, own_server:
        session = intercept(scope=("--pid", str(program.pid)), roots=())
        watch = session.watch()
        (start,) = session.of_type("session.start")
        assert start["attached"] == f"process {program.pid}"
        assert start["interfaces"] == ["eth0"]
        for listener, address in ((v4, SERVER_V4), (v6, SERVER_V6)):
            own, seen = exchange(client, listener, address)
            assert own == seen
        exchange(client, loopback, "127.0.0.1")
        exchange(beside, own_server, CLIENT_V4)
        with pytest.raises(ConnectionRefusedError):
            client.connect(SERVER_V4, 7101)
        flows = watch.flows(3)
        assert [flow.closed["reason"] for flow in flows] == ["closed", "closed", "refused"]
        assert {flow.opened["container"] for flow in flows} == {None}
        assert {flow.opened["process"]["pid"] for flow in flows} == {os.getpid()}

        watch = session.watch()
        # The machine's other files of roots follow, which are the program's, too.
        assert covers(program)[:3] == [
            *("/etc/ssl/certs", "/etc/ssl/certs/ca-certificates.crt"),
            "/etc/ssl/certs/java/cacerts",
        ]
        at = f"https://{SERVER_V4}/"
        for argv in (
            ("curl", "--silent", "--show-error", "--fail", at),
            ("openssl", "s_client", "-connect", f"{SERVER_V4}:443", "-verify_return_error"),
        ):
            ended = inside(program, *argv)
            assert ended.returncode == 0, ended.stderr
        ours = ssl.PEM_cert_to_DER_cert(session.ca.read_text())
        certs = Path(f"/proc/{program.pid}/root/etc/ssl/certs")
        (for_guile,) = certs.glob("*.pem")
        assert ssl.PEM_cert_to_DER_cert(for_guile.read_text()) == ours
        assert read_truststore((certs / "java/cacerts").read_bytes()) == [
            ssl.PEM_cert_to_DER_cert(authority.root.read_text()),
            ours,
        ]
        assert inside(program, "touch", "/etc/ssl/certs/new").returncode
        assert [flow.layer("tls")["action"] for flow in watch.flows(2)] == ["intercepted"] * 2
        assert "mitml4-cover" not in Path("/proc/self/mounts").read_text()

        session.stop()
        assert covers(program) == []
        assert difference(before, client.namespace.call(take_snapshot)) == ""


def test_open_connections_live_on_or_are_reset_and_a_session_ends_with_its_program(
    intercept, program, client, beside
):
    listener = listen(beside, SERVER_V4, 7100)
    own_server = listen(client, CLIENT_V4, 7100)
    with listener, own_server, client.connect(SERVER_V4, 7100) as old, listener.accept()[0] as far:
        session = intercept("--no-trust", scope=("--pid", str(program.pid)))
        assert covers(program) == []
        say(old, far)
        session.stop()
        say(old, far)

        with beside.connect(CLIENT_V4, 7100) as visitor, own_server.accept()[0] as visited:
            session = intercept("--reset-existing", scope=("--pid", str(program.pid)))
            with pytest.raises(ConnectionError):
                say(old, far)
            say(visitor, visited)
        assert "note: 1 open connection was reset" in session.said()
    program.kill()
    assert session.wait_ended() == 0
    assert f"note: process {program.pid} has ended" in session.said()
    assert session.events[-1]["reason"] == "target ended"


def test_a_killed_session_leaves_nothing_in_another_network(lab, client, program, tmp_path):
    before = client.namespace.call(take_snapshot)
    argv = [sys.executable, "-m", "mitml4", "intercept", "--netns", f"/proc/{program.pid}/ns/net"]
    argv += ["--json", "--ca-dir", str(tmp_path / "ca")]
    out = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with lab.router.popen(argv, cwd=ROOT, **out) as process:
        assert b"session.start" in process.stdout.readline()
        assert difference(before, client.namespace.call(take_snapshot)) != ""
        assert covers(program) != []
        process.kill()
    poll(lambda: difference(before, client.namespace.call(take_snapshot)) == "", "all is undone")
    poll(lambda: covers(program) == [], "nothing is covered")


def test_a_loopback_that_is_down_is_named_as_the_cause(lab, tmp_path):
    with NetNamespace() as network:
        network.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
        network.run("ip", "address", "add", "203.0.113.1/24", "dev", "eth0")
        for name in ("eth0", "eth1"):
            network.run("ip", "link", "set", name, "up")
        network.run("ip", "route", "add", "default", "via", "203.0.113.2")
        for namespace, scope, where in (
            (lab.router, ("--netns", network.path), "lo is down in it"),
            (network, ("--iface", "eth0"), "lo is down"),
        ):
            argv = ["intercept", *scope, "--ca-dir", str(tmp_path / "ca"), "--duration", "1s"]
            ended = forked.run(argv, namespace=namespace, cwd=ROOT)
            assert ended.returncode == 3
            assert f"hint: {where}, and they arrive over it" in ended.stderr
            assert "ip link set lo up" in ended.stderr
