"""The records of one leg during its handshake, and the handshake messages in them.

A record is checked before anything else is done with it: its type, its version and its length (RFC
8446 §5, RFC 5246 §6.2). The alerts in the errors are the ones that RFC 8446 names; where it leaves
them open, they are BoringSSL's.
"""

from __future__ import annotations

import struct
from typing import Final, NoReturn

from mitml4.crypto.records import NotAuthentic, Protection
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.records import MAX_RECORD, RecordType

__all__ = [
    "MAX_CONTENT",
    "MAX_EMPTY_RECORDS",
    "MAX_FRAGMENT",
    "Messages",
    "RecordsIn",
    "RecordsOut",
    "is_type",
    "refuse_header",
]

MAX_CONTENT: Final = 1 << 14
"""The most bytes that a record carries (RFC 8446 §5.1)."""
MAX_FRAGMENT: Final = (MAX_CONTENT + 256, MAX_CONTENT + 2048)
"""The longest fragment of a protected record: of TLS 1.3 (RFC 8446 §5.2), and of TLS 1.2 (RFC 5246
§6.2.3)."""
MAX_EMPTY_RECORDS: Final = 32
"""So many may come in a row, as in BoringSSL and OpenSSL."""

_HEADER: Final = 5
_HEAD: Final = struct.Struct(">BHH")
_TYPES: Final = {kind: RecordType(kind) for kind in range(20, 25)}
"""The types of records in a stream."""
_TLS_1_2: Final = 0x0303
_MAX_MESSAGE: Final = 1 << 17
"""Chains of certificates have up to 64 KiB; OpenSSL accepts 100 KiB."""
_CONTENT: Final = memoryview(bytearray(MAX_RECORD))
"""What is opened goes here first. Nothing waits between that and its being copied."""


def is_type(kind: int) -> bool:
    """Whether it is the type of a record."""
    return kind in _TYPES


def refuse_header(kind: int, version: int, length: int, limit: int) -> NoReturn:
    """Raises the TlsError for the header of a record that is not expected: it has another version,
    or a longer fragment than `limit`, or else another type."""
    if version != _TLS_1_2:
        raise TlsError(Alert.PROTOCOL_VERSION, f"a TLS record of version 0x{version:04x}")
    if length > limit:
        raise TlsError(Alert.RECORD_OVERFLOW, f"a TLS record of {length} bytes")
    raise TlsError(Alert.UNEXPECTED_MESSAGE, f"an unexpected TLS record of type {kind}")


