"""TLS 1.3 records that are written one by one, which TLS libraries do not support.

They are what a peer may send after the handshake: records of one byte or none, a record full of
tickets, endless key updates. The secret comes from the peer's key log.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

__all__ = ["APPLICATION_DATA", "HANDSHAKE", "RecordWriter", "logged_secret", "ticket"]

HANDSHAKE: Final = 22
APPLICATION_DATA: Final = 23


@dataclass(slots=True)
class RecordWriter:
    """Writes the records of one side with TLS_AES_128_GCM_SHA256 or TLS_AES_256_GCM_SHA384,
    depending on its traffic secret, starting with the first record under that secret."""

    secret: bytes
    _key: AESGCM = field(init=False)
    _iv: int = field(init=False)
    _sequence: int = field(init=False)

    def __post_init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        length = 32 if len(self.secret) == SHA384.digest_size else 16
        self._key = AESGCM(_expand(self.secret, b"key", length))
        self._iv = int.from_bytes(_expand(self.secret, b"iv", 12), "big")
        self._sequence = 0

    def record(self, kind: int, content: bytes) -> bytes:
        """RFC 8446 §5.2."""
        head = struct.pack("!BHH", APPLICATION_DATA, 0x0303, len(content) + 1 + 16)
        nonce = (self._iv ^ self._sequence).to_bytes(12, "big")
        self._sequence += 1
        return head + self._key.encrypt(nonce, content + bytes([kind]), head)

    def data(self, content: bytes) -> bytes:
        return self.record(APPLICATION_DATA, content)

    def key_update(self, *, requested: bool = False) -> bytes:
        """RFC 8446 §4.6.3; following records use the next key."""
        record = self.record(HANDSHAKE, bytes((24, 0, 0, 1, requested)))
        self.secret = _expand(self.secret, b"traffic upd", len(self.secret))
        self._begin()
        return record


def ticket(number: int) -> bytes:
    """A NewSessionTicket of minimum length (RFC 8446 §4.6.1)."""
    body = struct.pack("!IIB1sH1sH", 7200, number, 1, b"n", 1, b"t", 0)
    return b"\x04" + struct.pack("!I", len(body))[1:] + body


def logged_secret(log: Path, label: str) -> bytes:
    """The last secret with this label in a key log, such as `SERVER_TRAFFIC_SECRET_0`."""
    lines = [line.split() for line in log.read_text().splitlines() if line]
    return bytes.fromhex([line[2] for line in lines if line[:1] == [label]][-1])


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand-Label with no context (RFC 8446 §7.1)."""
    name = b"tls13 " + label
    info = struct.pack("!HB", length, len(name)) + name + b"\0"
    algorithm = SHA384() if len(secret) == SHA384.digest_size else SHA256()
    return HKDFExpand(algorithm, length, info).derive(secret)
