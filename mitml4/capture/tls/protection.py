"""Opening protected TLS records: one sender's key, and the number of the record that comes next.

Keys come from a secret of the key log: by HKDF-Expand-Label in TLS 1.3 (RFC 8446 §7.3), by the PRF
in TLS 1.2 (RFC 5246 §6.3).
"""

from __future__ import annotations

import hashlib
import hmac
from abc import ABC, abstractmethod
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305

from mitml4.capture.tls.suites import Suite
from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError

__all__ = ["NotAuthentic", "Protection", "Record", "protection_1_2", "protection_1_3"]

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

    @property
    def fragment(self) -> bytes:
        return self.raw[5:]


class Protection(ABC):
    """The records of one sender under one key."""

    def __init__(self) -> None:
        self._sequence = 0

    def open(self, record: Record) -> tuple[int, bytes]:
        """The record's type and content. Raises NotAuthentic, and then still waits for the record
        that it waited for before."""
        opened = self._open(record, self._sequence.to_bytes(8, "big"))
        self._sequence += 1
        return opened

    @abstractmethod
    def _open(self, record: Record, sequence: bytes) -> tuple[int, bytes]: ...


class _Aead(Protocol):
    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes) -> bytes: ...


_TAG: Final = {"GCM": 16, "CCM": 16, "CCM8": 8, "CHACHA20": 16}


def _aead(suite: Suite, key: bytes) -> _Aead:
    match suite.mode:
        case "GCM":
            return AESGCM(key)
        case "CHACHA20":
            return ChaCha20Poly1305(key)
        case _:
            return AESCCM(key, tag_length=_TAG[suite.mode])


def _opened(aead: _Aead, nonce: bytes, ciphertext: bytes, associated: bytes) -> bytes:
    try:
        return aead.decrypt(nonce, ciphertext, associated)
    except InvalidTag:
        raise NotAuthentic from None


def _xor(left: bytes, right: bytes) -> bytes:
    number = int.from_bytes(left, "big") ^ int.from_bytes(right, "big")
    return number.to_bytes(max(len(left), len(right)), "big")


# TLS 1.3


def protection_1_3(suite: Suite, secret: bytes) -> Protection13:
    """From a traffic secret. Raises ProtocolError for one that is not the suite's."""
    if len(secret) != hashlib.new(suite.hash).digest_size:
        raise ProtocolError(f"a secret of {len(secret)} bytes does not fit the cipher suite")
    return Protection13(suite, secret)


class Protection13(Protection):
    """RFC 8446 §5.2: the type is inside, behind the content and before the padding."""

    def __init__(self, suite: Suite, secret: bytes) -> None:
        super().__init__()
        self._suite = suite
        self._secret = secret
        self._aead = _aead(suite, _expand(suite, secret, b"key", suite.key_bytes))
        self._iv = _expand(suite, secret, b"iv", 12)

    def updated(self) -> Protection13:
        """After a KeyUpdate (RFC 8446 §7.2)."""
        return Protection13(
            self._suite, _expand(self._suite, self._secret, b"traffic upd", len(self._secret))
        )

    def _open(self, record: Record, sequence: bytes) -> tuple[int, bytes]:
        nonce = _xor(self._iv, sequence)
        inner = _opened(self._aead, nonce, record.fragment, record.raw[:5]).rstrip(b"\0")
        if not inner:
            raise ProtocolError("a TLS record without a type")
        return inner[-1], inner[:-1]


