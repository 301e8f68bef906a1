"""A session and its guard are killed, and `mitml4 cleanup` removes what is left, and only that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from mitml4.lab.snapshot import difference, take_snapshot
from mitml4.net.identity import Identity
from mitml4.net.netns import NetNamespace
from mitml4.net.rules.cleanup import find_remains, remove_leftover
from mitml4.net.rules.guard import Guard, add_policy_routes

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60
V4 = "198.51.100.2"


@pytest.fixture(autouse=True)
def no_demo_but_ours(tmp_path, monkeypatch):
    """A demo that somebody has killed on this machine has left a directory too."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def cleanup(host: NetNamespace, *options: str, check: bool = True) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mitml4", "cleanup", *options]
    done = host.run(*command, cwd=ROOT, timeout=PATIENCE_S, check=False)
    assert "Traceback" not in done.stderr
    assert not check or done.returncode == 0, done.stderr
    return done


def children(pid: int) -> list[int]:
    """A process's: whichever of its threads has started them."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for each in lists for child in each.read_text().split()]


def start(host: NetNamespace, directory: Path, iface: str) -> subprocess.Popen:
    """A session that is ready."""
    process = host.popen(
        [
            *(sys.executable, "-m", "mitml4", "intercept", "--iface", iface, "--json"),
            *("--ca-dir", str(directory / "ca")),
        ],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert b"session.start" in process.stdout.readline()
    return process


def kill_with_guard(process: subprocess.Popen) -> None:
    """Stopped first, or the session would undo what its guard can no longer. nft ends by itself,
    when the session's end of its pipe is gone."""
    process.send_signal(signal.SIGSTOP)
    try:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        (shell,) = children(process.pid)
        os.kill(shell, signal.SIGKILL)
    finally:
        process.kill()


@pytest.fixture
def killed(lab, tmp_path, wait_until):
    """A session on the router's wan, killed together with its guard. What the router was like."""
    before = lab.router.call(take_snapshot)
    with start(lab.router, tmp_path, "wan") as process:
        kill_with_guard(process)
    tables = ["nft", "list", "tables"]
    wanted = before.count("table inet mitml4_")
    wait_until(
        lambda: lab.router.run(*tables).stdout.count("mitml4_") == wanted, "its table has gone"
    )
    yield before
    cleanup(lab.router)


def test_where_nothing_is_left_there_is_nothing_to_do(lab):
    before = lab.router.call(take_snapshot)
    for options in ((), ("--dry-run",)):
        done = cleanup(lab.router, *options)
        assert (done.stdout, done.stderr) == ("", "there is nothing to clean up\n")
    assert lab.router.call(take_snapshot) == before


def test_what_a_killed_session_has_left_goes_and_nothing_else(lab, killed):
    left = difference(killed, lab.router.call(take_snapshot))
    assert "fwmark 0x4d" in left
    assert "local default dev lo table" in left
    done = cleanup(lab.router)
    assert done.stdout == ""
    assert done.stderr.count("ip -4 rule del") == done.stderr.count("ip -6 rule del") == 3
    assert lab.router.call(take_snapshot) == killed
    assert cleanup(lab.router).stderr == "there is nothing to clean up\n"


def test_a_dry_run_lists_commands_that_do_it_and_does_nothing(lab, killed):
    left = lab.router.call(take_snapshot)
    done = cleanup(lab.router, "--dry-run")
    assert done.stderr == ""
    assert lab.router.call(take_snapshot) == left
    lab.router.run("sh", "-e", input=done.stdout)
    assert lab.router.call(take_snapshot) == killed


