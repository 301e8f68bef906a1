"""Python programs that begin with mitml4 imported already, which is most of the work of a start.

Each process of pytest has one server, which imports once and forks for each program. A program has
its own streams, environment, directory and session, as if Python had just been started. Tests about
what a start imports, or about standard streams that do not work, start Python themselves.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
from functools import cache
from pathlib import Path
from typing import IO, Any

PIPE, STDOUT = subprocess.PIPE, subprocess.STDOUT
Stream = int | IO[Any] | None
ROOT = Path(__file__).parents[1]
PRELOADED = (
    "mitml4.cli.detect",
    "mitml4.cli.view",
    "mitml4.session.session",
    "mitml4.sinks.table.capture",
    "mitml4.sinks.table.live",
)


class Program:
    """A running program, with the methods of subprocess.Popen that tests use."""

    def __init__(
        self,
        argv: list[str],
        *,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        start_new_session: bool = False,
        text: bool = False,
    ) -> None:
        """`argv` is what stands behind `python`: `-m MODULE …` or `-c CODE …`."""
        self.argv = argv
        self.returncode: int | None = None
        self._status, status = os.pipe()
        self.stdin, given = _opened(stdin, 0, text)
        self.stdout, output = _opened(stdout, 1, text)
        self.stderr, errors = _opened(stderr, 2, text) if stderr != STDOUT else (None, output)
        request = {
            "argv": argv,
            "env": dict(os.environ if env is None else env),
            "cwd": str(cwd or Path.cwd()),
            "session": start_new_session,
        }
        socket.send_fds(_server(), [json.dumps(request).encode()], [status, given, output, errors])
        os.close(status)
        for fd, asked in ((given, stdin), (output, stdout), (errors, stderr)):
            if asked == PIPE:
                os.close(fd)
        (self.pid,) = struct.unpack("i", os.read(self._status, 4))

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream:
                stream.close()
        self.wait()

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.argv, timeout or 0)
            (status,) = struct.unpack("i", os.read(self._status, 4))
            os.close(self._status)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _opened(asked: Stream, number: int, text: bool) -> tuple[Any, int]:
    """Our end of a stream if it is a pipe, and the program's."""
    if asked is None:
        return None, number
    if asked != PIPE:
        return None, asked if isinstance(asked, int) else asked.fileno()
    reading, writing = os.pipe()
    suffix = "" if text else "b"
    if number:
        return open(reading, "r" + suffix), writing
    return open(writing, "w" + suffix), reading


def run(
    argv: list[str],
    *,
    input: bytes | None = None,
    check: bool = False,
    timeout: float = 60,
    text: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """As subprocess.run(capture_output=True); the input, if any, comes from a pipe (64 KiB)."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if input is not None:
            options["stdin"] = PIPE
        with Program(argv, **{"stdout": out, "stderr": err, **options}) as program:
            if input is not None:
                program.stdin.write(input)
                program.stdin.close()
            code = program.wait(timeout)
        said: list[Any] = []
        for stream in (out, err):
            stream.seek(0)
            said.append(stream.read().decode() if text else stream.read())
    ended = subprocess.CompletedProcess(argv, code, *said)
    if check:
        ended.check_returncode()
    return ended


@cache
def _server() -> socket.socket:
    """Ends when this process does, since it reads from it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        code = f"from tests.programs import serve; serve({theirs.fileno()})"
        argv = [sys.executable, "-c", code]
        server = subprocess.Popen(
            argv, cwd=ROOT, pass_fds=[theirs.fileno()], start_new_session=True
        )

    def end() -> None:
        ours.close()
        server.wait()

    atexit.register(end)
    return ours


def serve(number: int) -> None:
    import gc
    import importlib

    sys.path[0] = str(ROOT)
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()
    requests = socket.socket(fileno=number)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    while True:
        data, fds, _, _ = socket.recv_fds(requests, 1 << 18, 4)
        if not data:
            return
        if not os.fork():
            requests.close()
            _run(json.loads(data), *fds)
        for fd in fds:
            os.close(fd)
        _reap()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _run(request: dict[str, Any], status: int, *streams: int) -> None:
    """In a child of the server, which stays to tell how the program ended."""
    pid = os.fork()
    if not pid:
        os.close(status)
        _become(request, streams)
    for fd in streams:
        os.close(fd)
    os.write(status, struct.pack("i", pid))
    os.write(status, struct.pack("i", os.waitpid(pid, 0)[1]))
    os._exit(0)


def _become(request: dict[str, Any], streams: tuple[int, ...]) -> None:
    import runpy
    import traceback

    for number, fd in enumerate(streams):
        os.dup2(fd, number)
    for fd in streams:
        os.close(fd)
    if request["session"]:
        os.setsid()
        if os.isatty(1):
            fcntl.ioctl(1, termios.TIOCSCTTY, 0)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.stdin = open(0)  # noqa: SIM115
    sys.stdout = open(1, "w", buffering=1 if os.isatty(1) else -1)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
    kind, program, *arguments = request["argv"]
    sys.argv = [program if kind == "-m" else kind, *arguments]
    code: object = 0
    try:
        if kind == "-m":
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code if isinstance(code, int) else int(code is not None))
