"""Protected TLS records: one sender's key, and the number of the record that comes next.

Keys come from a traffic secret by HKDF-Expand-Label in TLS 1.3 (RFC 8446 §7.3), from the master
secret by the PRF in TLS 1.2 (RFC 5246 §6.3).

Bulk transfers spend their time in `open_into` and `seal_into`. So these are written out for each
kind of protection, and write into the caller's buffer.
"""

from __future__ import annotations

import hashlib
import hmac
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305

from mitml4.crypto.schedule import prf, record_keys, updated
from mitml4.crypto.suites import SECRET_BYTES, TAG_BYTES, CbcSuite, Suite
from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.tls.alerts import Alert, TlsError

__all__ = [
    "NotAuthentic",
    "Opener",
    "Protection",
    "Protection13",
    "Record",
    "cbc_opener",
    "protection_1_2",
    "protection_1_3",
]

_HEADER: Final = 5
"""Bytes of a record's header: type, version, length."""
_NONCE: Final = 12
_BYTES: Final = tuple(bytes([value]) for value in range(256))
_BLOCK: Final = 16  # AES


class NotAuthentic(ProtocolError):  # noqa: N818 - caught by name, where skipping is right
    """A record that was not encrypted with this key at this place, or was changed since."""

    def __init__(self) -> None:
        super().__init__("a record does not authenticate")


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it stands in the stream (RFC 8446 §5.1)."""

    raw: bytes

    @property
    def kind(self) -> int:
        return self.raw[0]


class Opener(ABC):
    """Opens the records of one sender under one key."""

    __slots__ = ("sequence",)

    def __init__(self) -> None:
        self.sequence = 0
        """The number of the record that comes next."""

    def open(self, record: Record) -> tuple[int, bytes]:
        """The record's type and content. Raises as `open_into` does."""
        raw = memoryview(record.raw)
        content = memoryview(bytearray(len(raw)))
        kind, length = self.open_into(raw, content)
        return kind, bytes(content[:length])

    @abstractmethod
    def open_into(self, record: memoryview, into: memoryview) -> tuple[int, int]:
        """Writes the content of a record (whole, with its header) and returns its type and length.

        `into` has room for the fragment without its tag: more than the content may be written.
        Raises NotAuthentic, and then the next record is still the one it was before; `TlsError` for
        a record of TLS 1.3 without a type.
        """


class Protection(Opener):
    """Opens the records of one sender under one key, or seals them."""

    __slots__ = ("overhead",)

    overhead: int
    """Bytes that a sealed record has beyond its content."""

    def seal(self, kind: int, content: bytes) -> bytes:
        """A whole record of this type and content."""
        record = bytearray(len(content) + self.overhead)
        self.seal_into(kind, content, memoryview(record))
        return bytes(record)

    @abstractmethod
    def seal_into(self, kind: int, content: bytes | memoryview, into: memoryview) -> int:
        """Writes a whole record of this type and content, and returns its length: the content's and
        `overhead`. `into` must not overlap the content."""


class _Aead(Protocol):
    def decrypt_into(
        self,
        nonce: bytes,
        data: bytes | memoryview,
        associated_data: bytes | memoryview,
        buf: memoryview,
    ) -> int: ...
    def encrypt_into(
        self,
        nonce: bytes,
        data: bytes | memoryview,
        associated_data: bytes | memoryview,
        buf: memoryview,
    ) -> int: ...


def _aead(suite: Suite, key: bytes) -> _Aead:
    match suite.mode:
        case "GCM":
            return AESGCM(key)
        case "CHACHA20":
            return ChaCha20Poly1305(key)
        case _:
            return AESCCM(key, tag_length=TAG_BYTES[suite.mode])


# TLS 1.3


def protection_1_3(suite: Suite, secret: bytes) -> Protection13:
    """From a traffic secret. Raises ProtocolError for one that is not the suite's."""
    if len(secret) != SECRET_BYTES[suite.hash]:
        raise ProtocolError(f"a secret of {len(secret)} bytes does not fit the cipher suite")
    return Protection13(suite, secret)


