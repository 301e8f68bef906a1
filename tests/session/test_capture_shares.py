"""One capture that several processes read: the lines are those of one process."""

from __future__ import annotations

import errno
import marshal
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from bench.synthesis import synthesise
from mitml4.capture import reassembly, sharing
from mitml4.capture.files.reader import read_packets
from mitml4.capture.follow import follow
from mitml4.capture.packet import Packet
from mitml4.capture.sharing import Part
from mitml4.errors import CaptureError
from mitml4.session import capture_shares
from mitml4.session.capture_shares import (
    CaptureShares,
    DependentError,
    Message,
    put_together,
    tell_part,
)
from mitml4.session.detect import CaptureOutcome, CaptureSession
from mitml4.session.reader_process import STOP
from mitml4.sinks.jsonl import line_of
from tests.capture.conftest import Wire
from tests.capture.test_announced import DOWN, FILE, LOGIN, UP, Wired
from tests.capture.test_corpus import CORPUS, captures

SMALL = 1 << 16
"""Bytes of a capture of the corpus that is read here."""

Make = Callable[[CaptureSession], Iterable[Packet]]
"""The packets of a capture; its secrets and comments are the session's."""


def by_one(make: Make) -> bytes:
    session = CaptureSession()
    lines = b""
    with suppress(CaptureError):
        for event in session.events(make(session)):
            lines += line_of(event, headers=False)
    return lines


def messages(make: Make, part: Part) -> Iterator[list[Message]]:
    """What a process tells of a part, without a process."""
    sent: list[list[Message]] = []
    session = CaptureSession()
    failure: Exception | None = None
    try:
        tell_part(session, make(session), part, lambda data: sent.append(marshal.loads(data)))
    except CaptureError:
        pass
    except DependentError as error:
        failure = error
    yield from sent
    if failure:
        raise failure


def by_several(make: Make, count: int) -> tuple[bytes, bool]:
    """The lines, and whether one process has to tell the rest."""
    lines = b""
    try:
        for some in put_together(messages(make, Part(index, count)) for index in range(count)):
            lines += b"".join(some)
    except DependentError:
        return lines, True
    return lines, False


def file(path: Path) -> Make:
    def packets(session: CaptureSession) -> Iterator[Packet]:
        with path.open("rb") as stream:
            yield from read_packets(
                stream, path.name, on_secrets=session.add_secrets, on_comment=session.add_comment
            )

    return packets


