"""The synthesised capture: the same for everybody, and what it says it is."""

from itertools import islice
from pathlib import Path

import pytest

from bench.synthesis import synthesise
from mitml4.capture.datagrams import DatagramFlow
from mitml4.capture.files.reader import read_packets
from mitml4.capture.flow import Flow
from mitml4.capture.follow import Statistics, follow
from mitml4.capture.reports import Closed, Fault

SIZE = 2_000_000


def test_the_same_size_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = synthesise(tmp_path / "a", SIZE), synthesise(tmp_path / "b", SIZE)
    assert first.path.read_bytes() == second.path.read_bytes()


def test_a_smaller_one_is_the_beginning_of_a_larger_one(tmp_path: Path) -> None:
    half, whole = synthesise(tmp_path / "a", SIZE // 2), synthesise(tmp_path / "b", SIZE)
    assert whole.path.read_bytes().startswith(half.path.read_bytes())
    assert whole.bytes == pytest.approx(SIZE, rel=0.01)


def test_it_holds_the_packets_and_flows_that_it_says(tmp_path: Path) -> None:
    made = synthesise(tmp_path / "a", SIZE)
    statistics = Statistics()
    with made.path.open("rb") as stream:
        packets = list(read_packets(stream, "a"))
    reports = list(follow(packets, statistics=statistics))
    closed = [report for report in reports if isinstance(report, Closed)]
    tcp = [report.stack for report in closed if isinstance(report.flow, Flow)]
    udp = [report.stack for report in closed if isinstance(report.flow, DatagramFlow)]
    assert (len(packets), len(tcp)) == (made.packets, made.flows)
    assert not [report for report in reports if isinstance(report, Fault)]
    assert statistics.skipped == {}
    assert {*tcp} - {(), ("unknown",)} == {("http/1",), ("tls",)}
    assert {*udp} == {("dns",)}


def test_its_checksums_are_right(tmp_path: Path) -> None:
    made = synthesise(tmp_path / "a", 200_000)
    with made.path.open("rb") as stream:
        for _, _, data, start, end in islice(read_packets(stream, "a"), 300):
            frame = data[start:end]
            ipv4 = frame[12:14] == b"\x08\x00"
            at = 34 if ipv4 else 54
            addresses, protocol = (frame[26:34], frame[23]) if ipv4 else (frame[22:54], frame[20])
            transport = frame[at:] + b"\x00" * (len(frame[at:]) % 2)
            summed = addresses + bytes([0, protocol]) + len(frame[at:]).to_bytes(2, "big")
            assert int.from_bytes(summed + transport, "big") % 0xFFFF == 0
            assert not ipv4 or int.from_bytes(frame[14:34], "big") % 0xFFFF == 0
