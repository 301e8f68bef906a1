"""Packets of QUIC: those of the RFCs, and a client or server that seals others."""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mitml4.crypto.schedule import expand_label

_FILE: Final = Path(__file__).with_name("quic.json")
_SALTS: Final = {
    1: "38762cf7f55934b34d179ae6a4c80cadccbb7f0a",
    0x6B3343CF: "0dede3def700a6db819381be6e269dcbf9bd2ed9",
}
VERSIONS: Final = {1: 1, 2: 0x6B3343CF}


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Appendix A of RFC 9001 or of RFC 9369."""

    version: int
    connection_id: bytes
    client: bytes
    client_payload: bytes
    """Without its padding."""
    server: bytes
    server_payload: bytes
    retry: bytes


def vectors() -> list[Vectors]:
    found: dict[str, dict[str, Any]] = json.loads(_FILE.read_text())
    return [
        Vectors(
            version=VERSIONS[each["version"]],
            connection_id=bytes.fromhex(each["connection_id"]),
            **{
                name: bytes.fromhex("".join(each[name]))
                for name in ("client", "client_payload", "server", "server_payload", "retry")
            },
        )
        for each in found.values()
    ]


def varint(value: int) -> bytes:
    if value < 1 << 6:
        return value.to_bytes(1)
    return (value | 0x4000).to_bytes(2) if value < 1 << 14 else (value | 1 << 31).to_bytes(4)


def crypto(offset: int, data: bytes) -> bytes:
    return b"\x06" + varint(offset) + varint(len(data)) + data


def initial(
    payload: bytes,
    number: int = 0,
    *,
    version: int = 1,
    chosen: bytes = b"\x83\x94\xc8\xf0\x3e\x51\x57\x08",
    destination: bytes | None = None,
    source: bytes = b"",
    token: bytes = b"",
    of_client: bool = True,
) -> bytes:
    """An Initial packet (RFC 9000 §17.2.2). `chosen`: what its keys follow from."""
    destination = chosen if destination is None else destination
    kind = 1 if version == VERSIONS[2] else 0
    head = bytes([0xC0 | kind << 4 | 0x01]) + version.to_bytes(4)
    head += bytes([len(destination)]) + destination + bytes([len(source)]) + source
    head += varint(len(token)) + token + varint(2 + len(payload) + 16) + number.to_bytes(2)
    name = b"quicv2 " if kind else b"quic "
    secret = hmac.digest(bytes.fromhex(_SALTS[version]), chosen, "sha256")
    label = b"client in" if of_client else b"server in"
    secret = expand_label("sha256", secret, label, b"", 32)
    key, iv, mask = (
        expand_label("sha256", secret, name + part, b"", size)
        for part, size in ((b"key", 16), (b"iv", 12), (b"hp", 16))
    )
    nonce = (int.from_bytes(iv) ^ number).to_bytes(12)
    sealed = AESGCM(key).encrypt(nonce, payload, head)
    pad = Cipher(algorithms.AES(mask), modes.ECB()).encryptor().update(sealed[2:18])
    first = head[0] ^ (pad[0] & 0x0F)
    hidden = bytes(a ^ b for a, b in zip(head[-2:], pad[1:3], strict=True))
    return bytes([first]) + head[1:-2] + hidden + sealed
