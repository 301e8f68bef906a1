"""MQTT's first packets (MQTT 3.1, 3.1.1 and 5.0).

    client                                       server
    10 length  0004 MQTT level flags …   ───────►
                                         ◄───────   20 length flags code

TLS, if any, begins before all of this. The user's name is not kept: with some clouds it is a token.
"""

from __future__ import annotations

from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    Details,
    Protocol,
)
from mitml4.protocols.parts.evidence import either, single_message
from mitml4.protocols.parts.fields import PRINTABLE, Reader
from mitml4.protocols.parts.units import Units

__all__ = ["PROTOCOL", "Mqtt", "MqttDetails"]

CONNECT: Final = b"\x10"
CONNACK: Final = b"\x20"

# MQTT 3.1 §3.1, 3.1.1 §3.1.2.2, 5.0 §3.1.2.2: names with their levels. Mosquitto's bridges set
# the highest bit of the level.
NAMES: Final = (b"\x00\x04MQTT", b"\x00\x06MQIsdp")
LEVELS: Final = {b"\x00\x04MQTT": (3, 4, 5), b"\x00\x06MQIsdp": (3,)}
VERSIONS: Final = {3: "3.1", 4: "3.1.1", 5: "5.0"}
BRIDGE: Final = 0x80

SMALLEST: Final = 12
"""The remaining length of a CONNECT with an empty client id and no options (3.1.1)."""

# 3.1.1 §2.2.1, §2.2.2: types with the flags that they must have
PUBLISH: Final = tuple(bytes([0x30 | flags]) for flags in (0, 1, 2, 3, 4, 5, 10, 11, 12, 13))
SUBSCRIBE: Final = b"\x82"
SUBACK: Final = b"\x90"
SIZES: Final = {
    **dict.fromkeys((b"\x40", b"\x50", b"\x62", b"\x70"), (2, 4)),  # acknowledgements
    **dict.fromkeys((b"\xc0", b"\xd0", b"\xe0"), (0, 0)),  # pings, DISCONNECT
}
PACKETS: Final = (*SIZES, CONNACK, SUBSCRIBE, SUBACK)
"""All but PUBLISH, CONNECT, and the rare UNSUBSCRIBE."""
GRANTS: Final = bytes((0, 1, 2, *range(0x80, 0xA3)))
"""Results of a SUBACK (5.0 §3.9.3) without properties."""
MAX_OPTIONS: Final = 0x2F
TOPIC: Final = PRINTABLE + bytes(range(0x80, 0x100))
MAX_TOPIC: Final = 1024
MAX_PUBLISH: Final = 1 << 20
MAX_MIDDLE: Final = 8

USERNAME: Final = 0x80
RESERVED: Final = 0x01
MAX_CLIENT_ID: Final = 4096
MAX_PROPERTIES: Final = 16384


@dataclass(frozen=True, slots=True)
class Connect:
    """The fixed part of a CONNECT, and the reader of the rest."""

    level: int
    username: bool
    rest: Reader


def read_length(reader: Reader, low: int = 0) -> int:
    """An integer of one to four bytes with seven bits each, the lowest first (3.1.1 §2.2.3)."""
    byte = reader.uint(1, low)
    value, shift = byte & 0x7F, 7
    while byte & 0x80:
        byte = reader.uint(1, 0, 0x7F if shift == 21 else 0xFF)
        value |= (byte & 0x7F) << shift
        shift += 7
    return value


def read_connect(reader: Reader) -> Connect:
    """A CONNECT up to its keep-alive time."""
    reader.one_of(CONNECT)
    body = reader.part(read_length(reader, SMALLEST))
    name = body.one_of(*NAMES)
    levels = LEVELS[name]
    level = int.from_bytes(
        body.one_of(*(bytes([level | bit]) for level in levels for bit in (0, BRIDGE))), "big"
    )
    flags = body.uint(1)
    if flags & RESERVED or flags >> 3 & 3 == 3:
        raise ProtocolError("invalid flags")
    body.take(2)
    return Connect(level & ~BRIDGE, bool(flags & USERNAME), body)


def read_middle(reader: Reader) -> None:
    """Two packets, one of them specific: a capture that begins in the middle."""
    enough = 0
    for count in range(1, MAX_MIDDLE + 1):
        enough += _read_packet(reader)
        if enough and count > 1:
            return
    raise ProtocolError("packets of no specific kind")


def _read_packet(reader: Reader) -> bool:
    """A whole packet. Returns whether it is specific: more than the acknowledgement of a number."""
    kind = reader.one_of(*PACKETS, *PUBLISH)
    size = read_length(reader)
    low, high = SIZES.get(kind, (2, MAX_PUBLISH))
    if not low <= size <= high:
        raise ProtocolError("a packet of a wrong length")
    body = reader.part(size)
    if kind in PUBLISH:
        body.take(body.uint(2, 1, MAX_TOPIC), TOPIC)
    elif kind == CONNACK:
        body.uint(1, 0, 1)
    elif size:
        body.uint(2, 1)
    if kind == SUBSCRIBE:
        # 5.0 has properties before the topic: usually none, so that their length is 0.
        length = body.uint(2, 0, MAX_TOPIC) or body.uint(1, 1)
        body.take(length, TOPIC)
        body.uint(1, 0, MAX_OPTIONS)
    elif kind == SUBACK:
        body.take(size - 2, GRANTS)
    reader.take(size)
    return kind not in SIZES


detect = single_message(either(read_connect, read_middle), read_middle)
"""The client's CONNECT; or packets of either side, in a capture without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttDetails(Details):
    """`return_code` is the CONNACK's: 0 means accepted."""

    version: str | None = None
    client_id: bytes | None = None
    has_username: bool | None = None
    return_code: int | None = None


@dataclass(slots=True)
class Mqtt(Units):
    """Reads the CONNECT and its answer; the rest passes."""

    name: ClassVar[str] = "mqtt"

    version: str | None = None
    client_id: bytes | None = None
    has_username: bool | None = None
    return_code: int | None = None

    def client_unit(self, reader: Reader) -> None:
        if not reader.data.startswith(CONNECT, reader.at):
            self.stay_plain()
            return
        connect = read_connect(reader)
        rest = connect.rest
        if connect.level == 5:
            size = read_length(rest)
            if size > MAX_PROPERTIES:
                raise ProtocolError("properties that are too long")
            rest.take(size)
        self.client_id = rest.take(rest.uint(2, 0, MAX_CLIENT_ID))
        self.version = VERSIONS[connect.level]
        self.has_username = connect.username
        self.up = FORWARD_ALL

    def server_unit(self, reader: Reader) -> None:
        if self.version is None and not reader.data.startswith(CONNACK, reader.at):
            self.stay_plain()
            return
        reader.one_of(CONNACK)
        answer = reader.part(read_length(reader))
        answer.take(1)
        self.return_code = answer.uint(1)
        self.stay_plain()

    def details(self) -> MqttDetails:
        return MqttDetails(
            version=self.version,
            client_id=self.client_id,
            has_username=self.has_username,
            return_code=self.return_code,
        )


PROTOCOL: Final = Protocol(
    name=Mqtt.name,
    detect=detect,
    converse=lambda context: Mqtt(context=context),
    client_first=b"".join((CONNECT, *PACKETS, *PUBLISH)),
    server_first=b"".join((*PACKETS, *PUBLISH)),
)
