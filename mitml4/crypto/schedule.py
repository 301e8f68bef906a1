"""How the secrets of a connection are derived: TLS 1.3's key schedule, and TLS 1.2's PRF.

TLS 1.3 (RFC 8446 §7.1) has three secrets, each extracted from the one before:

    early secret ◄─ PSK            ─► binder key
    handshake secret ◄─ (EC)DHE    ─► handshake traffic
    master secret                  ─► application traffic, exporter, resumption

`hash` is the cipher suite's, as hashlib names it. A transcript is the hash of the messages so far,
never the messages.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from mitml4.dataclass import dataclass

__all__ = [
    "Schedule",
    "Secrets",
    "expand_label",
    "extended_master_secret",
    "finished",
    "finished_1_2",
    "master_secret",
    "prf",
    "record_keys",
    "ticket_psk",
    "updated",
]

_MASTER_SECRET_BYTES: Final = 48
_FINISHED_1_2_BYTES: Final = 12

# TLS 1.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What each side protects its records with, of one stage of a connection."""

    client: bytes
    server: bytes


_Keyed: TypeAlias = tuple[Callable[[bytes], "hashlib._Hash"], bytes, bytes]
"""A hash, and its key as HMAC has it inside and outside (RFC 2104 §2)."""


def _keyed(hash: str, key: bytes) -> _Keyed:
    """By a secret, which is shorter than a block of the hash."""
    function, block = _HASHES[hash]
    key = key.ljust(block, b"\0")
    return function, key.translate(_INNER_PAD), key.translate(_OUTER_PAD)


def _mac(keyed: _Keyed, message: bytes) -> bytes:
    """HMAC. A connection has forty, and `hmac.digest` has OpenSSL find its algorithm each time,
    which takes as long again."""
    function, inner, outer = keyed
    return function(outer + function(inner + message).digest()).digest()


def _hmac(hash: str, key: bytes, message: bytes) -> bytes:
    return _mac(_keyed(hash, key), message)


_HASHES: Final = {"sha256": (hashlib.sha256, 64), "sha384": (hashlib.sha384, 128)}
"""Those of TLS 1.3's cipher suites, and the bytes of a block."""
_INNER_PAD: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD: Final = bytes(byte ^ 0x5C for byte in range(256))


class _Start(NamedTuple):
    """What all connections with a hash have in common."""

    zeros: bytes
    empty: bytes
    """The hash of no messages."""
    early: _Keyed
    """The early secret without a PSK."""
    salt: bytes
    """What it is extracted with into the handshake secret."""


@lru_cache(4)
def _start(hash: str) -> _Start:
    empty = hashlib.new(hash).digest()
    zeros = bytes(len(empty))
    early = _hmac(hash, zeros, zeros)
    salt = expand_label(hash, early, b"derived", empty, len(empty))
    return _Start(zeros, empty, _keyed(hash, early), salt)


class Schedule:
    """The secrets of one connection of TLS 1.3, stage after stage."""

    __slots__ = ("_hash", "_salt", "_secret", "_start")

    def __init__(self, hash: str, psk: bytes = b"") -> None:
        """In the early stage; without a PSK, where the connection has none (RFC 8446 §7.1)."""
        self._hash = hash
        self._start = start = _start(hash)
        self._secret = _keyed(hash, _hmac(hash, start.zeros, psk)) if psk else start.early
        self._salt = b"" if psk else start.salt
        """What the next secret is extracted with; empty: not derived yet."""

    def binder_key(self, *, external: bool = False) -> bytes:
        """The base of a binder's `finished`, in the early stage (RFC 8446 §4.2.11.2)."""
        return self._derived(b"ext binder" if external else b"res binder", self._start.empty)

    def enter_handshake(self, shared: bytes, transcript: bytes) -> Secrets:
        """Traffic secrets of the handshake: transcript up to the ServerHello; `shared` is empty if
        keys were not exchanged (psk_ke)."""
        self._extract(shared)
        return Secrets(
            client=self._derived(b"c hs traffic", transcript),
            server=self._derived(b"s hs traffic", transcript),
        )

    def enter_application(self, transcript: bytes) -> Secrets:
        """Traffic secrets of application data: transcript up to the server's Finished."""
        self._extract(b"")
        return Secrets(
            client=self._derived(b"c ap traffic", transcript),
            server=self._derived(b"s ap traffic", transcript),
        )

    def exporter(self, transcript: bytes) -> bytes:
        """The exporter master secret, in the application stage: transcript up to the server's
        Finished."""
        return self._derived(b"exp master", transcript)

    def resumption(self, transcript: bytes) -> bytes:
        """The resumption master secret, in the application stage: transcript up to the client's
        Finished."""
        return self._derived(b"res master", transcript)

    def _extract(self, key: bytes) -> None:
        """The next stage: HKDF-Extract (RFC 5869 §2.2)."""
        salt = self._salt or self._derived(b"derived", self._start.empty)
        self._secret = _keyed(self._hash, _hmac(self._hash, salt, key or self._start.zeros))
        self._salt = b""

    def _derived(self, label: bytes, transcript: bytes) -> bytes:
        """Derive-Secret (RFC 8446 §7.1): HKDF-Expand-Label to the hash's length, a single block."""
        length = len(transcript)
        return _mac(self._secret, _labelled(label, length, length) + transcript + b"\x01")


