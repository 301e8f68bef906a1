"""More connections than there are descriptors: they cost their own client, and nobody else."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from mitml4.lab.network import SERVER_V4

from .conftest import ROOT, SLOW_S

DESCRIPTORS = 400
OTHER_CLIENT = "192.0.2.3"
REQUEST = b"GET / HTTP/1.1\r\nHost: www.example\r\nConnection: close\r\n\r\n"


def limited(limit: str) -> list[str]:
    """Root may raise limits, and does; so this one is not to."""
    return ["prlimit", limit, "setpriv", "--bounding-set=-sys_resource"]


LIMITED = limited(f"--nofile={DESCRIPTORS}")


@pytest.fixture
def other_client(lab) -> Iterator[str]:
    lab.client.run("ip", "address", "add", f"{OTHER_CLIENT}/24", "dev", "eth0")
    yield OTHER_CLIENT
    lab.client.run("ip", "address", "del", f"{OTHER_CLIENT}/24", "dev", "eth0")


def connect(lab, source: str = "") -> socket.socket:
    return lab.client.call(
        lambda: socket.create_connection((SERVER_V4, 80), 10, source_address=(source, 0))
    )


def ask(connection: socket.socket) -> bytes:
    connection.sendall(REQUEST)
    answer = b""
    while data := connection.recv(65536):
        answer += data
    return answer


def is_refused(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
    except BlockingIOError:
        connection.settimeout(10)
        return False


def test_one_client_with_idle_connections_keeps_nobody_out(
    lab, intercept, nginx, other_client, capfd, tmp_path
) -> None:
    session = intercept(wrapper=LIMITED)
    with ExitStack() as stack:
        idle: list[socket.socket] = []
        for _ in range(DESCRIPTORS):
            with suppress(ConnectionRefusedError):
                idle.append(stack.enter_context(connect(lab)))
        with connect(lab, other_client) as connection:
            assert ask(connection).startswith(b"HTTP/1.1 200")
        session.wait_for(
            lambda: any(
                flow.closed and flow.opened["client"]["ip"] == other_client
                for flow in session.flows()
            ),
            "the other client's flow",
        )
        (innocent,) = (f for f in session.flows() if f.opened["client"]["ip"] == other_client)
        assert innocent.stack == ["http/1"]
        said = (tmp_path / "stderr.txt").read_text()
        carried = [connection for connection in idle if not is_refused(connection)]
        assert 0 < len(carried) < DESCRIPTORS
        assert ask(carried[0]).startswith(b"HTTP/1.1 200")
        assert ask(carried[-1]).startswith(b"HTTP/1.1 200")
    session.stop()
    stop = session.events[-1]
    assert stop["refused_connections"] == DESCRIPTORS - len(carried)
    assert said.count("too many connections, some are refused") == 1
    assert f"ulimit -n {DESCRIPTORS}" in said
    reasons = [
        (layer["details"] or {}).get("passthrough")
        for flow in session.flows()
        for layer in flow.layers
    ]
    assert reasons.count("too many connections") >= len(carried) // 3
    summary = (tmp_path / "stderr.txt").read_text()
    assert "× too many connections" in summary
    assert f"refused   {stop['refused_connections']} connections" in summary


@pytest.mark.parametrize(
    ("limit", "hint"), [("--nofile=40", "ulimit -n 1024"), ("--nproc=2", "ulimit -u")]
)
def test_a_session_that_could_serve_nobody_begins_nothing(lab, tmp_path, limit, hint):
    argv = [*limited(limit), sys.executable, "-m", "mitml4", "proxy", "--workers", "3"]
    argv += ["--listen", "127.0.0.1:0", "--ca-dir", str(tmp_path / "ca")]
    ended = lab.router.run(*argv, check=False, cwd=ROOT, timeout=SLOW_S)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr.endswith(f"\nhint: {hint}\n")
    assert list(tmp_path.iterdir()) == []
