"""Forks processes that continue as `python -m mitml4 …` would, without its imports.

`python -c TEXT SOCKET PADDING`, where TEXT is that of this file (tests/e2e/forked.py). It imports
what a session imports first, and generates what classes and expressions would generate at their
first use. Then each message of the socket asks for a process: what it is to be like, in JSON, with
the descriptors of its standard input, output and error, of its network namespace, and of a pipe, on
which its process id is told at once and its wait status at its end.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import io
import json
import os
import runpy
import selectors
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

PRELOADED = (
    "mitml4.cli.intercept",
    "mitml4.cli.run",
    "mitml4.session.intercept",
    "mitml4.session.session",
    "mitml4.session.run",
    "mitml4.sinks.lines",
)
CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000
PR_SET_DUMPABLE = 4


def main() -> None:
    gc.set_threshold(100_000)  # as mitml4.__main__ does before it imports
    importlib.import_module("mitml4.cli.main")
    for name in PRELOADED:
        importlib.import_module(name)
    importlib.import_module("mitml4.session.imports").import_all()
    generate()
    gc.freeze()  # or the first collection in each child would copy all pages
    asked = socket.socket(fileno=int(sys.argv[1]))
    if request := serve(asked):
        continue_as(*request)


def generate() -> None:
    """What the classes and expressions of mitml4 would generate at their first use."""
    dataclass = importlib.import_module("mitml4.dataclass")
    regex = importlib.import_module("mitml4.regex").regex
    waiting = dataclass._first_init(object).__qualname__
    for each in gc.get_objects():
        if isinstance(each, regex):
            getattr(each, "match")  # noqa: B009
        elif isinstance(each, type):
            name = getattr(vars(each).get("__init__"), "__qualname__", "")
            if name == waiting:
                setattr(each, "__init__", dataclass._generated_init(each))  # noqa: B010


def serve(asked: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Returns in each child, with what is asked of it, and in the server at the end."""
    with selectors.DefaultSelector() as selector:
        selector.register(asked, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is asked:
                    text, descriptors, _, _ = socket.recv_fds(asked, 1 << 20, 5)
                    if not text:
                        return None
                    pid = os.fork()
                    if not pid:
                        return json.loads(text), descriptors
                    *others, report = descriptors
                    for descriptor in others:
                        os.close(descriptor)
                    os.write(report, b"%d\n" % pid)
                    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, report))
                else:
                    pid, report = key.data
                    selector.unregister(key.fileobj)
                    os.close(key.fd)
                    os.write(report, b"%d\n" % os.waitpid(pid, 0)[1])
                    os.close(report)


def continue_as(request: dict[str, Any], descriptors: list[int]) -> None:
    *standard, network, _ = descriptors
    libc = ctypes.CDLL(None, use_errno=True)
    check(libc.setns(network, CLONE_NEWNET))
    for target, descriptor in enumerate(standard):
        os.dup2(descriptor, target)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        renew(name, mode)
    os.environ.clear()
    os.environ.update(request["env"])
    if inside := request["inside"]:
        with open(inside["mounts"]) as mounts:
            check(libc.setns(mounts.fileno(), CLONE_NEWNS))
        os.chroot(inside["root"])
    if request["mounts"]:
        check(libc.unshare(CLONE_NEWNS))
        subprocess.run(["sh", "-c", f"mount --make-rprivate /; {request['mounts']}"], check=True)
    os.chdir(request["cwd"])
    if user := request["user"]:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        check(libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))  # as after execve(2)
    trio._core._run._r.seed()  # forks would schedule alike
    argv = [sys.executable, "-m", request["module"], *request["arguments"]]
    overwrite_command_line(argv)
    sys.orig_argv[:] = argv
    sys.argv[:] = ["-m", *request["arguments"]]
    sys.path[0] = os.getcwd()
    try:
        runpy._run_module_as_main(request["module"])  # type: ignore[attr-defined]  # as `-m` does
    except SystemExit as ended:
        if isinstance(ended.code, int):
            end(ended.code)
        raise


def end(code: int) -> None:
    """As Python ends, but for its last work: to free each object would first copy its page.
    Returns if an output cannot be written, for Python to say so."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def check(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def renew(name: str, mode: str) -> None:
    """As Python opens it at its start: by lines on a terminal only, and errors always."""
    old = getattr(sys, name)
    raw = io.FileIO(old.fileno(), mode, closefd=False)
    raw.name = f"<{name}>"
    buffered = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
    lines = name == "stderr" or raw.isatty()
    new = io.TextIOWrapper(buffered, old.encoding, old.errors, "\n", line_buffering=lines)
    vars(new)["mode"] = mode
    setattr(sys, name, new)
    setattr(sys, f"__{name}__", new)


def overwrite_command_line(argv: list[str]) -> None:
    """What others read of it in /proc; zeros follow, where it is shorter than the padding."""
    start, end = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:47])
    text = b"\0".join(map(os.fsencode, argv))[: end - start - 1]
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, text, len(text))


main()
