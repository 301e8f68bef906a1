"""TLS records, and the handshake messages and alerts in them, as long as they are in plain text.

A record is a type, a version and at most 2^14 bytes (RFC 8446 §5.1). A handshake message may span
records, and a record may hold several messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from enum import IntEnum
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.enums import plain_members
from mitml4.errors import ProtocolError

__all__ = ["MAX_RECORD", "HandshakeType", "Message", "MessageReader", "RecordType"]

MAX_RECORD: Final = (1 << 14) + 2048
"""The longest record of any version, encrypted or not (RFC 5246 §6.2.3)."""

_MAX_MESSAGE: Final = 1 << 18
"""The longest handshake message that is collected; some certificate chains have 64 KiB."""


@plain_members
class RecordType(IntEnum):
    """RFC 8446 §5.1 and RFC 6520; SSLV2 is a record without such a header."""

    SSLV2 = 0
    CHANGE_CIPHER_SPEC = 20
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23
    HEARTBEAT = 24


@plain_members
class HandshakeType(IntEnum):
    """RFC 8446 §4 and RFC 5246 §7.4; only those that are read or written."""

    HELLO_REQUEST = 0
    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    NEW_SESSION_TICKET = 4
    END_OF_EARLY_DATA = 5
    ENCRYPTED_EXTENSIONS = 8
    CERTIFICATE = 11
    SERVER_KEY_EXCHANGE = 12
    CERTIFICATE_REQUEST = 13
    SERVER_HELLO_DONE = 14
    CERTIFICATE_VERIFY = 15
    CLIENT_KEY_EXCHANGE = 16
    FINISHED = 20
    CERTIFICATE_STATUS = 22
    KEY_UPDATE = 24
    COMPRESSED_CERTIFICATE = 25
    MESSAGE_HASH = 254


_RECORD_TYPES: Final = {int(each): each for each in RecordType}
"""To find one by its number is a call of a function in Python otherwise."""


@dataclass(frozen=True, slots=True)
class Message:
    """A whole handshake message without its header, or the payload of a record of another type."""

    record_type: RecordType
    handshake_type: int
    """The message type of a handshake message or of SSLv2, else 0."""
    body: bytes


@dataclass(slots=True)
class MessageReader:
    """Gets one direction's bytes in any pieces, and returns the messages in them, each once."""

    max_message: int = _MAX_MESSAGE
    consumed: int = 0
    """Bytes of the stream in the whole records so far."""
    first: int | None = None
    """The type of the first handshake message, or of what is in its place."""
    is_over: bool = False
    """Set while `feed` is iterated over: it returns no more messages. To leave the loop instead
    would close two generators, which takes as long as a hello takes to be read."""
    _stream: bytearray = field(default_factory=bytearray)
    _handshake: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> Iterator[Message]:
        """Every message that `data` completes.

        Raises ProtocolError where there is no record, after returning the messages before.
        """
        self._stream += data
        if self.consumed == 0 and self._stream and self._stream[0] & 0x80:
            yield from self._sslv2()
            return
        while len(self._stream) >= 5 and not self.is_over:
            record_type, length = self._header()
            if len(self._stream) < 5 + length:
                return
            body = bytes(self._stream[5 : 5 + length])
            del self._stream[: 5 + length]
            self.consumed += 5 + length
            if record_type is RecordType.HANDSHAKE:
                yield from self._messages(body)
            elif self._handshake:
                # RFC 8446 §5.1: "there MUST NOT be any other records between them".
                raise ProtocolError("a TLS handshake message is interrupted by another record")
            else:
                yield Message(record_type, 0, body)

    def _header(self) -> tuple[RecordType, int]:
        kind, major, _, high, low = self._stream[:5]
        length = high << 8 | low
        if not 20 <= kind <= 24 or major != 3:
            raise ProtocolError("not a TLS record")
        # RFC 8446 §5.1: "Implementations MUST NOT send zero-length fragments of Handshake types",
        # but OpenSSL accepts them. Of the others only application data may be empty.
        may_be_empty = kind in (RecordType.APPLICATION_DATA, RecordType.HANDSHAKE)
        if length > MAX_RECORD or (length == 0 and not may_be_empty):
            raise ProtocolError(f"a TLS record of {length} bytes")
        return _RECORD_TYPES[kind], length

    def _messages(self, fragment: bytes) -> Iterator[Message]:
        if not fragment:
            return
        self._handshake += fragment
        self.first = self._handshake[0] if self.first is None else self.first
        while len(self._handshake) >= 4 and not self.is_over:
            length = int.from_bytes(self._handshake[1:4], "big")
            if length > self.max_message:
                raise ProtocolError(f"a TLS handshake message of {length} bytes")
            if len(self._handshake) < 4 + length:
                return
            kind = self._handshake[0]
            body = bytes(self._handshake[4 : 4 + length])
            del self._handshake[: 4 + length]
            yield Message(RecordType.HANDSHAKE, kind, body)

    def _sslv2(self) -> Iterator[Message]:
        """A header of two bytes with the high bit set; only the first record can have it."""
        if len(self._stream) < 3:
            return
        length = (self._stream[0] & 0x7F) << 8 | self._stream[1]
        if length == 0:
            raise ProtocolError("an empty SSLv2 record")
        if len(self._stream) >= 2 + length:
            body = bytes(self._stream[3 : 2 + length])
            kind = self._stream[2]
            del self._stream[: 2 + length]
            self.consumed += 2 + length
            yield Message(RecordType.SSLV2, kind, body)