def test_a_session_that_runs_beside_it_goes_on_intercepting(
    lab, intercept, client, serve_once, tmp_path, wait_until
):
    serve_once("socat", "TCP-LISTEN:7001,fork,reuseaddr", "EXEC:cat", port=7001)
    session = intercept()  # which compares the machine before and after
    alive = lab.router.call(take_snapshot)
    watch = session.watch()
    with client.connect(V4, 7001) as open_connection:
        open_connection.sendall(b"\xc0\xffbefore")
        assert open_connection.recv(100) == b"\xc0\xffbefore"
        with start(lab.router, tmp_path / "other", "wan") as process:
            kill_with_guard(process)
        wait_until(
            lambda: lab.router.run("nft", "list", "tables").stdout.count("mitml4_") == 1,
            "the other's table has gone",
        )
        assert difference(alive, lab.router.call(take_snapshot)) != ""
        table = session.of_type("session.start")[0]["table"]
        done = cleanup(lab.router)
        assert f"# {table}: a session is running, and left alone" in done.stderr
        assert lab.router.call(take_snapshot) == alive
        open_connection.sendall(b"after")
        assert open_connection.recv(100) == b"after"
    with client.connect(V4, 7001) as sock:
        sock.sendall(b"\xc0\xffanew")
        assert sock.recv(100) == b"\xc0\xffanew"
    assert len(watch.flows(2)) == 2


@pytest.fixture
def host():
    """A host with a loopback and nothing else."""
    with NetNamespace() as namespace:
        namespace.run("ip", "link", "set", "lo", "up")
        yield namespace


@pytest.mark.parametrize(
    "commands",
    [
        "ip rule add priority 302 nop",
        "ip rule add priority 300 fwmark 0x4d800000 lookup 100",
        "ip rule add priority 301 fwmark 0x4d/0xff lookup 100; ip rule add priority 302 nop",
        "ip route add local default dev lo table 100",
        "ip route add local 192.0.2.0/24 dev lo table 1295253504",
        "nft add table inet mitml4; nft add table inet mitml4_x; nft add table ip mitml4_1",
        "nft add table inet mitml4_64",
        "ip link add mitml4_1p type bridge; ip link add mitml4_x type veth peer name mitml4_y",
    ],
)
def test_what_only_looks_like_ours_stays(host, commands):
    host.run("sh", "-ec", commands)
    before = host.call(take_snapshot)
    assert cleanup(host).stderr == "there is nothing to clean up\n"
    assert host.call(take_snapshot) == before


@pytest.mark.parametrize(
    "commands",
    [
        "nft add table inet mitml4_1",
        "ip link add mitml4_63p type veth peer name x; nft add table inet mitml4_63",
        "ip -6 route add local default dev lo table 1295253505",
        "ip rule add priority 304 fwmark 0x4d810000/0xffff0000 lookup 1295253505",
    ],
)
def test_whatever_part_is_left_goes(host, commands):
    before = host.call(take_snapshot)
    host.run("sh", "-ec", commands)
    assert difference(before, host.call(take_snapshot)) != ""
    cleanup(host)
    assert host.call(take_snapshot) == before


def test_a_session_that_takes_the_slot_meanwhile_keeps_its_routes(host):
    identity = Identity(5)

    async def race() -> bool:
        await add_policy_routes(identity, ipv6=True)
        (leftover,) = (await find_remains()).left
        holder = await Guard.hold(identity)
        assert holder is not None
        try:
            return await remove_leftover(leftover)
        finally:
            await holder.aclose()

    before = host.call(take_snapshot)
    assert not host.call(lambda: trio.run(race))
    assert "fwmark 0x4d85" in difference(before, host.call(take_snapshot))
    cleanup(host)
    assert host.call(take_snapshot) == before


def test_it_takes_power(host):
    done = host.run(
        *("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"),
        *(sys.executable, "-m", "mitml4", "cleanup"),
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr == (
        "error: cleaning up needs CAP_NET_ADMIN\nhint: run as root: sudo mitml4 …\n"
    )


def test_the_directory_of_a_killed_demo_goes_and_that_of_a_running_one_stays(host):
    code = (
        "from mitml4.lab.scratch import scratch_directory\n"
        "with scratch_directory() as place:\n"
        "    (place / 'ca').mkdir(); print(place, flush=True); input()"
    )
    demos = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    with demos[0] as killed, demos[1] as running:
        left, used = (Path(demo.stdout.readline().strip()) for demo in demos)
        killed.kill()
        killed.wait()
        command = [sys.executable, "-m", "mitml4", "cleanup"]
        shown = host.run(*command, "--dry-run", cwd=ROOT)
        assert shown.stdout == f"rm -r {left}\n"
        assert left.exists()
        assert host.run(*command, cwd=ROOT).stderr == f"rm -r {left}\n"
        assert not left.exists()
        assert used.exists()
        running.communicate("\n", timeout=PATIENCE_S)
    assert not used.exists()
