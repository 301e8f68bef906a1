"""Programs under test begin as a user's do, whatever pytest itself was started with.

And nobody is hurried: how long an example takes is the machine's affair.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "unhurried",
    deadline=None,
    derandomize=True,  # so that a change fails by its own fault
    max_examples=15,  # `make fuzz` tries many more, and others each time
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("unhurried")

os.umask(0o022)

# Imports and thousands of collected tests leave no garbage, and searching them takes long.
gc.set_threshold(50_000)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


# What is ignored is ignored in children too: nohup's SIGHUP, or SIGINT in a shell's background.
# What has a handler is at its default there (execve(2)), and does as little here.
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
for number in signal.valid_signals():
    if number not in IGNORED_BY_PYTHON and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)


def packets_of(port: int, exchanged: list[tuple[str, bytes]]) -> Iterator[bytes]:
    """The records (pcap) of one TCP connection from a port to 192.0.2.2:80."""
    syn, ack, fin = 2, 16, 17
    seq = {"up": 1, "down": 1}
    steps = [("up", syn, b""), ("down", syn | ack, b"")]
    steps += [(direction, ack, data) for direction, data in exchanged]
    for direction, flags, data in [*steps, ("up", fin, b""), ("down", fin, b"")]:
        other = "down" if direction == "up" else "up"
        ends = (b"\xc0\0\2\1", b"\xc0\0\2\2")
        ports = (port, 80) if direction == "up" else (80, port)
        seen = 0 if flags == syn else seq[other]
        tcp = struct.pack("!HHIIBBHHH", *ports, seq[direction], seen, 0x50, flags, 65535, 0, 0)
        head = struct.pack("!BBHHHBBH", 0x45, 0, 40 + len(data), 0, 0, 64, 6, 0)
        packet = head + b"".join(ends if direction == "up" else ends[::-1]) + tcp + data
        yield struct.pack("<IIII", 1_700_000_000, 0, len(packet), len(packet)) + packet
        seq[direction] += max(len(data), flags != ack)


@pytest.fixture
def write_capture(tmp_path: Path) -> Callable[..., Path]:
    """Writes a capture: for each connection, what `up` (the client) and `down` sent, in order."""

    def write(*connections: list[tuple[str, bytes]], name: str = "capture.pcap") -> Path:
        path = tmp_path / name
        link_type_raw = 101
        head = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link_type_raw)
        records = (
            record
            for port, connection in enumerate(connections, 40000)
            for record in packets_of(port, connection)
        )
        path.write_bytes(head + b"".join(records))
        return path

    return write


@pytest.fixture
def http_capture(write_capture: Callable[..., Path]) -> Path:
    """A capture of one HTTP exchange."""
    request = b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n"
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    return write_capture([("up", request), ("down", response)])


@pytest.fixture(scope="session")
def mirroring() -> Iterator[SimpleNamespace]:
    """The tool that compares ClientHellos: its comparison, and where hellos come from."""
    tools = str(Path(__file__).parents[1] / "tools")
    sys.path.insert(0, tools)
    comparison, hellos = map(importlib.import_module, ("mirroring.comparison", "mirroring.hellos"))
    yield SimpleNamespace(**vars(comparison), distinct=hellos.distinct, files_in=hellos.files_in)
    sys.path.remove(tools)
