"""Frames, segments and capture files, built field by field."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from fractions import Fraction
from ipaddress import ip_address

import pytest

FIN, SYN, RST, ACK = 1, 2, 4, 16


class Wire:
    """What goes over a wire, and the files that it is written to."""

    FIN, SYN, RST, ACK = FIN, SYN, RST, ACK

    @staticmethod
    def tcp(
        payload: bytes = b"",
        *,
        source: int = 40000,
        destination: int = 80,
        seq: int = 1,
        ack: int = 0,
        flags: int = ACK,
        options: bytes = b"",
    ) -> bytes:
        words = (5 + len(options) // 4) << 4
        numbers = (source, destination, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, words, flags, 500, 0, 0)
        return struct.pack(">HHIIBBHHH", *numbers) + options + payload

    @staticmethod
    def udp(payload: bytes, *, source: int = 5000, destination: int = 53) -> bytes:
        return struct.pack(">HHHH", source, destination, 8 + len(payload), 0) + payload

    @staticmethod
    def ipv4(
        payload: bytes,
        *,
        source: str = "192.0.2.1",
        destination: str = "198.51.100.2",
        protocol: int = 6,
        identification: int = 0,
        fragment: int = 0x4000,
        options: bytes = b"",
        total: int | None = None,
    ) -> bytes:
        size = 20 + len(options) + len(payload) if total is None else total
        head = (0x45 + len(options) // 4, 0, size, identification, fragment, 64, protocol, 0)
        ends = ip_address(source).packed + ip_address(destination).packed
        return struct.pack(">BBHHHBBH", *head) + ends + options + payload

    @staticmethod
    def ipv6(
        payload: bytes,
        *,
        source: str = "2001:db8::1",
        destination: str = "2001:db8::2",
        header: int = 6,
        length: int | None = None,
    ) -> bytes:
        size = len(payload) if length is None else length
        ends = ip_address(source).packed + ip_address(destination).packed
        return struct.pack(">IHBB", 0x60000000, size, header, 64) + ends + payload

    @staticmethod
    def ethernet(payload: bytes, kind: int = 0x0800) -> bytes:
        return b"\x02" * 12 + struct.pack(">H", kind) + payload

    @staticmethod
    def pcap(
        frames: Iterable[tuple[float, bytes]],
        *,
        order: str = "<",
        nanoseconds: bool = False,
        link_type: int = 1,
    ) -> bytes:
        magic, ticks = (0xA1B23C4D, 10**9) if nanoseconds else (0xA1B2C3D4, 10**6)
        out = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262144, link_type)
        for time_s, frame in frames:
            seconds, fraction = divmod(int(Fraction(time_s) * ticks), ticks)
            out += struct.pack(f"{order}IIII", seconds, fraction, len(frame), len(frame)) + frame
        return out


class Blocks:
    """Blocks of pcapng, in one byte order."""

    def __init__(self, order: str = "<") -> None:
        self.order = order

    def pack(self, form: str, *values: int) -> bytes:
        return struct.pack(self.order + form, *values)

    def block(self, kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        length = self.pack("I", len(body) + 12)
        return self.pack("I", kind) + length + body + length

    def option(self, code: int, value: bytes) -> bytes:
        return self.pack("HH", code, len(value)) + value + bytes(-len(value) % 4)

    def section(self) -> bytes:
        return self.block(0x0A0D0D0A, self.pack("IHHq", 0x1A2B3C4D, 1, 0, -1))

    def interface(self, link_type: int = 1, options: bytes = b"", snap_length: int = 0) -> bytes:
        return self.block(1, self.pack("HHI", link_type, 0, snap_length) + options)

    def packet(self, frame: bytes, *, ticks: int = 0, interface: int = 0) -> bytes:
        head = (interface, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
        return self.block(6, self.pack("IIIII", *head) + frame + bytes(-len(frame) % 4))

    def old_packet(self, frame: bytes, *, ticks: int = 0, interface: int = 0) -> bytes:
        head = (interface, 0, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
        return self.block(2, self.pack("HHIIII", *head) + frame)

    def simple_packet(self, frame: bytes) -> bytes:
        return self.block(3, self.pack("I", len(frame)) + frame)

    def secrets(self, lines: bytes, kind: int = 0x544C534B) -> bytes:
        return self.block(10, self.pack("II", kind, len(lines)) + lines)


@pytest.fixture(scope="session")
def wire() -> type[Wire]:
    return Wire


@pytest.fixture(params=["<", ">"], ids=["little", "big"])
def blocks(request: pytest.FixtureRequest) -> Blocks:
    return Blocks(request.param)
