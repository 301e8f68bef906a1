"""What a process can no longer do once it is confined: tried in processes of their own."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from mitml4.net.capabilities import Capability

CONFINED = """
import errno, json, os, socket, subprocess, sys, threading
from mitml4.net.capabilities import Capability
from mitml4.net.confinement import confine
from mitml4.net.libc import prctl

waiting, go, over = threading.Event(), threading.Event(), threading.Event()
found = {}

def status(task):
    lines = open(f"/proc/self/task/{task}/status").read().splitlines()
    return dict(line.split(":\\t", 1) for line in lines if ":\\t" in line)

def attempt(what):
    try:
        what()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def earlier():
    waiting.set()
    go.wait()
    over.set()

# before
threading.Thread(target=earlier).start()
waiting.wait()
readable = os.open("/etc/shadow", os.O_RDONLY) if os.geteuid() == 0 else None
confine({Capability.NET_ADMIN, Capability.NET_RAW})
found["threads"] = [status(task) for task in os.listdir("/proc/self/task")]
found["main"] = status(os.getpid())
later = threading.Thread(target=lambda: found.update(later=status(threading.get_native_id())))
later.start()
later.join()
marked = socket.socket()
found |= {
    "mark": attempt(lambda: marked.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 7)),
    "transparent": attempt(lambda: marked.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)),
    "file": attempt(lambda: open("/etc/shadow")),
    "make": attempt(lambda: open("/root/made", "x")),
    "program": attempt(lambda: subprocess.run(["true"])),
    "root": attempt(lambda: os.setuid(0)),
    "open": "done" if readable is None else attempt(lambda: os.read(readable, 1)),
    "dumpable": prctl(3),
}
go.set()
over.wait()
print(json.dumps(found))
"""
NET = 1 << Capability.NET_ADMIN | 1 << Capability.NET_RAW
NOBODY = pwd.getpwnam("nobody")


def confined(*wrapper: str, before: str = "", **environ: str) -> dict[str, Any]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("SUDO_")}
    argv = [*wrapper, sys.executable, "-c", CONFINED.replace("# before", before)]
    done = subprocess.run(argv, env=env | environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def sets(status: dict[str, str]) -> Sequence[int]:
    return [int(status[f"Cap{name}"], 16) for name in ("Prm", "Eff", "Inh", "Amb", "Bnd")]


def assert_powerless(found: dict[str, Any]) -> None:
    assert found["program"] == "EPERM"
    assert found["dumpable"] == 0
    for status in found["threads"]:
        assert status["Seccomp"] == "2"
    for status in (found["main"], found["later"]):
        assert status["NoNewPrivs"] == "1"


@pytest.mark.parametrize("caller", [None, "root", "nobody"])
def test_root_becomes_somebody_without_files_or_who_called_sudo(caller: str | None) -> None:
    found = confined(**({"SUDO_USER": caller} if caller else {}))
    assert_powerless(found)
    for status in (found["main"], found["later"]):
        assert sets(status) == [NET, NET, 0, 0, 0]
    for status in found["threads"]:
        ids = {*status["Uid"].split(), *status["Gid"].split()}
        if caller == "nobody":
            assert ids == {str(NOBODY.pw_uid), str(NOBODY.pw_gid)}
        else:
            (number,) = ids
            assert 61184 <= int(number) < 65520
        assert status["Groups"].split() == []
        assert sets(status)[0] in (0, NET)
    assert [found[each] for each in ("mark", "transparent", "open")] == ["done"] * 3
    assert [found[each] for each in ("file", "make")] == ["EACCES"] * 2
    assert found["root"] == "EPERM"


def test_where_no_other_user_is_known_it_stays_root_of_nothing() -> None:
    """As in the user namespace of `mitml4 demo`."""
    found = confined("unshare", "--user", "--map-root-user")
    assert_powerless(found)
    assert sets(found["main"]) == [NET, NET, 0, 0, 0]
    assert found["main"]["Uid"].split() == ["0"] * 4


def test_a_user_with_a_capability_keeps_it_and_their_name() -> None:
    found = confined(
        before="""
from mitml4.net.capabilities import keep_only, outliving_root
with outliving_root():
    os.setresgid(54321, 54321, 54321)
    os.setresuid(54321, 54321, 54321)
keep_only({Capability.NET_ADMIN})
"""
    )
    assert_powerless(found)
    assert sets(found["main"])[:2] == [1 << Capability.NET_ADMIN] * 2
    assert found["main"]["Uid"].split() == ["54321"] * 4
