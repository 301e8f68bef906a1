"""What is written is what is read again."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mitml4.capture.files import writer
from mitml4.capture.files.comments import CaptureSide
from mitml4.capture.files.reader import read_packets

START = writer.section("mitml4 test") + writer.interface(1, "eth0") + writer.interface(101, "tun0")
NS = 1_700_000_000_123_456_789


def packet(*what: Any, **options: Any) -> bytes:
    return b"".join(writer.packet(*what, **options))


def read(data: bytes) -> tuple[list[tuple[float, int, bytes]], list[bytes]]:
    """Packets, and secrets."""
    secrets: list[bytes] = []
    packets = [
        (time_s, link_type, bytes(buffer[start:end]))
        for time_s, link_type, buffer, start, end in read_packets(
            io.BytesIO(data), "x.pcapng", on_secrets=secrets.append
        )
    ]
    return packets, secrets


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1),
            st.integers(0, 1 << 62),
            st.binary(max_size=70),
            st.booleans(),
            st.none() | st.text(max_size=70),
        )
    )
)
def test_packets_come_back_whole_and_in_order(packets) -> None:
    blocks = [
        packet(number, time_ns, data, len(data) + 1, outbound=outbound, comment=comment)
        for number, time_ns, data, outbound, comment in packets
    ]
    found, _ = read(b"".join([START, *blocks]))
    assert [data for _, _, data in found] == [data for _, _, data, _, _ in packets]
    assert [link for _, link, _ in found] == [(1, 101)[number] for number, *_ in packets]
    assert [time_s for time_s, _, _ in found] == [time_ns / 10**9 for _, time_ns, *_ in packets]


def test_secrets_come_before_the_packets_behind_them() -> None:
    lines = [b"CLIENT_RANDOM 00 11", b"CLIENT_RANDOM 22 33"]
    _, secrets = read(START + writer.secrets(lines) + packet(0, NS, b"x", 1))
    assert secrets == [b"".join(line + b"\n" for line in lines)]


def test_a_comment_comes_with_the_time_of_its_packet() -> None:
    comments: list[tuple[float, str]] = []
    texts = ["flow 1, client's side: tls", "", "x", None, "ab", "äöü", "end"]
    blocks = [
        packet(0, number * 10**9, b"data"[:number], number, comment=text)
        for number, text in enumerate(texts)
    ]
    data = io.BytesIO(b"".join([START, *blocks]))
    list(read_packets(data, "x", on_comment=lambda *told: comments.append(told)))
    assert comments == [(float(number), text) for number, text in enumerate(texts) if text]


@given(st.integers(1, 10**18 - 1), st.sampled_from(["client", "server"]), st.text())
def test_a_side_comes_back_from_its_comment(flow: int, side, rest: str) -> None:
    known = CaptureSide(flow, side)
    assert CaptureSide.parse(f"{known}: {rest}") == known
    assert CaptureSide.parse(f"x{known}: {rest}") is None


def test_a_comment_that_is_too_long_is_cut() -> None:
    comment = "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}" * 40_000 + "\udcff"
    found, _ = read(START + packet(0, NS, b"x", 1, comment=comment))
    assert [data for _, _, data in found] == [b"x"]


def test_wireshark_reads_what_stands_beside_the_packets(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    frame = bytes(12) + b"\x08\x00" + bytes(20)
    path.write_bytes(
        START
        + packet(0, NS, frame, 1500, comment="socks5 › tls")
        + packet(0, NS, frame, 34, outbound=True)
        + writer.statistics(0, NS, received=2, dropped=1)
    )
    fields = ("frame.time_epoch", "frame.len", "frame.interface_name", "frame.comment")
    command = ["tshark", "-r", str(path), "-T", "fields", "-E", "separator=|"]
    command += [
        part for field in (*fields, "frame.packet_flags_direction") for part in ("-e", field)
    ]
    read = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    *said, direction = zip(*(line.split("|") for line in read.stdout.splitlines()), strict=True)
    assert said == [
        ("1700000000.123456789",) * 2,
        ("1500", "34"),
        ("eth0",) * 2,
        ("socks5 › tls", ""),
    ]
    assert [int(each, 0) for each in direction] == [1, 2]
