"""Starts of mitml4 without its imports, which are nine tenths of the CPU time of a start, and ends
without the freeing of all objects.

A server per interpreter (fork_server.py) has imported what a session imports first, and forks each
of these processes. It then takes the namespaces, mounts, user, environment, directory, descriptors
and command line that are asked for, and continues as `python -m mitml4` does. All else is as after
execve(2), since the server has started a moment ago from pytest and changed nothing
(test_forked.py compares). Its parent is the server, and not pytest.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from mitml4.net.netns import NetNamespace

_SERVER = Path(__file__).with_name("fork_server.py")
_PADDING = "." * 8192
_KEY = ("PYTHON", "LC_", "LANG")
"""Variables that an interpreter reads at its start begin like this."""

_servers: dict[tuple[Any, ...], _Server] = {}


class _Server:
    def __init__(self, program: str, env: Mapping[str, str]) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [program, "-c", _SERVER.read_text(), str(theirs.fileno()), _PADDING],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=env,
                cwd="/",
            )

    def close(self) -> None:
        self.socket.close()
        self.process.wait()


def close_servers() -> None:
    while _servers:
        _servers.popitem()[1].close()


def start(
    arguments: Sequence[str],
    *,
    namespace: NetNamespace | None = None,
    cwd: Path,
    stdin: int,
    stdout: int,
    stderr: int | IO[str],
    env: Mapping[str, str] = os.environ,
    program: str = sys.executable,
    mounts: str = "",
    inside: tuple[int, Path] | None = None,
    user: int = 0,
    module: str = "mitml4",
) -> Forked:
    """`program -m mitml4 ARGUMENTS` as a new process, in text mode; descriptors as Popen takes
    them. `mounts` is a script that a new mount namespace begins with. `inside` is a process, whose
    mount and network namespaces it enters, and a directory there that becomes its root."""
    read = {name: value for name, value in env.items() if name.startswith(_KEY)}
    key = (program, *sorted(read.items()))
    if key not in _servers:
        _servers[key] = _Server(program, {"PATH": os.environ["PATH"]} | read)
    request: dict[str, Any] = {
        "arguments": arguments,
        "env": dict(env),
        "cwd": str(cwd),
        "mounts": mounts,
        "inside": inside and {"mounts": f"/proc/{inside[0]}/ns/mnt", "root": str(inside[1])},
    }
    request |= {"user": user, "module": module}
    network = f"/proc/{inside[0] if inside else 'self'}/ns/net"
    descriptor = os.dup(namespace.fd) if namespace else os.open(network, os.O_RDONLY)
    return Forked(_servers[key].socket, request, descriptor, (stdin, stdout, stderr))


def run(
    arguments: Sequence[str], *, namespace: NetNamespace | None = None, cwd: Path, **settings: Any
) -> subprocess.CompletedProcess[str]:
    """The same to its end, without a standard input."""
    pipes: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }
    with start(arguments, namespace=namespace, cwd=cwd, **pipes, **settings) as process:
        out, err = process.communicate(timeout=100)
    return subprocess.CompletedProcess(arguments, process.wait(), out, err)


class Forked:
    """What a test needs of subprocess.Popen."""

    def __init__(
        self,
        server: socket.socket,
        request: dict[str, Any],
        network: int,
        standard: tuple[int | IO[str], ...],
    ) -> None:
        self.returncode: int | None = None
        self._lock = threading.Lock()
        self._report, report = os.pipe()
        theirs = []
        files: list[IO[str] | None] = []
        for number, wanted in enumerate(standard):
            ours = None
            if wanted == subprocess.PIPE:
                ends = os.pipe()
                ours, other = ends if number else ends[::-1]
            elif wanted == subprocess.DEVNULL:
                other = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            else:
                other = os.dup(wanted if isinstance(wanted, int) else wanted.fileno())
            theirs.append(other)
            files.append(None if ours is None else open(ours, "r" if number else "w"))  # noqa: SIM115
        self.stdin, self.stdout, self.stderr = files
        theirs += [network, report]
        socket.send_fds(server, [json.dumps(request).encode()], theirs)
        for each in theirs:
            os.close(each)
        self.pid = int(self._line())

    def _line(self) -> bytes:
        """Of the server's report, in which none is without its end."""
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(self._report, 1)
            if not byte:
                raise RuntimeError("the fork server has ended")
            line += byte
        return line

    def wait(self, timeout: float | None = None) -> int:
        with self._lock:
            if self.returncode is None:
                poller = select.poll()
                poller.register(self._report, select.POLLIN)
                if not poller.poll(None if timeout is None else timeout * 1000):
                    raise subprocess.TimeoutExpired("mitml4", timeout or 0)
                self.returncode = os.waitstatus_to_exitcode(int(self._line()))
                os.close(self._report)
            return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(
        self, given: str | None = None, timeout: float | None = None
    ) -> tuple[str, ...]:
        """Until its outputs have ended, which are read as they come, and it itself."""
        outputs = ["", ""]

        def read(number: int, file: IO[str]) -> None:
            outputs[number] = file.read()

        readers = [
            threading.Thread(target=read, args=each, daemon=True)
            for each in enumerate((self.stdout, self.stderr))
            if each[1]
        ]
        for reader in readers:
            reader.start()
        if self.stdin:
            with suppress(BrokenPipeError), self.stdin:
                self.stdin.write(given or "")
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired("mitml4", timeout or 0)
        return tuple(outputs)

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self.stdin, self.stdout, self.stderr):
            if file:
                file.close()
        self.wait()
