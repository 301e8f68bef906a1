"""Shows what a process is like at the start of its program, in JSON."""

import ctypes
import gc
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

KEPT = (
    *("Name", "Umask", "Tracer", "Uid", "Gid", "Groups", "NStgid", "Threads", "Sig", "Shd", "Cap"),
    *("NoNewPrivs", "Seccomp", "Speculation", "Cpus_allowed"),
)
WORDS = ("NStgid", "SigQ")
PR_GET_PDEATHSIG, PR_GET_DUMPABLE = 2, 3

process = Path("/proc/self")
libc = ctypes.CDLL(None)
dies_with = ctypes.c_int()
libc.prctl(PR_GET_PDEATHSIG, ctypes.byref(dies_with), 0, 0, 0)
mounts = (process / "mountinfo").read_text().splitlines()
streams: tuple[Any, ...] = (
    sys.stdin,
    sys.stdout,
    sys.stderr,
    sys.__stdin__,
    sys.__stdout__,
    sys.__stderr__,
)
descriptors = {}
for name in os.listdir(process / "fd"):
    with suppress(FileNotFoundError):  # of the listing itself
        found = os.readlink(process / "fd" / name)
        if "libffi" not in found:  # which ctypes may keep open
            descriptors[name] = found.partition(":")[0]

json.dump(
    {
        "status": [
            line
            for line in (process / "status").read_text().splitlines()
            if line.startswith(KEPT) and not line.startswith(WORDS)
        ],
        "command line": (process / "cmdline").read_bytes().rstrip(b"\0").decode().split("\0"),
        "program": os.readlink(process / "exe"),
        "owner": (process / "fd").stat().st_uid,
        "dies with its parent": dies_with.value,
        "dumpable": libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0),
        "limits": (process / "limits").read_text(),
        "out of memory": (process / "oom_score_adj").read_text(),
        "cgroup": (process / "cgroup").read_text(),
        "nice": os.nice(0),
        "session": [os.getsid(0), os.getpgrp()],
        "descriptors": descriptors,
        "namespaces": {
            each: os.readlink(process / "ns" / each)
            for each in os.listdir(process / "ns")
            if each != "mnt"
        },
        "mounts": [line.split()[3:6] for line in mounts],
        "shared mounts": [line for line in mounts if "shared:" in line],
        "signals": {
            number: str(signal.getsignal(number)).partition(" at ")[0]
            for number in signal.valid_signals()
        },
        "directory": os.getcwd(),
        "environment": dict(os.environ),
        "arguments": [sys.argv, sys.orig_argv],
        "interpreter": [sys.path, str(sys.flags), sys.prefix, sys.dont_write_bytecode, __name__],
        "streams": [
            [
                *(repr(each), each.errors, each.line_buffering, each.write_through),
                *(each.fileno(), each.buffer.raw.closefd, each.buffer.raw.mode),
                type(each.buffer).__name__,
            ]
            for each in streams
        ],
        "garbage": gc.isenabled(),
    },
    sys.stdout,
)
sys.stderr.write(sys.stdin.read())
sys.exit(7)
