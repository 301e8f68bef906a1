"""`mitml4 run --allow`: the command cannot ask programs outside to do what it may not."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

SERVICES = """
import os, socket, subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "run", "/run"], check=True)
for directory in ("/run/dbus", "/run/plain", "/run/user/65534", "/run/user/0", "/run/deep/er"):
    os.makedirs(directory)
open("/run/plain/file", "w").write("shown")
open("/run/deep/file", "w").write("shown")
listening = []
for path in sys.argv[2].split(",") + ["\\0outside"]:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    if path[0] == "/":
        os.chmod(path, 0o777)
    listening.append(sock)
user = ["setpriv", f"--reuid={sys.argv[1]}", f"--regid={sys.argv[1]}", "--clear-groups"]
outside = subprocess.Popen([*user, "sleep", "600"])
leak = socket.create_server(("127.0.0.1", 0))
argv = [each.replace("@PID@", str(outside.pid)) for each in sys.argv[3:]]
code = subprocess.run(argv, pass_fds=[leak.fileno()]).returncode
outside.kill()
sys.exit(code)
"""

PROBE = """
import ctypes, errno, fcntl, json, os, socket, subprocess, sys, termios
paths, pid, program = sys.argv[1].split(","), int(sys.argv[2]), sys.argv[3]
libc = ctypes.CDLL(None, use_errno=True)
found = {"descriptors": len(os.listdir("/proc/self/fd")) - 1}

def attempt(name, what):
    try:
        what()
        found[name] = "done"
    except OSError as error:
        found[name] = errno.errorcode[error.errno]

def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")

def reach(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)

def look(name):
    os.listdir(f"/proc/{pid}/{name}")

for path in paths:
    attempt(path, lambda: reach(path))
attempt("abstract", lambda: reach("\\0outside"))
attempt("ptrace", lambda: call(101, 16, pid, 0, 0))
attempt("mem", lambda: open(f"/proc/{pid}/mem", "r+b").close())
attempt("fd", lambda: open(f"/proc/{pid}/fd/0").close())
for name in ("root/run", "cwd"):
    attempt(name, lambda: look(name))
attempt("pidfd_getfd", lambda: call(438, os.pidfd_open(pid), 0, 0))
attempt("setns", lambda: call(308, os.pidfd_open(pid), 0x40000000))
attempt("TIOCSTI", lambda: fcntl.ioctl(1, termios.TIOCSTI, b"x"))
found["umount"] = subprocess.run(
    ["unshare", "-Urm", "sh", "-c", "umount -l /run || umount -l /run/user"], stderr=-3
).returncode
found["setuid"] = subprocess.run([program, "-u"], capture_output=True, text=True).stdout.strip()
found["files"] = [open(f"/run/{each}/file").read() for each in ("plain", "deep")]

def serve_itself():
    own = f"/run/user/{os.getuid()}/own"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(own)
        listener.listen()
        reach(own)

attempt("own", serve_itself)
print(json.dumps(found))
"""


@pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
def test_what_is_outside_cannot_be_asked(host, root) -> None:
    place = host.home.parent
    tmux = place / "tmux"
    program = place / "id"
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    program.chmod(0o4755)
    for name, text in (("services.py", SERVICES), ("probe.py", PROBE)):
        (place / name).write_text(text)
    paths = ",".join(
        (
            *("/run/docker.sock", "/run/dbus/system_bus_socket", "/run/user/65534/bus"),
            *("/run/user/0/bus", "/run/deep/er/socket", str(tmux)),
        )
    )
    probe = ("/usr/bin/python3", str(place / "probe.py"), paths, "@PID@", str(program))
    uid = "0" if root else "65534"

    def probed(*options: str) -> tuple[dict[str, Any], str]:
        run = host.argv(*probe, options=options, root=root)
        tmux.unlink(missing_ok=True)
        services = ("/usr/bin/python3", str(place / "services.py"), uid, paths, *run)
        process = host.popen(host.shell(*services))
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        return json.loads(out), err

    usual, _ = probed()
    assert {usual[path] for path in paths.split(",")} == {"done"}
    assert usual["descriptors"] > 3
    found, err = probed("--allow", "www.example")
    assert found.pop("own") == "done"
    assert found.pop("files") == ["shown", "shown"]
    assert found.pop("descriptors") == 3
    assert found.pop("setuid") == uid
    assert found.pop("umount") != 0
    assert found.pop(str(tmux)) == "ECONNREFUSED"  # something else is in its place
    assert found.pop("abstract") == "ECONNREFUSED"
    for path in paths.split(",")[:-1]:
        assert found.pop(path) == "ENOENT"
    assert found
    assert {k: v for k, v in found.items() if v not in {"EPERM", "EACCES"}} == {}
    assert ("no root" in err) == root


def test_a_network_socket_as_a_standard_stream_is_refused(host) -> None:
    argv = host.argv("true", options=["--allow", "www.example"])
    with socket.create_server(("127.0.0.1", 0)) as sock:
        process = host.popen(argv, stdin=sock.fileno())
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "standard input is a socket" in err
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = host.popen(argv, stdin=theirs.fileno())
        process.communicate(timeout=60)
    assert process.returncode == 0
