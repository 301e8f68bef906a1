"""In which records a client has sent its hello."""

from __future__ import annotations

from mitml4.dataclass import dataclass
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.records import HandshakeType, RecordType
from mitml4.tls.bridge.errors import CannotBridge
from mitml4.tls.bridge.wire import Fields, uint16, vector

__all__ = ["Layout", "read_records"]


@dataclass(frozen=True, slots=True)
class Layout:
    """The records of a handshake message: version and size of each."""

    records: tuple[tuple[int, int], ...]

    def apply(self, message: bytes) -> bytes:
        """A message of the same length in the same records."""
        stream, at = bytearray(), 0
        for version, size in self.records:
            stream += bytes((RecordType.HANDSHAKE,)) + uint16(version)
            stream += vector(2, message[at : at + size])
            at += size
        return bytes(stream)


def read_records(stream: bytes) -> tuple[bytes, Layout]:
    """The message at the start of a stream, header and all; what follows its last record is not
    looked at. Raises TlsError, and CannotBridge for a hello of SSLv2."""
    if stream and stream[0] & 0x80:
        raise CannotBridge("a hello of SSLv2")
    message, records = bytearray(), []
    fields = Fields(stream, "ClientHello")
    while not (length := _length_of(message)) or len(message) < length:
        kind, version = fields.uint8(), fields.uint16()
        if kind != RecordType.HANDSHAKE or version >> 8 != 3:
            raise TlsError(Alert.UNEXPECTED_MESSAGE, "a record that is no part of a ClientHello")
        fragment = fields.vector(2)
        records.append((version, len(fragment)))
        message += fragment
    if message[0] != HandshakeType.CLIENT_HELLO:
        raise TlsError(Alert.UNEXPECTED_MESSAGE, "another message than a ClientHello")
    if len(message) > length:
        raise TlsError(Alert.UNEXPECTED_MESSAGE, "a message after the ClientHello, in its record")
    return bytes(message), Layout(tuple(records))


def _length_of(message: bytearray) -> int:
    """Of a handshake message with its header; 0: not known yet."""
    return 4 + int.from_bytes(message[1:4], "big") if len(message) >= 4 else 0