class Protection13(Protection):
    """RFC 8446 §5.2: the type is inside, behind the content and before the padding."""

    __slots__ = ("_aead", "_frame", "_iv", "_suite", "secret")

    def __init__(self, suite: Suite, secret: bytes) -> None:
        super().__init__()
        self._suite = suite
        self.secret = secret
        """The traffic secret."""
        key, iv = record_keys(suite.hash, secret, suite.key_bytes, _NONCE)
        self._aead = _aead(suite, key)
        self._iv = int.from_bytes(iv, "big")
        self._frame = _HEADER + TAG_BYTES[suite.mode]
        self.overhead = self._frame + 1

    def updated(self) -> Protection13:
        """After a KeyUpdate (RFC 8446 §7.2)."""
        return Protection13(self._suite, updated(self._suite.hash, self.secret))

    def open_into(self, record: memoryview, into: memoryview) -> tuple[int, int]:
        length = len(record) - self._frame
        if length < 0:
            raise NotAuthentic
        nonce = (self._iv ^ self.sequence).to_bytes(_NONCE, "big")
        try:
            self._aead.decrypt_into(nonce, record[_HEADER:], record[:_HEADER], into[:length])
        except InvalidTag:
            raise NotAuthentic from None
        self.sequence += 1
        if length and (kind := into[length - 1]):
            return kind, length - 1
        inner = bytes(into[:length]).rstrip(b"\0")
        if not inner:
            # RFC 8446 §5.4: "If a receiving implementation does not find a non-zero octet in the
            # cleartext, it MUST terminate the connection with an "unexpected_message" alert."
            raise TlsError(Alert.UNEXPECTED_MESSAGE, "a TLS record without a type")
        return inner[-1], len(inner) - 1

    def seal_into(self, kind: int, content: bytes | memoryview, into: memoryview) -> int:
        end = len(content) + self.overhead
        header = b"\x17\x03\x03" + (end - _HEADER).to_bytes(2, "big")
        into[:_HEADER] = header
        nonce = (self._iv ^ self.sequence).to_bytes(_NONCE, "big")
        inner = b"".join((content, _BYTES[kind]))
        self._aead.encrypt_into(nonce, inner, header, into[_HEADER:end])
        self.sequence += 1
        return end


# TLS 1.2


def protection_1_2(
    suite: Suite,
    master: bytes,
    *,
    client_random: bytes,
    server_random: bytes,
    of_client: bool,
) -> Protection:
    """From the master secret: the keys that one side writes with."""
    sizes = (suite.key_bytes, _NONCE if suite.mode == "CHACHA20" else 4)
    seed = server_random + client_random
    key, iv = _write_keys(suite.hash, master, seed, sizes, of_client=of_client)
    return _ChaCha12(suite, key, iv) if suite.mode == "CHACHA20" else _Aead12(suite, key, iv)


def cbc_opener(
    suite: CbcSuite,
    master: bytes,
    *,
    client_random: bytes,
    server_random: bytes,
    of_client: bool,
    encrypt_then_mac: bool,
) -> Opener:
    """From the master secret: the keys that one side writes with."""
    sizes = (hashlib.new(suite.mac).digest_size, suite.key_bytes)
    seed = server_random + client_random
    mac_key, key = _write_keys(suite.hash, master, seed, sizes, of_client=of_client)
    return _Cbc(key, mac_key, suite.mac, encrypt_then_mac=encrypt_then_mac)


def _write_keys(
    name: str, master: bytes, seed: bytes, sizes: tuple[int, int], *, of_client: bool
) -> Iterator[bytes]:
    """RFC 5246 §6.3: of each kind, the client's and then the server's."""
    block = prf(name, master, b"key expansion", seed, 2 * sum(sizes))
    at = 0
    for size in sizes:
        start = at if of_client else at + size
        yield block[start : start + size]
        at += 2 * size


class _Aead12(Protection):
    """GCM (RFC 5288) and CCM (RFC 6655): half of the nonce stands before the content. Ours is the
    record's number, as both allow."""

    _EXPLICIT: Final = _HEADER + 8
    """Where the ciphertext begins, behind the header and half of the nonce."""

    def __init__(self, suite: Suite, key: bytes, salt: bytes) -> None:
        super().__init__()
        self._aead = _aead(suite, key)
        self._salt = salt
        self.overhead = self._EXPLICIT + TAG_BYTES[suite.mode]

    def open_into(self, record: memoryview, into: memoryview) -> tuple[int, int]:
        length = len(record) - self.overhead
        if length < 0:
            raise NotAuthentic
        at = self._EXPLICIT
        nonce = self._salt + record[_HEADER:at]
        # RFC 5246 §6.2.3.3: number, type, version and length are authenticated with the content.
        associated = self.sequence.to_bytes(8, "big") + record[:3] + length.to_bytes(2, "big")
        try:
            self._aead.decrypt_into(nonce, record[at:], associated, into[:length])
        except InvalidTag:
            raise NotAuthentic from None
        self.sequence += 1
        return record[0], length

    def seal_into(self, kind: int, content: bytes | memoryview, into: memoryview) -> int:
        length, at = len(content), self._EXPLICIT
        end = length + self.overhead
        number = self.sequence.to_bytes(8, "big")
        start = kind.to_bytes(1, "big") + b"\x03\x03"
        into[:at] = start + (end - _HEADER).to_bytes(2, "big") + number
        associated = number + start + length.to_bytes(2, "big")
        self._aead.encrypt_into(self._salt + number, content, associated, into[at:end])
        self.sequence += 1
        return end