def _expand(suite: Suite, secret: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand-Label with an empty context (RFC 8446 §7.1, RFC 5869 §2.3); one round is enough
    for every key, as none is longer than the hash."""
    label = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
    return hmac.digest(secret, info + b"\x01", suite.hash)[:length]


# TLS 1.2


def protection_1_2(
    suite: Suite,
    master: bytes,
    *,
    client_random: bytes,
    server_random: bytes,
    of_client: bool,
    encrypt_then_mac: bool,
) -> Protection:
    """From the master secret: the keys that one side writes with (RFC 5246 §6.3)."""
    mac_bytes = hashlib.new(suite.mac).digest_size if suite.mac else 0
    iv_bytes = {"CBC": 0, "CHACHA20": 12}.get(suite.mode, 4)
    sizes = (mac_bytes, suite.key_bytes, iv_bytes)
    block = _prf(
        suite.hash, master, b"key expansion", server_random + client_random, 2 * sum(sizes)
    )
    parts, at = [], 0
    for size in sizes:
        start = at if of_client else at + size
        parts.append(block[start : start + size])
        at += 2 * size
    mac_key, key, iv = parts
    if suite.mac:
        return _Cbc(key, mac_key, suite.mac, encrypt_then_mac=encrypt_then_mac)
    if suite.mode == "CHACHA20":
        return _ChaCha12(suite, key, iv)
    return _Aead12(suite, key, iv)


def _prf(digest: str, secret: bytes, label: bytes, seed: bytes, length: int) -> bytes:
    """RFC 5246 §5."""
    seed = label + seed
    out, a = b"", seed
    while len(out) < length:
        a = hmac.digest(secret, a, digest)
        out += hmac.digest(secret, a + seed, digest)
    return out[:length]


def _header(record: Record, sequence: bytes, length: int) -> bytes:
    """What is authenticated with the content: number, type, version, length (RFC 5246 §6.2.3)."""
    return sequence + record.raw[:3] + length.to_bytes(2, "big")


class _Aead12(Protection):
    """GCM (RFC 5288) and CCM (RFC 6655): half of the nonce stands before the content."""

    def __init__(self, suite: Suite, key: bytes, salt: bytes) -> None:
        super().__init__()
        self._aead = _aead(suite, key)
        self._tag = _TAG[suite.mode]
        self._salt = salt

    def _open(self, record: Record, sequence: bytes) -> tuple[int, bytes]:
        explicit, ciphertext = record.fragment[:8], record.fragment[8:]
        if len(ciphertext) < self._tag:
            raise NotAuthentic
        associated = _header(record, sequence, len(ciphertext) - self._tag)
        return record.kind, _opened(self._aead, self._salt + explicit, ciphertext, associated)


class _ChaCha12(Protection):
    """RFC 7905: the nonce is TLS 1.3's, the rest TLS 1.2's."""

    def __init__(self, suite: Suite, key: bytes, iv: bytes) -> None:
        super().__init__()
        self._aead = _aead(suite, key)
        self._tag = _TAG[suite.mode]
        self._iv = iv

    def _open(self, record: Record, sequence: bytes) -> tuple[int, bytes]:
        ciphertext = record.fragment
        if len(ciphertext) < self._tag:
            raise NotAuthentic
        associated = _header(record, sequence, len(ciphertext) - self._tag)
        return record.kind, _opened(self._aead, _xor(self._iv, sequence), ciphertext, associated)


class _Cbc(Protection):
    """RFC 5246 §6.2.3.2, and with the MAC outside RFC 7366. The IV stands before the blocks.

    Nobody waits for an answer here, so there is no timing to hide.
    """

    def __init__(self, key: bytes, mac_key: bytes, digest: str, *, encrypt_then_mac: bool) -> None:
        super().__init__()
        self._key = algorithms.AES(key)
        self._mac_key = mac_key
        self._digest = digest
        self._mac_bytes = hashlib.new(digest).digest_size
        self._encrypt_then_mac = encrypt_then_mac

    def _open(self, record: Record, sequence: bytes) -> tuple[int, bytes]:
        ciphertext = record.fragment
        if self._encrypt_then_mac:
            ciphertext = self._checked(record, sequence, ciphertext)
        if len(ciphertext) < 2 * _BLOCK or len(ciphertext) % _BLOCK:
            raise NotAuthentic
        decryptor = Cipher(self._key, modes.CBC(ciphertext[:_BLOCK])).decryptor()
        content = _unpadded(decryptor.update(ciphertext[_BLOCK:]) + decryptor.finalize())
        if not self._encrypt_then_mac:
            content = self._checked(record, sequence, content)
        return record.kind, content

    def _checked(self, record: Record, sequence: bytes, data: bytes) -> bytes:
        """What stands before the MAC, if it is the MAC of that."""
        content, mac = data[: -self._mac_bytes], data[-self._mac_bytes :]
        header = _header(record, sequence, len(content))
        if not hmac.compare_digest(mac, hmac.digest(self._mac_key, header + content, self._digest)):
            raise NotAuthentic
        return content


def _unpadded(data: bytes) -> bytes:
    """Every byte of the padding is its length, the last one not counted."""
    count = data[-1] + 1
    if data[-count:] != bytes([data[-1]]) * count:
        raise NotAuthentic
    return data[:-count]
