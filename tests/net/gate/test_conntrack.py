"""The entries that ctnetlink lists, and the request that removes one of them."""

import errno
import socket
import struct
from collections.abc import Callable

import pytest

from mitml4.net.gate.conntrack import Conntrack
from mitml4.net.netlink import NESTED, attribute, attributes, messages, nfnetlink_head

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
DELETE = 1 << 8 | 2
ORIGINAL, STATUS, MARK, ID, ZONE = 1, 3, 8, 12, 18
DONE = struct.pack("=IHHIIi", 20, 3, 0, 0, 0, 0)
ACKNOWLEDGED = struct.pack("=IHHIIi", 20, 2, 0, 0, 0, 0)
REFUSED = struct.pack("=IHHIIi", 20, 2, 0, 0, 0, -errno.EPERM)


class Answers(socket.socket):
    """These messages; it remembers what it was asked."""

    def __init__(self, *answers: bytes) -> None:
        super().__init__()
        self.close()
        self.answers = list(answers)
        self.asked: list[bytes] = []

    def send(self, data, flags: int = 0) -> int:
        self.asked.append(data)
        return len(data)

    def recv(self, size: int, flags: int = 0) -> bytes:
        return self.answers.pop(0)


class Kernel:
    """A place whose sockets answer so."""

    entering: Callable[[], None] | None = None

    def __init__(self, *answers: bytes) -> None:
        self.answers = Answers(*answers)

    def socket(self, family: int, kind: int, protocol: int = 0) -> Answers:
        return self.answers


def nested(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(parts))


def original(protocol: int = TCP, zone: bytes = b"") -> bytes:
    ips = attribute(1, bytes([192, 0, 2, 2])), attribute(2, bytes([198, 51, 100, 2]))
    ports = attribute(2, b"\x9c\x40"), attribute(3, b"\0\x50")
    numbers = nested(2, attribute(1, bytes([protocol])), *ports)
    return nested(ORIGINAL, nested(1, *ips), numbers, zone)


def listed(*parts: bytes) -> bytes:
    body = nfnetlink_head(socket.AF_INET) + b"".join(parts)
    return struct.pack("=IHHII", 16 + len(body), 1 << 8, 2, 0, 0) + body


IDENTIFIED = attribute(ID, b"\1\2\3\4")


def test_an_entry_that_is_found_is_removed_by_its_addresses_and_its_number() -> None:
    marked = attribute(MARK, b"\x4d\x40\0\7"), attribute(STATUS, (1 << 5 | 2).to_bytes(4, "big"))
    kernel = Kernel(listed(original(), *marked, IDENTIFIED), DONE, ACKNOWLEDGED)
    conntrack = Conntrack(kernel)
    (entry,) = conntrack.entries()
    assert entry.family == socket.AF_INET
    assert entry.mark == 0x4D400007
    assert entry.is_translated
    conntrack.remove_found(entry)
    ((kind, body),) = messages(kernel.answers.asked[-1])
    assert kind == DELETE
    assert body[0] == socket.AF_INET
    assert nested(ORIGINAL, dict(attributes(body))[ORIGINAL]) == original()
    assert dict(attributes(body))[ID] == b"\1\2\3\4"


@pytest.mark.parametrize(("bit", "is_translated"), [(3, False), (4, True), (5, True), (6, True)])
def test_sequence_numbers_are_translated_as_addresses_are(bit: int, is_translated: bool) -> None:
    status = attribute(STATUS, (1 << bit).to_bytes(4, "big"))
    kernel = Kernel(listed(original(), status, IDENTIFIED), DONE)
    (entry,) = Conntrack(kernel).entries()
    assert entry.is_translated == is_translated


@pytest.mark.parametrize(
    "parts",
    [
        (original(UDP), IDENTIFIED),
        (original(), IDENTIFIED, attribute(ZONE, b"\0\5")),
        (original(zone=attribute(3, b"\0\5")), IDENTIFIED),
        (original(),),
        (IDENTIFIED,),
        (),
    ],
)
def test_only_tcp_in_zone_0_is_found(parts) -> None:
    kernel = Kernel(listed(*parts) + listed(original(), IDENTIFIED), DONE)
    (entry,) = Conntrack(kernel).entries()
    assert not entry.is_translated
    assert entry.mark == 0


def test_entries_are_counted() -> None:
    kernel = Kernel(listed(attribute(1, b"\0\0\1\2"), attribute(2, b"\0\4\0\0")), REFUSED)
    conntrack = Conntrack(kernel)
    assert conntrack.count() == 258
    with pytest.raises(PermissionError):
        conntrack.count()
