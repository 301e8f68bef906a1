"""`python -m bench.held`: what 10,000 open connections cost, with the live table on a terminal.

Clients of several addresses hold TLS connections through one session, each of them decrypted, on
which a request was answered. Then nothing is said for a while, and the CPU time that the session
takes is that of its table. Then requests are made, on connections that are held and on new ones.

A connection takes two descriptors. Where the limit is too low for all, and this user may not raise
it, as many are held as it permits. A session looks at half of what its descriptors permit, and this
one at all.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import resource
import statistics
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from bench.figures import percentile
from bench.lab import (
    CLIENT_INTERFACE,
    CONGESTION_CONTROL,
    ENVIRONMENT,
    SERVER_IP,
    SERVER_NAME,
    TLS_PORT,
    Lab,
    wait_until,
)
from bench.processes import cpu_seconds, resident_bytes, stop

_ADDRESSES: Final = 8
_QUIET_S: Final = 30.0
_REQUESTS: Final = 800
_ROWS, _COLUMNS = 50, 160
_OWN_DESCRIPTORS: Final = 200
_ROOT: Final = Path(__file__).parent.parent

LOOK_AT_ALL: Final = f"""
from mitml4.session.flows.crowd import Limits
def of_machine(cls, workers=1):
    import resource
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = (descriptors - {_OWN_DESCRIPTORS}) // 2
    return cls(most * 4, most * 4, 32, descriptors)
Limits.of_machine = classmethod(of_machine)
from mitml4.__main__ import main
main()
"""
"""Without the shares of one client and one server, too."""


class Terminal:
    """What the table is drawn on: its bytes are counted, and forgotten."""

    def __init__(self) -> None:
        self._master, self.slave = pty.openpty()
        size = struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0)
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, size)
        self.bytes = 0
        self.last = b""
        threading.Thread(target=self._read, name="terminal", daemon=True).start()

    def _read(self) -> None:
        while data := os.read(self._master, 1 << 16):
            self.bytes += len(data)
            self.last = (self.last + data)[-(1 << 16) :]


@contextmanager
def session(lab: Lab, terminal: Terminal) -> Iterator[tuple[int, Path]]:
    """Its process, and the certificate that clients trust."""
    authority = lab.where / "ca"
    made = [sys.executable, "-m", "mitml4", "ca", "generate", "--ca-dir", str(authority)]
    subprocess.run(made, check=True, capture_output=True)
    options = ["--iface", CLIENT_INTERFACE, "--ca-dir", str(authority), "--drain", "1s"]
    options += ["--workers", "1"]
    argv = [sys.executable, "-c", LOOK_AT_ALL, "intercept", *options]
    argv += ["--upstream-ca", str(lab.server_ca)]
    ends: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), terminal.slave)
    environment = ENVIRONMENT | {"TERM": "xterm-256color"}
    process = lab.router.popen(argv, env=environment, start_new_session=True, **ends)
    try:
        wait_until(lambda: b"waiting" in terminal.last or terminal.bytes > 1000, "no table")
        time.sleep(2)
        yield process.pid, authority / "mitml4-ca.pem"
    finally:
        stop(process, grace_s=60)


class Holder:
    """A process with many connections from one address."""

    def __init__(self, lab: Lab, trust: Path, source: str, count: int) -> None:
        place = ["--ip", SERVER_IP, "--port", str(TLS_PORT), "--name", SERVER_NAME]
        argv = [sys.executable, "-m", "bench.holder", *place, "--trust", str(trust)]
        argv += ["--source", source, "--count", str(count)]
        self.process = lab.client.popen(
            argv,
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )

    def wait_held(self) -> int:
        return int(self._line().split()[1])

    def ask(self, where: str, count: int) -> list[float]:
        """The milliseconds of so many requests."""
        assert self.process.stdin
        self.process.stdin.write(f"{where} {count}\n")
        self.process.stdin.flush()
        return [seconds * 1000 for seconds in json.loads(self._line())]

    def _line(self) -> str:
        assert self.process.stdout
        return str(self.process.stdout.readline())


def addresses(lab: Lab) -> list[str]:
    found = [f"10.77.1.{number}" for number in range(10, 10 + _ADDRESSES)]
    for each in found:
        lab.client.run("ip", "address", "add", f"{each}/24", "dev", "eth0")
    return found


def possible(wanted: int) -> int:
    """How many the limit of descriptors permits."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(wanted, (hard - _OWN_DESCRIPTORS) // 2)


def quiet_share(pid: int, terminal: Terminal) -> tuple[float, float]:
    """The share of a core while nothing is said, and the bytes a second that are drawn."""
    cpu, drawn, began = cpu_seconds(pid), terminal.bytes, time.monotonic()
    time.sleep(_QUIET_S)
    took = time.monotonic() - began
    return (cpu_seconds(pid) - cpu) / took, (terminal.bytes - drawn) / took


def told(what: str, found: list[float]) -> str:
    return (
        f"{what}: median {statistics.median(found):.1f} ms, p99 {percentile(found, 0.99):.1f} ms, "
        f"most {max(found):.1f} ms ({len(found)})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.held", description=__doc__)
    parser.add_argument("--flows", type=int, default=10_000, help="(default: 10000)")
    wanted = parser.parse_args().flows
    count = possible(wanted) // _ADDRESSES
    with ExitStack() as stack:
        lab = stack.enter_context(Lab.open(1 << 20, CONGESTION_CONTROL))
        terminal = Terminal()
        sources = addresses(lab)
        pid, trust = stack.enter_context(session(lab, terminal))
        empty_mb = resident_bytes(pid) / 1e6
        empty, _ = quiet_share(pid, terminal)
        print(f"without connections: {empty_mb:.0f} MB, {empty:.2%} of a core", flush=True)
        before = cpu_seconds(pid)
        holders = [Holder(lab, trust, source, count) for source in sources]
        for each in holders:
            stack.callback(stop, each.process)
        held = sum(each.wait_held() for each in holders)
        cpu_ms = (cpu_seconds(pid) - before) * 1000 / held
        print(f"{held} connections, {cpu_ms:.1f} ms of CPU each", flush=True)
        time.sleep(5)
        share, drawn = quiet_share(pid, terminal)
        print(f"quiet: {resident_bytes(pid) / 1e6:.0f} MB, {share:.2%} of a core, {drawn:.0f} B/s")
        for where, what in (("held", "a request on one of them"), ("new", "a new connection")):
            asked = [each.ask(where, _REQUESTS // _ADDRESSES) for each in holders]
            print(told(what, [each for some in asked for each in some]), flush=True)
        print(f"in the end: {resident_bytes(pid) / 1e6:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