class RecordsIn:
    """The records that come in on one leg."""

    __slots__ = (
        "_empty",
        "_unread",
        "dropped",
        "early_data_to_skip",
        "is_tls12",
        "max_content",
        "protection",
    )

    def __init__(self) -> None:
        self.protection: Protection | None = None
        """What the next record is protected with; None: it is plaintext."""
        self.is_tls12 = False
        """Whether TLS 1.2 was chosen: there, ChangeCipherSpec has a meaning, and is returned."""
        self.early_data_to_skip = 0
        """So many bytes of early data may be skipped, which are protected with a key that we do not
        have: in plaintext (after a HelloRetryRequest) records of application data, and behind that
        records that do not authenticate. The first other record ends them (RFC 8446 §4.2.10)."""
        self.dropped = 0
        """So many records with a ChangeCipherSpec were dropped."""
        self.max_content = MAX_CONTENT
        """The most bytes of content, with its padding, in a protected record. We may have asked for
        less: RFC 8449 §4 has "a fatal "record_overflow" alert" for more."""
        self._unread = bytearray()
        self._empty = 0
        """Records without content, in a row."""

    def feed(self, data: bytes | memoryview) -> None:
        """What comes next on this leg, in any pieces."""
        self._unread += data

    def take_rest(self) -> bytes:
        """The bytes of the records that `next` has not returned, once."""
        rest = bytes(self._unread)
        self._unread.clear()
        return rest

    def next(self) -> tuple[RecordType, bytes] | None:
        """The type and the content of the next record; None if it is not whole yet.

        Raises TlsError. Of a row of empty records only so many are returned.
        """
        while record := self._next_whole():
            kind = record[0]
            if kind == RecordType.CHANGE_CIPHER_SPEC and not self.is_tls12:
                self._drop_change_cipher_spec(record)
            elif opened := self._open(kind, record):
                if opened[1]:
                    self._empty = 0
                else:
                    self._check_empty(opened[0])
                return opened
        return None

    def _next_whole(self) -> bytes | None:
        unread = self._unread
        if not unread or (count := len(unread)) < _HEADER:
            return None
        kind, version, length = _HEAD.unpack_from(unread)
        limit = MAX_FRAGMENT[self.is_tls12] if self.protection else MAX_CONTENT
        # RFC 8446 §5.1: the version of plaintext "MUST be ignored for all purposes". What has
        # another major version is not TLS.
        is_protected = self.protection and (self.is_tls12 or kind == RecordType.APPLICATION_DATA)
        if not is_protected:
            version = version & 0xFF00 | 3
        if version != _TLS_1_2 or length > limit or kind not in _TYPES:
            refuse_header(kind, version, length, limit)
        end = _HEADER + length
        if count < end:
            return None
        record = bytes(unread[:end])
        del unread[:end]
        return record

    def _drop_change_cipher_spec(self, record: bytes) -> None:
        """RFC 8446 §5: one "consisting of the single byte value 0x01" is dropped without further
        processing, any other is unexpected."""
        if record[_HEADER:] != b"\x01":
            raise TlsError(Alert.UNEXPECTED_MESSAGE, "a broken ChangeCipherSpec")
        self.dropped += 1
        self._count_empty()

    def _open(self, kind: int, record: bytes) -> tuple[RecordType, bytes] | None:
        """None: it was early data."""
        protection = self.protection
        if protection is None:
            if kind == RecordType.APPLICATION_DATA and self.early_data_to_skip:
                self._skip(record)
                return None
        elif kind == RecordType.APPLICATION_DATA or self.is_tls12:
            return self._open_protected(protection, record)
        elif kind != RecordType.ALERT or protection.sequence:
            raise TlsError(Alert.UNEXPECTED_MESSAGE, "a plaintext TLS record in between")
        # An end that has no keys yet sends its alert as plaintext.
        self.early_data_to_skip = 0
        return _TYPES[kind], record[_HEADER:]

    def _open_protected(
        self, protection: Protection, record: bytes
    ) -> tuple[RecordType, bytes] | None:
        try:
            kind, length = protection.open_into(memoryview(record), _CONTENT)
        except NotAuthentic as error:
            if not self.early_data_to_skip:
                raise TlsError(Alert.BAD_RECORD_MAC, error.message) from None
            self._skip(record)
            return None
        if len(record) - protection.overhead > self.max_content:
            raise TlsError(Alert.RECORD_OVERFLOW, f"a TLS record of {len(record)} bytes")
        found = _TYPES.get(kind)
        if found is None:
            raise TlsError(Alert.UNEXPECTED_MESSAGE, f"a TLS record of type {kind}")
        self.early_data_to_skip = 0
        return found, bytes(_CONTENT[:length])

    def _skip(self, record: bytes) -> None:
        self.early_data_to_skip -= len(record)
        if self.early_data_to_skip <= 0:
            raise TlsError(Alert.UNEXPECTED_MESSAGE, "too much early data")

    def _check_empty(self, kind: RecordType) -> None:
        if self.protection and not self.is_tls12 and kind is not RecordType.APPLICATION_DATA:
            # RFC 8446 §5.4: of handshake messages and alerts, "the receiving implementation MUST
            # terminate the connection with an "unexpected_message" alert."
            raise TlsError(Alert.UNEXPECTED_MESSAGE, "an empty TLS record")
        self._count_empty()

    def _count_empty(self) -> None:
        self._empty += 1
        if self._empty > MAX_EMPTY_RECORDS:
            raise TlsError(Alert.UNEXPECTED_MESSAGE, "too many empty TLS records")


class Messages:
    """The handshake messages in the records of one leg. A message may span records, and a record
    may have several."""

    __slots__ = ("_limit", "_unread")

    def __init__(self, limit: int = _MAX_MESSAGE) -> None:
        """`limit`: the most bytes of a message, without its header."""
        self._limit = limit
        self._unread = bytearray()

    @property
    def is_between(self) -> bool:
        """Whether all that was fed has been returned."""
        return not self._unread

    def feed(self, content: bytes | memoryview) -> None:
        """The content of the next handshake record."""
        self._unread += content

    def next_with(self, content: bytes) -> tuple[int, bytes] | None:
        """What `next` returns once this content was fed, which mostly is a message."""
        is_whole = len(content) == 4 + int.from_bytes(content[1:4], "big") <= 4 + self._limit
        if is_whole and not self._unread:
            return content[0], content
        self.feed(content)
        return self.next()

    def next(self) -> tuple[int, bytes] | None:
        """The type of the next message, and all of it with its header; None if it is not whole yet.
        Raises TlsError."""
        unread = self._unread
        if not unread or (count := len(unread)) < 4:
            return None
        end = 4 + (unread[1] << 16 | unread[2] << 8 | unread[3])
        if end > 4 + self._limit:
            raise TlsError(Alert.ILLEGAL_PARAMETER, f"a TLS handshake message of {end} bytes")
        if count < end:
            return None
        message = bytes(unread[:end])
        del unread[:end]
        return message[0], message


class RecordsOut:
    """The records that go out on one leg."""

    __slots__ = ("max_content", "protection")

    def __init__(self) -> None:
        self.protection: Protection | None = None
        """What the next record is protected with; None: it is plaintext."""
        self.max_content = MAX_CONTENT
        """The most bytes of content in a record: the other end may have asked for less
        (record_size_limit, max_fragment_length)."""

    def seal(self, kind: int, content: bytes) -> bytes:
        """Records of this type with this content: as few as it takes."""
        size = self.max_content
        if 0 < len(content) <= size:
            return self._seal(kind, content)
        return b"".join(
            self._seal(kind, content[at : at + size]) for at in range(0, len(content), size)
        )

    def _seal(self, kind: int, content: bytes) -> bytes:
        if self.protection:
            return self.protection.seal(kind, content)
        return bytes([kind, 3, 3]) + len(content).to_bytes(2, "big") + content
