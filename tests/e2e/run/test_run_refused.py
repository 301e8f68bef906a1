"""Machines that make no namespaces for their users, each with its cause."""

from __future__ import annotations

import pytest

NO_MORE = """
echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all "$@"
"""

# seccomp(2): a filter as containers have it, under which unshare(CLONE_NEWUSER) is not permitted.
CONTAINER = """
import ctypes, os, struct, sys
program = b"".join(struct.pack("HBBI", *each) for each in (
    (0x20, 0, 0, 0),            # the number of the call
    (0x15, 0, 1, 272),          # unshare, on x86-64
    (0x06, 0, 0, 0x00050001),   # EPERM
    (0x06, 0, 0, 0x7FFF0000),   # allowed
))
buffer = ctypes.create_string_buffer(program)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
filled = Program(4, ctypes.addressof(buffer))
assert libc.prctl(22, 2, ctypes.byref(filled), 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"""


def refusal(host, *wrapper: str) -> str:
    """What mitml4 says of a machine that a wrapper makes; the command must not have run."""
    argv = host.argv("touch", "ran")
    at = argv.index(host.python)
    process = host.popen([*argv[:at], *wrapper, *argv[at:]])
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert not (host.home / "ran").exists()
    assert err.count("\n") == 2, err
    return err


def test_a_limit_of_zero_is_named(host) -> None:
    """In a user namespace of the test's own, whose limit is its own."""
    err = refusal(host, "unshare", "--user", "--map-root-user", "sh", "-c", NO_MORE, "sh")
    assert "user.max_user_namespaces is 0" in err
    assert "hint: sudo sysctl -w user.max_user_namespaces=" in err


def test_a_containers_filter_is_named(host) -> None:
    err = refusal(host, "/usr/bin/python3", "-c", CONTAINER)
    assert "seccomp" in err


@pytest.mark.parametrize(
    ("limit", "hint"),
    [("--nofile=16", "ulimit -n"), ("--nofile=24", "ulimit -n"), ("--nproc=1", "ulimit -u")],
)
def test_a_limit_of_the_users_is_named(host, limit: str, hint: str) -> None:
    assert refusal(host, "prlimit", limit).endswith(f"\nhint: {hint}\n")