def expand_label(hash: str, secret: bytes, label: bytes, context: bytes, length: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446 §7.1, RFC 5869 §2.3); the label without `tls13 `."""
    keyed = _keyed(hash, secret)
    info = _labelled(label, length, len(context)) + context
    out = block = _mac(keyed, info + b"\x01")
    number = 1
    while len(out) < length:
        number += 1
        block = _mac(keyed, block + info + bytes([number]))
        out += block
    return out[:length]


def record_keys(hash: str, secret: bytes, key_bytes: int, iv_bytes: int) -> tuple[bytes, bytes]:
    """The key and the IV of records, from a traffic secret (RFC 8446 §7.3): a block of the hash is
    enough for each."""
    keyed = _keyed(hash, secret)
    key = _mac(keyed, _labelled(b"key", key_bytes, 0) + b"\x01")
    return key[:key_bytes], _mac(keyed, _labelled(b"iv", iv_bytes, 0) + b"\x01")[:iv_bytes]


@lru_cache(128)
def _labelled(label: bytes, length: int, context_bytes: int) -> bytes:
    """What stands before the context in HkdfLabel."""
    label = b"tls13 " + label
    return length.to_bytes(2, "big") + bytes([len(label), *label, context_bytes])


def finished(hash: str, base: bytes, transcript: bytes) -> bytes:
    """The verify_data of a Finished, from its sender's handshake traffic secret (RFC 8446 §4.4.4);
    a PSK binder, from the binder key and the transcript up to the binders (§4.2.11.2)."""
    key = _hmac(hash, base, _labelled(b"finished", len(base), 0) + b"\x01")
    return _hmac(hash, key, transcript)


def updated(hash: str, secret: bytes) -> bytes:
    """The traffic secret after a KeyUpdate (RFC 8446 §7.2)."""
    return expand_label(hash, secret, b"traffic upd", b"", len(secret))


def ticket_psk(hash: str, resumption: bytes, nonce: bytes) -> bytes:
    """The PSK of a ticket, from the resumption master secret (RFC 8446 §4.6.1)."""
    return expand_label(hash, resumption, b"resumption", nonce, len(resumption))


# TLS 1.2


def prf(hash: str, secret: bytes, label: bytes, seed: bytes, length: int) -> bytes:
    """RFC 5246 §5."""
    seed = label + seed
    out, a = b"", seed
    while len(out) < length:
        a = hmac.digest(secret, a, hash)
        out += hmac.digest(secret, a + seed, hash)
    return out[:length]


def master_secret(hash: str, premaster: bytes, client_random: bytes, server_random: bytes) -> bytes:
    """RFC 5246 §8.1."""
    seed = client_random + server_random
    return prf(hash, premaster, b"master secret", seed, _MASTER_SECRET_BYTES)


def extended_master_secret(hash: str, premaster: bytes, session_hash: bytes) -> bytes:
    """RFC 7627 §4; the transcript goes up to the ClientKeyExchange."""
    return prf(hash, premaster, b"extended master secret", session_hash, _MASTER_SECRET_BYTES)


def finished_1_2(hash: str, master: bytes, label: bytes, transcript: bytes) -> bytes:
    """The verify_data of a Finished (RFC 5246 §7.4.9); the label is `client finished` or `server
    finished`."""
    return prf(hash, master, label, transcript, _FINISHED_1_2_BYTES)
