"""TLS 1.3 records that are written one by one, which TLS libraries do not support.

They are what a peer may send after the handshake: records of one byte or none, a record full of
tickets, endless key updates. The secret comes from the peer's key log.
"""

from __future__ import annotations

import struct
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA384

from mitml4.crypto.records import Protection13, protection_1_3
from mitml4.crypto.suites import suite_of

__all__ = ["APPLICATION_DATA", "HANDSHAKE", "RecordWriter", "logged_secret", "ticket"]

HANDSHAKE: Final = 22
APPLICATION_DATA: Final = 23


@dataclass(slots=True)
class RecordWriter:
    """Writes the records of one side with TLS_AES_128_GCM_SHA256 or TLS_AES_256_GCM_SHA384,
    depending on its traffic secret, starting with the first record under that secret."""

    secret: InitVar[bytes]
    _protection: Protection13 = field(init=False)

    def __post_init__(self, secret: bytes) -> None:
        suite = suite_of(0x1302 if len(secret) == SHA384.digest_size else 0x1301)
        assert suite
        self._protection = protection_1_3(suite, secret)

    def record(self, kind: int, content: bytes) -> bytes:
        return self._protection.seal(kind, content)

    def data(self, content: bytes) -> bytes:
        return self.record(APPLICATION_DATA, content)

    def key_update(self, *, requested: bool = False) -> bytes:
        """RFC 8446 §4.6.3; following records use the next key."""
        record = self.record(HANDSHAKE, bytes((24, 0, 0, 1, requested)))
        self._protection = self._protection.updated()
        return record


def ticket(number: int) -> bytes:
    """A NewSessionTicket of minimum length (RFC 8446 §4.6.1)."""
    body = struct.pack("!IIB1sH1sH", 7200, number, 1, b"n", 1, b"t", 0)
    return b"\x04" + struct.pack("!I", len(body))[1:] + body


def logged_secret(log: Path, label: str) -> bytes:
    """The last secret with this label in a key log, such as `SERVER_TRAFFIC_SECRET_0`."""
    lines = [line.split() for line in log.read_text().splitlines() if line]
    return bytes.fromhex([line[2] for line in lines if line[:1] == [label]][-1])
