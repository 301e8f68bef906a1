"""Secrets in the protocols of message brokers."""

from __future__ import annotations

from typing import Final

from mitml4.errors import ProtocolError
from mitml4.protocols.parts.fields import Reader
from mitml4.protocols.secrets.finder import MAX_UNIT, SecretFinder

__all__ = ["Amqp", "Kafka", "Mqtt"]


class Mqtt(SecretFinder):
    """The password of a CONNECT; the user's name where that is all, since it is a token then; the
    authentication data of MQTT 5."""

    _CONNECT, _AUTH = 0x10, 0xF0
    _WILL, _PASSWORD, _USERNAME = 0x04, 0x40, 0x80
    _DATA: Final = 0x16
    _SIZES: Final = {
        0x11: 4,
        0x17: 1,
        0x19: 1,
        0x21: 2,
        0x22: 2,
        0x27: 4,
        0x01: 1,
        0x02: 4,
        0x18: 4,
    }
    _TEXTS: Final = {0x03: 1, 0x08: 1, 0x09: 1, 0x15: 1, _DATA: 1, 0x1F: 1, 0x26: 2}
    """5.0 §2.2.2.2: properties with a length of two bytes before them, once or twice."""

    def read(self, reader: Reader) -> None:
        kind = reader.uint(1)
        length = _varint(reader)
        if kind not in (self._CONNECT, self._AUTH) or length > MAX_UNIT - 8:
            self.skip(length)
            return
        packet = reader.whole(length)
        if kind == self._AUTH and length:
            packet.take(1)
            self._properties(packet)
        elif kind == self._CONNECT:
            self._connect(packet)

    def _connect(self, packet: Reader) -> None:
        packet.take(packet.uint(2))
        level, flags = packet.uint(1) & 0x7F, packet.uint(1)
        packet.take(2)
        if level == 5:
            self._properties(packet)
        packet.take(packet.uint(2))
        if flags & self._WILL:
            if level == 5:
                packet.take(_varint(packet))
            packet.take(packet.uint(2))
            packet.take(packet.uint(2))
        if flags & self._USERNAME:
            self._string(packet, is_secret=not flags & self._PASSWORD)
        if flags & self._PASSWORD:
            self._string(packet, is_secret=True)

    def _properties(self, packet: Reader) -> None:
        properties = packet.whole(_varint(packet))
        while properties.left:
            kind = properties.uint(1)
            if kind in self._SIZES:
                properties.take(self._SIZES[kind])
                continue
            if kind not in self._TEXTS:
                raise ProtocolError("an unknown property")
            for _ in range(self._TEXTS[kind]):
                self._string(properties, is_secret=kind == self._DATA)

    def _string(self, packet: Reader, *, is_secret: bool) -> None:
        size = packet.uint(2)
        if is_secret:
            self.hide(packet.at, packet.at + size)
        packet.take(size)


class Amqp(SecretFinder):
    """The SASL responses of 0-9-1 (connection.start-ok, .secure-ok, .update-secret) and of 1.0."""

    _HEADER: Final = b"AMQP"
    _START_OK, _SECURE_OK, _UPDATE_SECRET = (b"\0\x0a\0" + bytes([n]) for n in (11, 21, 70))
    _SASL: Final = 1
    _INIT, _RESPONSE = 0x41, 0x43
    _BINARY: Final = {0xA0: 1, 0xB0: 4}

    def __init__(self) -> None:
        super().__init__()
        self._is_1_0 = False

    def read(self, reader: Reader) -> None:
        if reader.data.startswith(self._HEADER[:1], reader.at):
            reader.one_of(self._HEADER)
            self._is_1_0 = reader.take(4)[1:] == b"\1\0\0"
        elif self._is_1_0:
            self._frame_1_0(reader)
        else:
            self._frame(reader)

    def _frame(self, reader: Reader) -> None:
        kind = reader.uint(1)
        reader.take(2)
        size = reader.uint(4)
        if kind != 1 or size > MAX_UNIT - 8:
            self.skip(size + 1)
            return
        frame = reader.whole(size)
        reader.take(1)
        if size < len(self._START_OK):
            return
        match frame.take(4):
            case self._START_OK:
                frame.take(frame.uint(4))
                frame.take(frame.uint(1))
                self._hide(frame, frame.uint(4))
            case self._SECURE_OK | self._UPDATE_SECRET:
                self._hide(frame, frame.uint(4))

    def _frame_1_0(self, reader: Reader) -> None:
        size = reader.uint(4, 8)
        offset, kind = reader.uint(1, 2), reader.uint(1)
        reader.take(2)
        if kind != self._SASL or size > MAX_UNIT:
            self.skip(size - 8)
            return
        frame = reader.whole(size - 8)
        frame.take(offset * 4 - 8)
        frame.one_of(b"\0\x53")
        performative = frame.uint(1)
        if performative not in (self._INIT, self._RESPONSE):
            return
        match frame.uint(1):
            case 0xC0:
                frame.take(2)
            case 0xD0:
                frame.take(8)
            case _:
                return
        if performative == self._INIT:  # the mechanism, a symbol
            frame.take(frame.uint(1 if frame.uint(1) == 0xA3 else 4))
        if length := self._BINARY.get(frame.uint(1)):
            self._hide(frame, frame.uint(length))

    def _hide(self, frame: Reader, size: int) -> None:
        self.hide(frame.at, frame.at + size)
        frame.take(size)


class Kafka(SecretFinder):
    """SaslAuthenticate; and behind version 0 of SaslHandshake, tokens that are no requests."""

    _HANDSHAKE, _AUTHENTICATE = 17, 36
    _FLEXIBLE: Final = 2
    _MAX_APIS, _MAX_VERSIONS = 92, 20

    def __init__(self) -> None:
        super().__init__()
        self._has_tokens = False

    def read(self, reader: Reader) -> None:
        length = reader.uint(4, 0, (1 << 31) - 1)
        if length > MAX_UNIT - 4:
            self.skip(length)
            return
        request = reader.whole(length)
        begins = request.at
        is_request = length >= 10
        if is_request:
            api, version = request.uint(2), request.uint(2)
            is_request = api <= self._MAX_APIS and version <= self._MAX_VERSIONS
        if self._has_tokens and not is_request:
            self.hide(begins, begins + length)
        elif is_request and api == self._HANDSHAKE and version == 0:
            self._has_tokens = True
        elif is_request and api == self._AUTHENTICATE:
            self._authenticate(request, is_flexible=version >= self._FLEXIBLE)

    def _authenticate(self, request: Reader, *, is_flexible: bool) -> None:
        request.take(4)
        name = request.uint(2)
        request.take(0 if name == 0xFFFF else name)
        if is_flexible:
            for _ in range(_varint(request)):  # tags
                _varint(request)
                request.take(_varint(request))
            size = _varint(request) - 1
        else:
            size = request.uint(4)
        self.hide(request.at, request.at + size)
        request.take(size)


def _varint(reader: Reader) -> int:
    """A number with seven bits in each byte, the lowest first."""
    value = shift = 0
    while True:
        byte = reader.uint(1)
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value
        shift += 7
        if shift > 28:
            raise ProtocolError("a number that does not end")
