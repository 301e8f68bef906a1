"""What a command cannot do to the session that it runs in, as a user without power and as root."""

from __future__ import annotations

import json

import pytest

WEB = "https://www.example/"

PROBE = """
import ctypes, errno, json, os, socket, struct, sys

buffer = ctypes.create_string_buffer(8)
libc = ctypes.CDLL(None, use_errno=True)
found = {}

def attempt(name, what):
    try:
        what()
        found[name] = "done"
    except OSError as error:
        found[name] = errno.errorcode[error.errno]

def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")

def ours(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as line:
            program, *rest = line.read().split("\\0")
    except OSError:
        return False
    return "python" in program and sys.argv[1] in rest

def read(name):
    with open(name, "rb") as file:
        file.read(1)

def all_threads(pid):
    tasks = f"/proc/{pid}/task"
    return [f"/proc/{pid}", *(f"{tasks}/{each}" for each in os.listdir(tasks))]

pids = {int(name) for name in os.listdir("/proc") if name.isdigit()} - {os.getpid()}
of_mitml4 = [pid for pid in pids if ours(pid)]
found["processes"] = len(of_mitml4)
for pid in of_mitml4:
    for place in all_threads(pid):
        for name in ("mem", "maps", "environ", "auxv", "fd/0", "fd/3", "ns/net", "cwd", "root"):
            attempt(f"{name} of {place}", lambda: read(f"{place}/{name}"))
    attempt(f"ptrace {pid}", lambda: call(101, 16, pid, 0, 0))
    there = struct.pack("PN", ctypes.addressof(buffer), 8)
    attempt(f"process_vm_readv {pid}", lambda: call(310, pid, there, 1, there, 1, 0))
    pidfd = os.pidfd_open(pid)
    attempt(f"pidfd_getfd {pid}", lambda: call(438, pidfd, 0, 0))
    attempt(f"setns {pid}", lambda: call(308, pidfd, 0x40000000))
for family in ("AF_VSOCK", "AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"):
    attempt(family, lambda: socket.socket(getattr(socket, family), socket.SOCK_RAW if
        family == "AF_NETLINK" else socket.SOCK_STREAM).close())
attempt("io_uring_setup", lambda: call(425, 1, 0))
attempt("own child", lambda: os.waitstatus_to_exitcode(os.system("exec true")))
print(json.dumps(found))
"""


@pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
def test_a_command_reads_nothing_of_mitml4_and_has_no_way_around(host, root: bool) -> None:
    probe = host.scratch / "probe.py"
    probe.write_text(PROBE)
    ended = host.run("/usr/bin/python3", str(probe), str(host.root_certificate), root=root)
    found = json.loads(ended.out)
    # The session's, the keeper of the namespace, and the finder of processes (net/owner).
    assert found.pop("processes") == 3
    for name in ("AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "own child"):
        assert found.pop(name) == "done"
    assert found.pop("AF_VSOCK") == "EAFNOSUPPORT"
    assert found.pop("io_uring_setup") == "ENOSYS"
    assert found
    assert "done" not in found.values(), found


@pytest.mark.parametrize("caller", ["user", "root", "sudo"])
def test_the_session_itself_goes_on_without_files_and_programs(host, nginx, caller: str) -> None:
    environ = {"SUDO_USER": "nobody"} if caller == "sudo" else {}
    visit = f"cat /proc/$PPID/status; curl -sS -o /dev/null {WEB}"
    command = f"trap 'exit 7' TERM; {visit}; kill -TERM $PPID; sleep 60 >/dev/null 2>&1 & wait"
    ended = host.run("sh", "-c", command, root=caller != "user", env=environ)
    assert ended.code == 7  # the signal has been passed on
    assert ended.stacks == [["tls", "http/2"]]
    lines = dict(line.split(":\t", 1) for line in ended.out.splitlines() if ":\t" in line)
    (uid,) = set(lines["Uid"].split())
    assert uid != "0"
    assert (uid == "65534") == (caller != "root")
    assert int(lines["CapEff"], 16) == (0 if caller == "user" else 1 << 5 | 3 << 12)
    assert (lines["NoNewPrivs"], lines["Seccomp"]) == ("1", "2")
