"""Initial packets of QUIC, whose keys are no secret, and header protection (RFC 9001 §5).

The keys of Initial packets come from the connection id that the client has chosen for the server,
and a salt that is the version's (RFC 9001 §5.2, RFC 9369 §3.3). So they keep nothing secret: they
only show that the sender has seen the client's packet.
"""

from __future__ import annotations

import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mitml4.crypto.schedule import expand_label
from mitml4.dataclass import dataclass

__all__ = [
    "VERSION_1",
    "VERSION_2",
    "InitialKeys",
    "Opened",
    "is_draft",
    "retry_tag",
    "whole_number",
]

VERSION_1: Final = 0x00000001
VERSION_2: Final = 0x6B3343CF

_HASH: Final = "sha256"
_KEY_BYTES: Final = 16
_NONCE: Final = 12
_SAMPLE: Final = 16
_LONGEST_NUMBER: Final = 4

# RFC 9001 §5.2; RFC 9369 §3.3.1; the same sections of draft-ietf-quic-tls-23, -29 and -33.
_SALT_1: Final = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")
_SALT_2: Final = bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9")
_SALT_DRAFT_29: Final = bytes.fromhex("afbfec289993d24c9e9786f19c6111e04390a899")
_SALT_DRAFT_23: Final = bytes.fromhex("c3eef712c72ebb5a11a7d2432bb46365bef9f502")

# RFC 9001 §5.8, RFC 9369 §3.3.3: keys and nonces of the tag of a Retry.
_RETRY: Final = {
    VERSION_1: ("be0c690b9f66575a1d766b54e368c84e", "461599d35d632bf2239825bb"),
    VERSION_2: ("8fb4b01b56ac48e260fbcbcead7ccc92", "d86969bc2d7c6d9990efb04a"),
}


def is_draft(version: int) -> bool:
    """Whether it is a draft of version 1 whose packets are opened here: 23 to 34."""
    return 0xFF000017 <= version <= 0xFF000022


def _salt(version: int) -> bytes:
    if version == VERSION_2:
        return _SALT_2
    if not is_draft(version) or version >= 0xFF000021:
        return _SALT_1
    return _SALT_DRAFT_29 if version >= 0xFF00001D else _SALT_DRAFT_23


@dataclass(frozen=True, slots=True)
class Opened:
    """A packet without its protection."""

    number: int
    payload: bytes


class InitialKeys:
    """What the Initial packets of one side are protected with."""

    def __init__(self, version: int, connection_id: bytes, *, of_client: bool) -> None:
        """`connection_id`: the destination of the client's first packet, or of the first one after
        a Retry."""
        initial = hmac.digest(_salt(version), connection_id, _HASH)
        label = b"client in" if of_client else b"server in"
        secret = expand_label(_HASH, initial, label, b"", 32)
        kind = b"quicv2 " if version == VERSION_2 else b"quic "
        self._aead = AESGCM(expand_label(_HASH, secret, kind + b"key", b"", _KEY_BYTES))
        self._iv = int.from_bytes(expand_label(_HASH, secret, kind + b"iv", b"", _NONCE), "big")
        self._mask = algorithms.AES(expand_label(_HASH, secret, kind + b"hp", b"", _KEY_BYTES))

    def open(self, packet: bytes, at: int, *, expected: int = 0) -> Opened | None:
        """A whole packet with a long header; None if it was not protected with these keys.

        `at` is where the packet number stands; `expected` the number that comes next.
        """
        sample = packet[at + _LONGEST_NUMBER : at + _LONGEST_NUMBER + _SAMPLE]
        if len(sample) < _SAMPLE:
            return None
        mask = self._header_mask(sample)
        first = packet[0] ^ (mask[0] & 0x0F)
        length = (first & 0x03) + 1
        number = bytes(a ^ b for a, b in zip(packet[at : at + length], mask[1:], strict=False))
        header = bytes([first]) + packet[1:at] + number
        whole = whole_number(int.from_bytes(number, "big"), 8 * length, expected)
        nonce = (self._iv ^ whole).to_bytes(_NONCE, "big")
        try:
            payload = self._aead.decrypt(nonce, packet[at + length :], header)
        except InvalidTag:
            return None
        return Opened(whole, payload)

    def _header_mask(self, sample: bytes) -> bytes:
        """RFC 9001 §5.4.3."""
        encryptor = Cipher(self._mask, modes.ECB()).encryptor()
        return encryptor.update(sample)


def retry_tag(version: int, packet: bytes, connection_id: bytes) -> bytes | None:
    """The tag that a Retry of this version has to end with (RFC 9001 §5.8); None for a version
    whose is not known.

    `packet` is the Retry without its tag, `connection_id` the one that the client had chosen.
    """
    if version not in _RETRY:
        return None
    key, nonce = map(bytes.fromhex, _RETRY[version])
    pseudo = bytes([len(connection_id)]) + connection_id + packet
    return AESGCM(key).encrypt(nonce, b"", pseudo)


def whole_number(cut: int, bits: int, expected: int) -> int:
    """RFC 9000 §A.3: the number next to the expected one that ends with these bits."""
    window = 1 << bits
    candidate = expected & -window | cut
    if candidate <= expected - window // 2 and candidate < (1 << 62) - window:
        return candidate + window
    if candidate > expected + window // 2 and candidate >= window:
        return candidate - window
    return candidate
