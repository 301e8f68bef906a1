"""Which process has opened a connection: over loopback, with real sockets and processes."""

import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from mitml4.address import Address
from mitml4.net.owner import processes
from mitml4.net.owner.diag import Owned, open_diag, owned
from mitml4.net.owner.finder import OwnerFinder
from mitml4.net.owner.processes import ProcessTable
from mitml4.process import Process, RunningProcess

_CONNECT = (
    "import os, socket, sys\n"
    "for _ in range({number}):\n"
    "    sock = socket.create_connection(('{ip}', {port}))\n"
    "    os.dup(sock.fileno()); print(*sock.getsockname()[:2], flush=True)\n"
    "sys.stdin.read()"
)


def listening(ip: str = "127.0.0.1") -> socket.socket:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    return socket.create_server((ip, 0), family=family)


@contextmanager
def connected(to: socket.socket, number: int = 1) -> Iterator[tuple[int, list[Address]]]:
    """A process with connections: its number, and their own addresses."""
    ip, port, *_ = to.getsockname()
    code = _CONNECT.format(number=number, ip=ip, port=port)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout
        rows = [program.stdout.readline().split() for _ in range(number)]
        yield program.pid, [Address(ip, int(port)) for ip, port in rows]
        program.communicate()


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
def test_the_kernel_names_the_socket_of_a_client_and_no_other(ip: str) -> None:
    with listening(ip) as listener, open_diag() as diag:
        server = Address.of(listener.getsockname())
        with socket.create_connection((server.ip, server.port)) as sock:
            client = Address.of(sock.getsockname())
            found = owned(diag, client, server)
            assert found == Owned(os.fstat(sock.fileno()).st_ino, os.geteuid())
        assert owned(diag, client, Address(server.ip, 1)) is None
        # The kernel names the socket that listens there.
        assert owned(diag, server, Address(server.ip, 1)) is None


def test_a_process_is_described_as_it_is() -> None:
    with listening() as listener, open_diag() as diag, connected(listener) as (pid, (client,)):
        server = Address.of(listener.getsockname())
        found = owned(diag, client, server)
        assert found
        running = ProcessTable().find(found)
        assert running
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - running.started_s
        assert 0 <= age_s < 60
        process = running.process
        directory = Path(f"/proc/{pid}")
        assert (process.pid, process.uid) == (pid, os.geteuid())
        assert process.name == (directory / "comm").read_text().rstrip("\n")
        assert process.command[:2] == (sys.executable, "-c")
        assert process.cgroup
        assert f":{process.cgroup}\n" in (directory / "cgroup").read_text()


def test_processes_are_told_apart_and_found_again_without_a_look_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = ProcessTable()
    with listening() as listener, open_diag() as diag:
        server = Address.of(listener.getsockname())
        with connected(listener, 3) as (first, one), connected(listener, 3) as (second, two):
            expected = dict.fromkeys(one, first) | dict.fromkeys(two, second)
            found = {client: owned(diag, client, server) for client in expected}
            clients = sorted(expected, key=lambda client: client.port)
            monkeypatch.setattr(table, "_scan", lambda _owned: None)
            monkeypatch.setattr(table, "_started_last", lambda: iter((first, second)))
            for client in clients:
                running = table.find(found[client])
                assert running
                assert running.process.pid == expected[client]
        assert table.find(found[clients[0]]) is None


def test_what_nobody_has_is_looked_for_everywhere_only_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at: list[float] = []
    cpu_s = itertools.count()
    clock = SimpleNamespace(thread_time=lambda: float(next(cpu_s)))  # a look takes a second of it
    monkeypatch.setattr(processes, "time", clock)
    table = ProcessTable()
    monkeypatch.setattr(table, "_all", lambda: looked_at.append(clock.monotonic()) or [])
    for now_s in (1000.0, 1001.0, 1009.0, 1010.0, 1011.0):
        clock.monotonic = partial(float, now_s)
        assert table.find(Owned(1, os.geteuid())) is None
    assert looked_at == [1000.0, 1010.0]


@pytest.mark.parametrize(
    ("rows", "path"),
    [
        ("0::/system.slice/nginx.service\n", "/system.slice/nginx.service"),
        ("1:name=systemd:/user.slice\n0::/\n", "/user.slice"),
        ("4:memory:/a\n1:name=systemd:/user.slice\n", "/user.slice"),
        ("4:memory:/a\n0::/\n", "/"),
        ("4:memory:/a\n", None),
    ],
)
def test_the_cgroup_is_that_of_version_2_or_else_of_systemd(
    tmp_path: Path, rows: str, path: str | None
) -> None:
    (tmp_path / "loadavg").write_text("0 0 0 1/1 7\n")
    (directory := tmp_path / "7" / "fd").mkdir(parents=True)
    (directory / "3").symlink_to("socket:[99]")
    for name, text in {
        "stat": f"7 (a b) c) S {' '.join(map(str, range(30)))}",
        "status": "Name:\tx\nTgid:\t7\nUid:\t1\t2\t3\t4\n",
        "cmdline": "x\0-y\0",
        "cgroup": rows,
    }.items():
        (tmp_path / "7" / name).write_text(text)
    table = ProcessTable(root=str(tmp_path))
    expected = Process(pid=7, uid=2, name="a b) c", command=("x", "-y"), cgroup=path)
    ticks = os.sysconf("SC_CLK_TCK")
    assert table.find(Owned(99, os.geteuid())) == RunningProcess(expected, 18 / ticks)


async def test_a_helper_finds_them_while_a_session_runs() -> None:
    told: list[RunningProcess | None] = []
    both = trio.Event()

    def tell(process: RunningProcess | None) -> None:
        told.append(process)
        if len(told) == 2:
            both.set()

    with (
        listening() as listener,
        connected(listener) as (pid, (client,)),
        OwnerFinder.start(open_diag()) as finder,
    ):
        server = Address.of(listener.getsockname())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(finder.run)
            finder.ask(client, server, tell)
            finder.ask(Address("127.0.0.1", 1), server, tell)
            with trio.fail_after(10):
                await both.wait()
            nursery.cancel_scope.cancel()
    assert [running and running.process.pid for running in told] == [pid, None]


async def test_no_connection_waits_for_a_helper_that_does_not_answer_or_has_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    told: list[RunningProcess | None] = []
    server = Address("127.0.0.1", 1)
    with OwnerFinder(ours) as finder, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(finder.run)
            for _ in range(1000):  # more than there is room for
                finder.ask(server, server, told.append)
            began = trio.current_time()
            await trio.sleep(1)
            assert told == [None] * 1000
            assert trio.current_time() - began < 1.1
            finder.ask(server, server, told.append)
            theirs.close()
            await trio.sleep(0.05)
            finder.ask(server, server, told.append)
            assert told == [None] * 1002
            nursery.cancel_scope.cancel()
    assert told == [None] * 1002
