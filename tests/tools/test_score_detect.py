"""The score tool, on a capture and a truth that are made here."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def frame(client_port: int, data: bytes) -> bytes:
    """A packet record: one TCP segment over raw IPv4, without a SYN."""
    tcp = struct.pack(">HHIIBBHHH", client_port, 80, 1, 1, 0x50, 0x10, 500, 0, 0) + data
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + bytes([192, 0, 2, 1])
    packet = ip + bytes([192, 0, 2, 2]) + tcp
    return struct.pack("<IIII", 1000, 0, len(packet), len(packet)) + packet


def truth(client_port: int, *stack: str, **fields: Any) -> str:
    row = {
        "pcap": "a.pcap",
        "client": ["192.0.2.1", client_port],
        "server": ["192.0.2.2", 80],
        "t0": "1000.0",
        "syn": True,
        "stack": stack,
        "confidence": "high",
    }
    return json.dumps(row | fields) + "\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 101)
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    starts = {1: request, 2: request, 3: b"\xff\xfe\xfd\xfc" * 9, 4: b"\0" * 40, 5: b"\1" * 40}
    (tmp_path / "a.pcap").write_bytes(
        header + b"".join(frame(port, data) for port, data in starts.items())
    )
    (tmp_path / "truth.jsonl").write_text(
        truth(1, "http/1")
        + truth(2, "ssh")
        + truth(3, "ssh", syn=False)
        + truth(4, "a-name-that-nobody-has")
        + truth(5, "ssh", confidence="low")
    )
    return tmp_path


def score(*arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "score_detect.py"), *arguments],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
    )
    return done.stdout.splitlines()


def test_disagreements_are_listed_and_counted(directory: Path) -> None:
    lines = score(str(directory))
    assert lines == [
        "high   a.pcap 192.0.2.1:2 → 192.0.2.2:80: known ssh, found http/1",
        "high   a.pcap 192.0.2.1:3 → 192.0.2.2:80: known ssh, found unknown"
        " (excused: its start was not seen)",
        "protocol              flows  precision   recall",
        "http/1                    1     50.00%  100.00%",
        "ssh                       1          -    0.00%",
        "all                       2     50.00%   50.00%",
        "2 of 3 flows have exactly the stack that is known",
    ]


def test_hints_are_listed_when_asked_for(directory: Path) -> None:
    assert any(line.startswith("low") for line in score(str(directory), "--hints"))