@pytest.fixture(scope="module")
def wire() -> type[Wire]:
    return Wire


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A capture with flows of HTTP, TLS and DNS, in pieces between each other."""
    return synthesise(tmp_path_factory.mktemp("shares") / "busy.pcap", 3_000_000).path


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_several_tell_what_one_tells(busy: Path, count: int) -> None:
    expected = by_one(file(busy))
    assert expected.count(b'"flow.close"') > 50
    assert by_several(file(busy), count) == (expected, False)


def test_several_tell_what_one_tells_though_they_forget_whose_flows_are(
    busy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_MAX_FOREIGN", 3)
    assert by_several(file(busy), 2) == (by_one(file(busy)), False)


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no captures in {CORPUS}")
def test_several_tell_of_public_captures_what_one_tells() -> None:
    whole = 0
    for path in captures():
        if path.stat().st_size > SMALL:
            continue
        expected = by_one(file(path))
        lines, is_begun = by_several(file(path), 2)
        assert expected.startswith(lines), path.name
        assert is_begun or lines == expected, path.name
        whole += not is_begun
    assert whole > 100


def test_time_passes_with_the_packets_of_all_parts(wire: Any) -> None:
    """Flows end between packets of others: they are told where one process tells them."""
    wired, packets = Wired(wire), []
    for number in range(60):
        packets += wired.connection([(UP, b"\x01%d" % number)], 9000, client_port=40000 + number)
        packets += datagrams(wire, wired, 50000 + number)
        wired.time_s += (7.0, 0.0, 29.0)[number % 3]
    lines = by_one(lambda _: packets)
    first_close, last_open = lines.index(b"flow.close"), lines.rindex(b"flow.open")
    assert first_close < last_open
    for count in (2, 3):
        assert by_several(lambda _: packets, count) == (lines, False)


def datagrams(wire: Any, wired: Wired, port: int) -> list[Packet]:
    found = []
    for _ in range(3):
        wired.time_s += 0.01
        packet = wire.ipv4(wire.udp(b"\x00" * 9, source=port, destination=9), protocol=17)
        found.append((wired.time_s, 101, packet, 0, len(packet)))
    return found


def answer(name: bytes, ip: str) -> bytes:
    """A message of DNS."""
    asked = b"".join(bytes([len(label)]) + label for label in name.split(b".")) + b"\0\0\1\0\1"
    found = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + ip_address(ip).packed
    return b"\x11\x22\x81\x80\0\1\0\1\0\0\0\0" + asked + found


def test_flows_have_the_names_that_another_part_has_read(wire: Any) -> None:
    wired, packets = Wired(wire), []
    for number in range(20):
        port, name = 40000 + number, b"host%d.example" % number
        packets += wired.connection([(UP, b"\x01ask")], 9000, client_port=port)
        said = wire.udp(answer(name, "198.51.100.2"), source=53, destination=port)
        packet = wire.ipv4(said, protocol=17, source="203.0.113.53", destination="192.0.2.1")
        wired.time_s += 0.01
        packets.append((wired.time_s, 101, packet, 0, len(packet)))
    lines = by_one(lambda _: packets)
    assert lines.count(b'"name":"host') > 18
    assert by_several(lambda _: packets, 3) == (lines, False)


def test_a_flow_does_not_have_the_name_that_its_first_datagram_brings(wire: Any) -> None:
    """As in one process: those that open later have it."""
    found = b"\3all\5local\0\0\1\0\1\0\0\0\x3c\0\4" + ip_address("224.0.0.251").packed
    multicast = b"\0\0\x84\0\0\0\0\1\0\0\0\0" + found
    packets: list[Packet] = []
    for number in range(1, 9):
        said = wire.udp(multicast, source=5353, destination=5353)
        source = f"192.0.2.{number}"
        packet = wire.ipv4(said, protocol=17, source=source, destination="224.0.0.251")
        packets.append((1000.0 + number, 101, packet, 0, len(packet)))
    lines = by_one(lambda _: packets)
    assert (lines.count(b'"name":"all.local","side"'), lines.count(b'"name":null,"side"')) == (7, 1)
    assert by_several(lambda _: packets, 2) == (lines, False)


def test_where_a_flow_announces_another_one_goes_on(wire: Any) -> None:
    wired = Wired(wire)
    before = wired.connection([(UP, b"\x01ask"), (DOWN, b"\x02answer")], 9000)
    said = [*LOGIN, (UP, b"EPSV\r\n"), (DOWN, b"229 Entering (|||8001|)\r\n")]
    packets = before + wired.connection(said, 21) + wired.connection(FILE, 8001)
    expected = by_one(lambda _: packets)
    assert b"ftp-data" in expected
    lines, is_begun = by_several(lambda _: packets, 2)
    assert is_begun
    assert expected.startswith(lines)
    assert b'"port":9000' in lines
    assert b'"port":8001' not in lines


def test_where_flows_are_too_many_one_goes_on(wire: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which ones are closed then depends on all of them."""
    monkeypatch.setattr(follow, "__kwdefaults__", {**(follow.__kwdefaults__ or {}), "max_flows": 8})
    wired, packets = Wired(wire), []
    for number in range(12):
        packets += wired.connection([(UP, b"GET /")], 80, client_port=40000 + number)
    expected = by_one(lambda _: packets)
    lines, is_begun = by_several(lambda _: packets, 2)
    assert is_begun
    assert lines.count(b"flow.open") >= 4
    assert expected.startswith(lines)


