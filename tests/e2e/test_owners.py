"""`intercept --user`, `--cgroup`: connections that some programs of this host start."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mitml4.errors import MitmError
from mitml4.lab.network import SERVER_V4, SERVER_V6
from mitml4.lab.snapshot import difference, take_snapshot
from mitml4.net.rules.cgroups import find_cgroup
from tests.e2e.conftest import TIMEOUT_S

NOBODY = 65534
PORT = 7001
CONNECT = f"""
import socket
for address in ({SERVER_V4!r}, {SERVER_V6!r}):
    with socket.create_connection((address, {PORT}), {TIMEOUT_S}) as sock:
        sock.sendall(b"\\xc0\\xffhello")
        assert sock.recv(7, socket.MSG_WAITALL) == b"\\xc0\\xffhello"
"""


@pytest.fixture(autouse=True)
def echo(serve_once) -> None:
    serve_once(
        *("socat", f"TCP6-LISTEN:{PORT},fork,reuseaddr,ipv6only=0,backlog=256", "EXEC:cat"),
        port=PORT,
    )


@pytest.fixture
def connect(lab):
    """Lets a program of the router connect, behind a command that changes whose it is."""

    def run(*before: str) -> None:
        lab.router.run(*before, sys.executable, "-c", CONNECT, timeout=TIMEOUT_S, check=True)

    return run


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup with another one beside it."""
    try:
        find_cgroup("/gone")
    except MitmError as error:
        if "there is no cgroup" not in error.message:
            pytest.skip(error.message)
    name = f"mitml4-tests-{os.getpid()}"
    mount = next(
        Path(row.split()[4])
        for row in Path("/proc/self/mountinfo").read_text().splitlines()
        if " - cgroup2 " in row
    )
    try:
        (directory := mount / name / "a.service").mkdir(parents=True)
    except OSError as error:
        pytest.skip(f"{mount}: {error}")
    (mount / name / "b.service").mkdir()
    yield directory
    for each in (directory / "inside", directory, mount / name / "b.service", mount / name):
        with suppress(FileNotFoundError):
            each.rmdir()


def within(directory: Path) -> tuple[str, ...]:
    return "sh", "-c", f'echo 0 > {directory}/cgroup.procs && exec "$@"', "sh"


def test_only_the_connections_of_a_user_are_intercepted(intercept, lab, connect) -> None:
    as_nobody = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    before = lab.router.call(take_snapshot)
    session = intercept(scope=("--user", "nobody"))
    (start,) = session.of_type("session.start")
    assert (start["attached"], start["interfaces"]) == ("user nobody", [])
    watch = session.watch()
    connect()
    connect(*as_nobody)
    flows = watch.flows(2)
    assert [flow.opened["destination"]["ip"] for flow in flows] == [SERVER_V4, SERVER_V6]
    assert {flow.opened["process"]["uid"] for flow in flows} == {NOBODY}
    session.stop()
    assert len(session.flows()) == 2
    assert difference(before, lab.router.call(take_snapshot)) == ""


def test_only_the_connections_of_a_cgroup_are_intercepted_also_after_it_is_made_anew(
    intercept, lab, connect, cgroup, wait_until
) -> None:
    """As by the restart of a unit."""
    beside, inside = cgroup.with_name("b.service"), cgroup / "inside"
    session = intercept(scope=("--cgroup", f"{cgroup.parent.name}/a.service"))
    assert not list(cgroup.parent.glob("mitml4*"))
    watch = session.watch()
    connect()
    connect(*within(beside))
    connect(*within(cgroup))
    first = watch.flows(2)
    inside.mkdir()
    connect(*within(inside))
    second = watch.flows(4)[2:]
    paths = [flow.opened["process"]["cgroup"] for flow in (*first, *second)]
    path = f"/{cgroup.parent.name}/a.service"
    assert paths == [path, path, f"{path}/inside", f"{path}/inside"]
    inside.rmdir()
    cgroup.rmdir()
    wait_until(lambda: "has gone" in session.said(), "a note that it has gone")
    connect(*within(beside))
    cgroup.mkdir()
    wait_until(lambda: "is there anew" in session.said(), "a note that it has come back")
    connect(*within(beside))
    connect(*within(cgroup))
    watch.flows(6)
    session.stop()
    assert len(session.flows()) == 6


def test_a_session_that_has_entered_a_container_and_none_of_its_cgroups_finds_them(
    intercept, connect, cgroup
) -> None:
    """As by nsenter(1): the paths of cgroups are the container's, and the session is in none."""
    mount = cgroup.parents[1]
    outside = f'echo 0 > {mount}/cgroup.procs && mount --bind {cgroup.parent} {mount} && exec "$@"'
    apart = ("unshare", "--cgroup", "--mount", "sh", "-c", outside, "sh")
    wrapper = (*within(cgroup.parent), *apart)
    session = intercept(scope=("--cgroup", "/a.service"), wrapper=wrapper)
    watch = session.watch()
    connect(*within(cgroup.with_name("b.service")))
    connect(*within(cgroup))
    watch.flows(2)
