"""Captures that are broken in every way: one error for people at most, an end, and nothing left.

Captures of real flows are mutated where it hurts: single bits, lengths, whole records, the file's
end, what a snapshot length leaves. Whatever it is, `detect` raises nothing but a CaptureError,
closes every flow that it opened, and encodes every event; and the fast path changes none of them.
"""

from __future__ import annotations

import os
import signal
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, Final, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.synthesis import synthesise
from mitml4.capture import follow as follow_module
from mitml4.capture.fast_path import Step
from mitml4.capture.files.reader import read_packets
from mitml4.capture.network.dissector import Dissector
from mitml4.capture.packet import Packet
from mitml4.encoding import encode
from mitml4.errors import CaptureError
from mitml4.events import Event, FlowClose, FlowOpen
from mitml4.protocols.protocol_event import ProtocolEvent
from mitml4.session.detect import CaptureSession
from mitml4.session.reporting.hub import Hub

BESIDE = Path(__file__).parents[3] / "shared" / "pcaps"
CORPUS = Path(os.environ.get("MITML4_PCAPS", BESIDE))
LARGEST: Final = 40_000
HANGS_S: Final = 60

PCAP: Final = {b"\xd4\xc3\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">"}
SECTION: Final = b"\x0a\x0d\x0d\x0a"
LENGTHS: Final = (0, 1, 11, 12, 13, 16, 28, 0xFFFF, 16 << 20, 1 << 31, (1 << 31) - 4, (1 << 32) - 1)


@dataclass(frozen=True)
class Seed:
    """A capture in pieces: its header, if it is a pcap, and its records or blocks."""

    order: str
    header: bytes
    records: tuple[bytes, ...]

    @classmethod
    def of(cls, data: bytes) -> Seed | None:
        """None for what is neither pcap nor pcapng."""
        if order := PCAP.get(data[:4]):
            return cls(order, data[:24], tuple(_pieces(data, 24, order, 8, 16)))
        if data[:4] == SECTION:
            order = "<" if data[8] == 0x4D else ">"
            return cls(order, b"", tuple(_pieces(data, 0, order, 4, 0)))
        return None

    @property
    def length_at(self) -> int:
        return 8 if self.header else 4

    def joined(self, records: tuple[bytes, ...]) -> bytes:
        return self.header + b"".join(records)


def _pieces(data: bytes, at: int, order: str, length_at: int, more: int) -> Iterator[bytes]:
    while at + length_at + 4 <= len(data):
        length = struct.unpack_from(f"{order}I", data, at + length_at)[0] + more
        yield data[at : at + length]
        at += max(length, 12)


def as_pcapng(seed: Seed, order: str) -> Seed:
    """A pcap's packets in blocks of every kind, with secrets and options among them."""

    def block(kind: int, form: str, *numbers: int, rest: bytes = b"") -> bytes:
        body = struct.pack(order + form, *numbers) + rest + bytes(-len(rest) % 4)
        size = struct.pack(f"{order}I", len(body) + 12)
        return struct.pack(f"{order}I", kind) + size + body + size

    def packet(number: int, record: bytes) -> bytes:
        seconds, us, length, _ = struct.unpack_from(f"{seed.order}IIII", record)
        high, low = divmod(seconds * 1_000_000 + us, 1 << 32)
        match number % 8:
            case 6:
                return block(3, "I", length, rest=record[16:])
            case 7:
                return block(2, "HHIIII", 0, 0, high, low, length, length, rest=record[16:])
        return block(6, "IIIII", number & 1, high, low, length, length, rest=record[16:])

    options = struct.pack(f"{order}HHBxxx HHq", 9, 1, 6, 14, 8, 0)
    keys = b"CLIENT_RANDOM " + b"ab" * 32 + b" " + b"cd" * 48 + b"\n"
    blocks = [
        block(0x0A0D0D0A, "IHHq", 0x1A2B3C4D, 1, 0, -1),
        block(1, "HHI", 1, 0, 0, rest=options),
        block(1, "HHI", 1, 0, 65535),
        block(10, "II", 0x544C534B, len(keys), rest=keys),
        *(packet(number, record) for number, record in enumerate(seed.records)),
    ]
    return Seed(order, b"", tuple(blocks))


@cache
def seeds() -> list[Seed]:
    """Captures that are made here, and small public ones where they are at hand."""
    with TemporaryDirectory() as where:
        made = Seed.of(synthesise(Path(where) / "made.pcap", LARGEST).path.read_bytes())
    assert made is not None
    found = sorted(CORPUS.iterdir()) if CORPUS.is_dir() else []
    public = [
        Seed.of(path.read_bytes())
        for path in found
        if path.stat().st_size <= LARGEST or "-dsb" in path.name
    ]
    return [made, as_pcapng(made, "<"), as_pcapng(made, ">"), *filter(None, public)]


Mutation: TypeAlias = Callable[[Random, Seed, Seed], bytes]


def flip_bits(chance: Random, seed: Seed, _other: Seed) -> bytes:
    return _flipped(chance, seed.joined(seed.records))


def flip_header_bits(chance: Random, seed: Seed, _other: Seed) -> bytes:
    """Only in what stands before the payload, in every tenth packet."""
    return seed.joined(
        tuple(
            _flipped(chance, record[:100]) + record[100:] if chance.random() < 0.1 else record
            for record in seed.records
        )
    )


def cut_off(chance: Random, seed: Seed, _other: Seed) -> bytes:
    data = seed.joined(seed.records)
    return data[: chance.randrange(len(data) + 1)]


def splice(chance: Random, seed: Seed, other: Seed) -> bytes:
    """Records lost, repeated, swapped, and those of another capture in between."""
    records = list(seed.records)
    for _ in range(chance.randint(1, 12)):
        at, to = chance.randrange(len(records) + 1), chance.randrange(len(records) + 1)
        match chance.randrange(4):
            case 0:
                del records[at : at + chance.randint(1, 4)]
            case 1:
                records[to:to] = records[at : at + chance.randint(1, 4)]
            case 2:
                records[to:to] = other.records[at : at + 4]
            case 3:
                records[at:to] = reversed(records[at:to])
    return seed.joined(tuple(records))


def lie_about_a_length(chance: Random, seed: Seed, _other: Seed) -> bytes:
    """In a record's own length field, or anywhere in its first 64 bytes (options, captured length),
    as 32 or 16 bits."""
    records = list(seed.records)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(min(len(records), 8) if chance.random() < 0.5 else len(records))
        record = bytearray(records[at])
        field = seed.length_at if chance.random() < 0.3 else chance.randrange(min(len(record), 64))
        value = chance.choice((*LENGTHS, len(record), len(record) + 4, chance.randrange(1 << 32)))
        width = chance.choice("IH")
        number = struct.pack(seed.order + width, value & (0xFFFFFFFF if width == "I" else 0xFFFF))
        record[field : field + len(number)] = number
        records[at] = bytes(record)
    return seed.joined(tuple(records))


def snap(chance: Random, seed: Seed, _other: Seed) -> bytes:
    """What a snapshot length leaves of each packet."""
    most = chance.choice((64, 54, 68, 96, chance.randint(1, 200)))
    return seed.joined(tuple(_snapped(seed, record, most) for record in seed.records))


MUTATIONS: Final[tuple[Mutation, ...]] = (
    flip_bits,
    flip_header_bits,
    cut_off,
    splice,
    lie_about_a_length,
    snap,
)


def _flipped(chance: Random, data: bytes) -> bytes:
    flipped = bytearray(data)
    for _ in range(chance.randint(1, 8) if flipped else 0):
        flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
    return bytes(flipped)


def _snapped(seed: Seed, record: bytes, most: int) -> bytes:
    pack = struct.Struct(f"{seed.order}I")
    if seed.header:
        kept = record[16 : 16 + most]
        return record[:8] + pack.pack(len(kept)) + record[12:16] + kept
    if pack.unpack_from(record)[0] != 6:
        return record
    (captured,) = pack.unpack_from(record, 20)
    kept = record[28 : 28 + min(captured, most)]
    size = pack.pack(32 + len(kept) + -len(kept) % 4)
    padding = bytes(-len(kept) % 4)
    return (
        record[:4]
        + size
        + record[8:20]
        + pack.pack(len(kept))
        + record[24:28]
        + kept
        + padding
        + size
    )


@contextmanager
def no_hang() -> Iterator[None]:
    def give_up(*_: object) -> None:
        raise AssertionError(f"not through after {HANGS_S} seconds")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(HANGS_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def detected(data: bytes) -> list[Event]:
    events: list[Event] = []
    listener = SimpleNamespace(wants=(Event, ProtocolEvent), publish=events.append)
    session = CaptureSession(Hub(listeners=[listener]), tunnels=True)
    with suppress(CaptureError):
        session.read(read_packets(BytesIO(data), "fuzz", on_secrets=session.secrets.add))
    return events


def dissected(
    packets: Iterable[Packet], _: object, _datagrams: object, dissector: Dissector, **how: Any
) -> Iterator[Step]:
    """All segments and datagrams, without the fast path."""
    for number, (time_s, link_type, data, start, end) in enumerate(packets):
        if time_s >= how["agenda"].due_s:
            yield number, time_s, None
        unit = dissector.unit(link_type, data[start:end])
        for each in (*dissector.carriers, unit):
            if each is not None:
                yield number, time_s, each
        dissector.carriers.clear()


@given(number=st.integers(0, 2**64 - 1))
def test_a_broken_capture_ends_in_a_capture_error_at_worst(number: int) -> None:
    chance = Random(number)
    mutate = chance.choice(MUTATIONS)
    data = mutate(chance, chance.choice(seeds()), chance.choice(seeds()))
    with no_hang():
        events = detected(data)
        lines = [encode(event) for event in events]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(follow_module, "fast_path", dissected)
            assert lines == [encode(event) for event in detected(data)]
    opened = Counter(event.flow for event in events if isinstance(event, FlowOpen))
    closed = Counter(event.flow for event in events if isinstance(event, FlowClose))
    assert opened == closed
    assert set(opened.values()) <= {1}