def test_where_memory_is_short_one_goes_on(wire: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = reassembly.Reassembler.__init__
    limited = {**(made.__kwdefaults__ or {}), "max_kept_bytes": 8}
    monkeypatch.setattr(made, "__kwdefaults__", limited)
    wired, packets = Wired(wire), []
    for number in range(12):
        packets += wired.connection([(UP, b"GET /")], 80, client_port=40000 + number)[:-2]
    lines, is_begun = by_several(lambda _: packets, 2)
    assert is_begun
    assert by_one(lambda _: packets).startswith(lines)


# Processes


Read = Callable[[Part, Callable[[bytes | int], object]], CaptureOutcome]


def reading(make: Make) -> Read:
    def read(part: Part, send: Callable[[bytes | int], object]) -> CaptureOutcome:
        session = CaptureSession()
        failure: CaptureError | None = None
        try:
            tell_part(session, make(session), part, send)
        except CaptureError as error:
            failure = error
        return session.outcome(failure)

    return read


def shares(
    read: Read, is_stopped: Callable[[], object] = lambda: False, processes: int = 2
) -> CaptureShares:
    return CaptureShares(processes, read, is_stopped=is_stopped, on_progress=lambda _: None)


def test_processes_tell_what_one_tells(busy: Path) -> None:
    with shares(reading(file(busy))) as both:
        lines = b"".join(both.lines())
    assert lines == by_one(file(busy))
    assert both.told == lines.count(b"\n")
    flows = [outcome.totals.flows for outcome in both.outcomes]
    assert sum(flows) == lines.count(b"flow.open")
    assert min(flows) > sum(flows) / 4


def test_little_waits_for_other_processes(busy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the limit is, everything is told; and nothing is received beyond it."""
    most, longest = 1, 0
    monkeypatch.setattr(capture_shares, "_MAX_AHEAD", most)
    add = capture_shares._Stream.add

    def added(stream: Any, data: bytes) -> None:
        nonlocal longest
        assert stream.size < most
        add(stream, data)
        longest = max(longest, stream.size)

    monkeypatch.setattr(capture_shares._Stream, "add", added)
    with shares(reading(file(busy))) as both:
        lines = b"".join(both.lines())
        assert [each.size for each in both._streams] == [0, 0]
    assert lines == by_one(file(busy))
    assert longest > most


def test_each_process_finds_what_is_wrong_with_the_capture(busy: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(busy.read_bytes()[:1_000_000])
    with shares(reading(file(cut))) as both:
        lines = b"".join(both.lines())
    assert lines == by_one(file(cut))
    assert ["ends inside a packet" in str(each.failure) for each in both.outcomes] == [True] * 2


def test_where_a_process_is_killed_one_goes_on(busy: Path) -> None:
    def read(part: Part, send: Callable[[bytes | int], object]) -> CaptureOutcome:
        def send_some(messages: bytes | int) -> None:
            send(messages)
            if part.is_foreign(b"a flow of one"):
                os.kill(os.getpid(), signal.SIGKILL)

        return reading(file(busy))(part, send_some)

    found: list[bytes] = []
    with shares(read) as both, pytest.raises(DependentError):
        found.extend(both.lines())
    lines = b"".join(found)
    expected = by_one(file(busy))
    assert expected.startswith(lines)
    assert 0 < len(lines) < len(expected)
    assert both.told == lines.count(b"\n")


def limit(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Permit so many processes besides those that there are. As for the kernel, one counts until
    its parent knows of its end."""
    fork, started = os.fork, list[int]()

    def limited() -> int:
        started[:] = filter(is_there, started)
        if len(started) == most:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        if pid := fork():
            started.append(pid)
        return pid

    monkeypatch.setattr(os, "fork", limited)


def is_there(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def test_where_a_limit_forbids_processes_none_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_part: Part, _send: Callable[[bytes | int], object]) -> CaptureOutcome:
        signal.alarm(10)  # or this test would not end where it fails
        while True:
            signal.pause()

    before, others = signal.getsignal(STOP), multiprocessing.active_children()
    limit(monkeypatch, 1)
    with pytest.raises(DependentError):
        shares(read).__enter__()
    assert signal.getsignal(STOP) is before
    assert {*multiprocessing.active_children()} <= {*others}


def test_where_a_limit_forbids_so_many_there_are_fewer(
    busy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, 2)
    with shares(reading(file(busy)), processes=4) as both:
        lines = b"".join(both.lines())
    assert lines == by_one(file(busy))
    assert len(both.outcomes) == 2


def test_a_fault_in_a_process_is_raised_here() -> None:
    def read(_part: Part, _send: Callable[[bytes | int], object]) -> CaptureOutcome:
        raise ZeroDivisionError("it")

    with shares(read) as both, pytest.raises(ZeroDivisionError, match="it"):
        list(both.lines())


def test_when_they_are_stopped_it_is_told_what_they_have_read() -> None:
    class StoppedError(Exception):
        pass

    def stop(*_: object) -> None:
        signal.signal(STOP, signal.SIG_IGN)  # it may come several times
        raise StoppedError

    def read(part: Part, send: Callable[[bytes | int], object]) -> CaptureOutcome:
        line = b'{"type":"flow.open","v":1,"flow":7,"name":null,"side":null}\n'
        if part.is_foreign(b"a flow of one"):
            send(marshal.dumps([((7,), 7, line, ("192.0.2.1", "192.0.2.2"))]))
        with suppress(StoppedError):
            signal.signal(STOP, stop)
            while True:
                signal.pause()
        return CaptureOutcome()

    with shares(read, is_stopped=lambda: True) as both:
        lines = list(both.lines())
    assert lines == [b'{"type":"flow.open","v":1,"flow":1,"name":null,"side":null}\n']
