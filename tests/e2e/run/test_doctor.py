"""`mitml4 doctor` on a host of the tests' own, as root and as a user without any power."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mitml4.lab.snapshot import difference, take_snapshot

GROUPS = ["kernel", "tools", "privilege", "environment", "ca", "verdict"]

DROPPING = """
table inet wall {
  chain door {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    meta l4proto icmpv6 accept
    iif lo ip saddr 127.0.0.0/8 accept
  }
}
"""
# In a user namespace of the test's own, whose limit is its own.
NO_NAMESPACES = (
    *("unshare", "--user", "--map-root-user", "sh", "-c"),
    'echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all "$@"',
    "sh",
)
NO_TOOLS = (
    *("sh", "-c"),
    'for each in nft ip; do mount --bind /dev/null "$(readlink -f "$(command -v $each)")"; done; '
    'exec "$@"',
    "sh",
)


@dataclass
class Report:
    """What doctor said."""

    code: int
    checks: list[dict[str, Any]]

    def __getitem__(self, name: str) -> dict[str, Any]:
        return next(check for check in self.checks if check["name"] == name)

    def state(self, name: str) -> str:
        return self[name]["state"]


def command_line(host, *options: str, root: bool, wrapper: tuple[str, ...] = ()) -> list[str]:
    argv = host.argv("true", root=root)
    return [*argv[: argv.index(host.python)], *wrapper, host.python, "-m", "mitml4", *options]


def examine(host, *, root: bool, wrapper: tuple[str, ...] = (), **environ: str) -> Report:
    """Run it; the host must be as it was."""
    before = host.lab.router.call(take_snapshot)
    argv = command_line(host, "doctor", "--json", root=root, wrapper=wrapper)
    process = host.popen(argv, env=host.environ | environ)
    out, err = process.communicate(timeout=60)
    assert err == ""
    assert difference(before, host.lab.router.call(take_snapshot)) == ""
    return Report(process.returncode, [json.loads(line) for line in out.splitlines()])


def test_root_is_ready_for_both(host) -> None:
    report = examine(host, root=True)
    assert report.code == 0
    assert list(dict.fromkeys(check["group"] for check in report.checks)) == GROUPS
    assert [check for check in report.checks if check["state"] == "fail"] == []
    assert report["intercept"]["found"] == "ready"
    assert report["run"]["found"] == "ready, as root"
    assert report["nft"]["found"].startswith("nftables v")
    assert report["ip"]["found"].startswith("ip utility, iproute2-")


def test_a_user_is_ready_to_run(host) -> None:
    report = examine(host, root=False)
    assert report.code == 0
    assert report["run"]["found"] == "ready, without root"
    assert report.state("TPROXY") == "ok"
    assert report.state("intercept") == "fail"
    assert report["intercept"]["remedy"][0].startswith("sudo mitml4 intercept --iface ")
    assert report.state("input firewall") == "skip"


def test_a_wall_ends_intercept_and_not_run_until_its_remedy_is_taken(host) -> None:
    router = host.lab.router
    router.run("nft", "-f", "-", input=DROPPING)
    try:
        report = examine(host, root=True)
        assert report.code == 0
        assert (report.state("intercept"), report.state("run")) == ("fail", "ok")
        (remedy,) = report["intercept"]["remedy"]
        assert report["input firewall"]["remedy"] == [remedy]
        router.run(*shlex.split(remedy))
        assert examine(host, root=True).state("intercept") == "ok"
    finally:
        router.run("nft", "delete", "table", "inet", "wall")


def test_where_users_get_no_namespaces_nothing_can_work(host) -> None:
    report = examine(host, root=False, wrapper=NO_NAMESPACES)
    assert report.code == 3
    assert (report.state("intercept"), report.state("run")) == ("fail", "fail")
    assert "user.max_user_namespaces is 0" in report["user namespaces"]["found"]
    assert report["run"]["remedy"] == ["sysctl -w user.max_user_namespaces=10000"]
    assert report.state("TPROXY") == "skip"


def test_without_the_tools_nothing_can_work(host) -> None:
    report = examine(host, root=True, wrapper=NO_TOOLS)
    assert report.code == 3
    for name in ("nft", "ip"):
        assert (report.state(name), report[name]["found"]) == ("fail", "not installed")
    assert report["run"]["remedy"] == ["apt install nftables", "apt install iproute2"]
    assert report["intercept"]["remedy"] == report["run"]["remedy"]
    assert report.state("TPROXY") == "skip"


@pytest.mark.parametrize("lacking", ["-net_admin", "-net_raw", "-sys_admin"])
def test_root_without_all_its_powers(host, lacking: str) -> None:
    report = examine(host, root=True, wrapper=("setpriv", f"--bounding-set={lacking}"))
    assert report.code == 0
    assert report.state("TPROXY") == "ok"
    assert report.state("intercept") == ("ok" if lacking == "-sys_admin" else "fail")
    assert report.state("run") == "ok"


def test_root_of_another_user_namespace_has_no_power_here(host) -> None:
    report = examine(host, root=False, wrapper=("unshare", "--user", "--map-root-user"))
    assert report.code == 0
    assert "without power over this network" in report["CAP_NET_ADMIN"]["found"]
    assert (report.state("intercept"), report.state("run")) == ("fail", "ok")


def test_an_authority_is_looked_for_where_sessions_do(host) -> None:
    data = host.home / ".local/share"
    argv = command_line(host, "ca", "generate", root=False)
    assert host.popen(argv).wait(60) == 0
    report = examine(host, root=False)
    assert report.state("authority") == "ok"
    assert str(data / "mitml4") in report["authority"]["found"]
    assert (report.state("trust"), report["trust"]["remedy"]) == (
        "skip",
        ["sudo mitml4 ca install"],
    )


def test_people_get_a_list(host) -> None:
    process = host.popen(command_line(host, "doctor", root=False))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    lines = out.splitlines()
    assert [line for line in lines if not line.startswith(" ")][-1] == "verdict"
    marks = {line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "}
    assert marks == {"✓", "✗", "–"}
    remedies = [line.strip() for line in lines if line.startswith("     ")]
    assert "sudo mitml4 doctor" in remedies


def test_a_terminal_that_knows_no_ticks_is_no_error(host) -> None:
    environ = host.environ | {"PYTHONIOENCODING": "ascii"}
    process = host.popen(command_line(host, "doctor", root=False), env=environ)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "\\u2713 nf_tables" in out


def test_when_it_is_killed_nothing_stays(host, wait_until) -> None:
    """The wall makes it take its time."""
    router = host.lab.router
    router.run("nft", "-f", "-", input=DROPPING)
    try:
        before = router.call(take_snapshot)
        process = host.popen(command_line(host, "doctor", root=True), stdout=subprocess.DEVNULL)
        own = descendants_once_there_are(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until(lambda: not any(map(is_alive, own)), "its processes have ended")
        wait_until(lambda: router.call(take_snapshot) == before, "nothing stays")
    finally:
        router.run("nft", "delete", "table", "inet", "wall")


def descendants_once_there_are(pid: int) -> set[int]:
    """The children of a process, and theirs, as soon as there is a rehearsal's guard."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if len(found := set(iter_descendants(pid))) >= 3:
            return found
        time.sleep(0.005)
    pytest.fail("no rehearsal has begun")


def iter_descendants(pid: int):
    """Each thread has a list of its children."""
    for children in Path("/proc", str(pid), "task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, children.read_text().split()):
                yield child
                yield from iter_descendants(child)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