class _ChaCha12(Protection):
    """RFC 7905: the nonce is TLS 1.3's, the rest TLS 1.2's."""

    def __init__(self, suite: Suite, key: bytes, iv: bytes) -> None:
        super().__init__()
        self._aead = _aead(suite, key)
        self._iv = int.from_bytes(iv, "big")
        self.overhead = _HEADER + TAG_BYTES[suite.mode]

    def open_into(self, record: memoryview, into: memoryview) -> tuple[int, int]:
        length = len(record) - self.overhead
        if length < 0:
            raise NotAuthentic
        nonce = (self._iv ^ self.sequence).to_bytes(_NONCE, "big")
        associated = self.sequence.to_bytes(8, "big") + record[:3] + length.to_bytes(2, "big")
        try:
            self._aead.decrypt_into(nonce, record[_HEADER:], associated, into[:length])
        except InvalidTag:
            raise NotAuthentic from None
        self.sequence += 1
        return record[0], length

    def seal_into(self, kind: int, content: bytes | memoryview, into: memoryview) -> int:
        length = len(content)
        end = length + self.overhead
        start = kind.to_bytes(1, "big") + b"\x03\x03"
        into[:_HEADER] = start + (end - _HEADER).to_bytes(2, "big")
        nonce = (self._iv ^ self.sequence).to_bytes(_NONCE, "big")
        associated = self.sequence.to_bytes(8, "big") + start + length.to_bytes(2, "big")
        self._aead.encrypt_into(nonce, content, associated, into[_HEADER:end])
        self.sequence += 1
        return end


class _Cbc(Opener):
    """RFC 5246 §6.2.3.2, and with the MAC outside RFC 7366. The IV stands before the blocks.

    It opens captures only: nobody waits for an answer, so there is no timing to hide.
    """

    def __init__(self, key: bytes, mac_key: bytes, digest: str, *, encrypt_then_mac: bool) -> None:
        super().__init__()
        self._key = algorithms.AES(key)
        self._mac_key = mac_key
        self._digest = digest
        self._mac_bytes = hashlib.new(digest).digest_size
        self._encrypt_then_mac = encrypt_then_mac

    def open_into(self, record: memoryview, into: memoryview) -> tuple[int, int]:
        ciphertext = bytes(record[_HEADER:])
        if self._encrypt_then_mac:
            ciphertext = self._checked(record, ciphertext)
        if len(ciphertext) < 2 * _BLOCK or len(ciphertext) % _BLOCK:
            raise NotAuthentic
        decryptor = Cipher(self._key, modes.CBC(ciphertext[:_BLOCK])).decryptor()
        content = _unpadded(decryptor.update(ciphertext[_BLOCK:]) + decryptor.finalize())
        if not self._encrypt_then_mac:
            content = self._checked(record, content)
        into[: len(content)] = content
        self.sequence += 1
        return record[0], len(content)

    def _checked(self, record: memoryview, data: bytes) -> bytes:
        """What stands before the MAC, if it is the MAC of that."""
        content, mac = data[: -self._mac_bytes], data[-self._mac_bytes :]
        number = self.sequence.to_bytes(8, "big")
        header = number + record[:3] + len(content).to_bytes(2, "big")
        if not hmac.compare_digest(mac, hmac.digest(self._mac_key, header + content, self._digest)):
            raise NotAuthentic
        return content


def _unpadded(data: bytes) -> bytes:
    """Every byte of the padding is its length, the last one not counted."""
    count = data[-1] + 1
    if data[-count:] != bytes([data[-1]]) * count:
        raise NotAuthentic
    return data[:-count]
