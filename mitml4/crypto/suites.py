"""How the records of a cipher suite are protected, read from the suite's name.

OpenSSL's names say all of it: `ECDHE-RSA-AES128-GCM-SHA256` is AES-GCM with a key of 128 bits and
SHA-256 for deriving keys; `ECDHE-RSA-AES256-SHA384` names no mode, which means CBC, and its hash
is that of the MAC as well.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from mitml4.dataclass import dataclass
from mitml4.protocols.tls.names import cipher_name
from mitml4.regex import regex

__all__ = ["SECRET_BYTES", "TAG_BYTES", "CbcSuite", "Mode", "Suite", "cbc_suite_of", "suite_of"]

Mode: TypeAlias = Literal["GCM", "CCM", "CCM8", "CHACHA20"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """What deriving keys, opening and sealing records takes, with an AEAD."""

    mode: Mode
    key_bytes: int
    hash: str
    """Of HKDF or the PRF, as hashlib names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CbcSuite:
    """What deriving keys and opening records takes, with AES-CBC and HMAC."""

    key_bytes: int
    hash: str
    """Of the PRF."""
    mac: str
    """Of the HMAC."""


TAG_BYTES: Final[dict[Mode, int]] = {"GCM": 16, "CCM": 16, "CCM8": 8, "CHACHA20": 16}
"""The length of the tag that authenticates a record."""
SECRET_BYTES: Final = {"sha256": 32, "sha384": 48}
"""The length of each hash, and so of TLS 1.3's secrets."""
_TLS_1_3: Final = {  # RFC 8446 §B.4
    0x1301: Suite(mode="GCM", key_bytes=16, hash="sha256"),
    0x1302: Suite(mode="GCM", key_bytes=32, hash="sha384"),
    0x1303: Suite(mode="CHACHA20", key_bytes=32, hash="sha256"),
    0x1304: Suite(mode="CCM", key_bytes=16, hash="sha256"),
    0x1305: Suite(mode="CCM8", key_bytes=16, hash="sha256"),
}
_AEAD: Final = regex(r"(?:^|-)AES(128|256)-(GCM|CCM8?)(?:-SHA(256|384))?$")
_CBC: Final = regex(r"(?:^|-)AES(128|256)(?:-CBC)?-SHA(256|384)?$")


def suite_of(number: int) -> Suite | None:
    """None for one that is not known, or has no AEAD, or another one (Camellia, ARIA)."""
    return _TLS_1_3.get(number) or _before(cipher_name(number))


def _before(name: str) -> Suite | None:
    """RFC 5246 §5: the PRF is SHA-256's, but for suites that name a longer hash."""
    if name.endswith("CHACHA20-POLY1305"):
        return Suite(mode="CHACHA20", key_bytes=32, hash="sha256")
    if aead := _AEAD.search(name):
        bits, mode, digest = aead.groups()
        return Suite(mode=_MODES[mode], key_bytes=int(bits) // 8, hash=f"sha{digest or 256}")
    return None


def cbc_suite_of(number: int) -> CbcSuite | None:
    """None for one without AES-CBC."""
    if cbc := _CBC.search(cipher_name(number)):
        bits, digest = cbc.groups()
        prf = "sha384" if digest == "384" else "sha256"
        return CbcSuite(key_bytes=int(bits) // 8, hash=prf, mac=f"sha{digest or 1}")
    return None


_MODES: Final[dict[str, Mode]] = {"GCM": "GCM", "CCM": "CCM", "CCM8": "CCM8"}
