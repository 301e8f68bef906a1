"""Programs that run in a namespace of the lab, and end with all their children."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from mitml4.net.netns import NetNamespace

from .measure import tree

__all__ = ["IsolatedServer", "listening_ports"]

_START_TIMEOUT_S: Final = 60.0


def listening_ports() -> set[int]:
    """TCP ports that are listened on in the calling thread's namespace."""
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path("/proc/thread-self/net", name).read_text().splitlines()[1:]
    ]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}


class IsolatedServer:
    """A server in a PID namespace, with a hosts file and no resolver; it can be killed, stopped
    and started again at any time."""

    def __init__(
        self, namespace: NetNamespace, hosts: Path, argv: Sequence[str], port: int, **options: Any
    ) -> None:
        """Start it. The shell stays, as the first process of the PID namespace: all end with it."""
        bind = f"mount --bind {hosts} /etc/hosts && mount --bind /dev/null /etc/resolv.conf"
        bind += " && mount -t tmpfs run /run && mkdir -p /run/sshd && mount -t tmpfs shm /dev/shm"
        isolated = [
            "--mount",
            "--propagation",
            "private",
            "--ipc",
            "--pid",
            "--fork",
            "--kill-child",
        ]
        self._argv = ["unshare", *isolated, "sh", "-c", f'{bind} && "$@"; exit $?', "sh", *argv]
        self._namespace = namespace
        self._options = options
        self.name = Path(argv[0]).name
        self.port = port
        self._process: subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        """Does not wait until it listens."""
        self._process = self._namespace.popen(
            self._argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **self._options,
        )

    def wait_until_ready(self) -> None:
        """Starts it again if it has ended: the port may have been taken. Raises TimeoutError."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while self.port not in self._namespace.call(listening_ports):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} does not listen on {self.port}")
            if self._process.poll() is not None:
                self.start()
            time.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        """To all of its processes but unshare."""
        for pid in tree(self._process.pid)[1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """All of it, at once: a PID namespace ends before its first process does."""
        with suppress(OSError, LookupError):
            first = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            os.kill(int(first.read_text().split()[0]), signal.SIGKILL)
            self._process.wait(10)
        self._process.kill()
        self._process.wait()
