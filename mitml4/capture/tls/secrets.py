"""The secrets of TLS connections, as a key log holds them.

The format is NSS's (https://www.ietf.org/archive/id/draft-ietf-tls-keylogfile-05.html): lines of a
label, the random of the connection's ClientHello, and a secret, both in hex. A pcapng brings such
lines along in its Decryption Secrets Blocks; a browser writes them where SSLKEYLOGFILE says.
"""

from __future__ import annotations

from binascii import unhexlify
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import field
from typing import Final

from mitml4.dataclass import dataclass

__all__ = [
    "CLIENT_EARLY",
    "CLIENT_HANDSHAKE",
    "CLIENT_TRAFFIC",
    "MASTER",
    "SERVER_HANDSHAKE",
    "SERVER_TRAFFIC",
    "Secrets",
]

MASTER: Final = "CLIENT_RANDOM"
CLIENT_EARLY: Final = "CLIENT_EARLY_TRAFFIC_SECRET"
CLIENT_HANDSHAKE: Final = "CLIENT_HANDSHAKE_TRAFFIC_SECRET"
SERVER_HANDSHAKE: Final = "SERVER_HANDSHAKE_TRAFFIC_SECRET"
CLIENT_TRAFFIC: Final = "CLIENT_TRAFFIC_SECRET_0"
SERVER_TRAFFIC: Final = "SERVER_TRAFFIC_SECRET_0"

_LABELS: Final = {
    label.encode(): label
    for label in (
        MASTER,
        CLIENT_EARLY,
        CLIENT_HANDSHAKE,
        SERVER_HANDSHAKE,
        CLIENT_TRAFFIC,
        SERVER_TRAFFIC,
    )
}
_MAX_CONNECTIONS: Final = 100_000
_RANDOM_BYTES: Final = 32
_SECRET_BYTES: Final = (32, 48)
"""As long as the handshake's hash; a master secret has 48 (RFC 5246 §8.1)."""


@dataclass(slots=True)
class Secrets:
    """Secrets by label, of the latest 100 000 connections that a key log names."""

    _of: OrderedDict[bytes, dict[str, bytes]] = field(default_factory=OrderedDict)

    def __bool__(self) -> bool:
        return bool(self._of)

    def add(self, lines: bytes) -> int:
        """Take in lines of a key log; how many were of use. What is none is skipped."""
        return sum(map(self._add, lines.splitlines()))

    def of(self, client_random: bytes) -> Mapping[str, bytes] | None:
        """What is known of the connection now; the mapping grows with what is added later."""
        return self._of.get(client_random)

    def _add(self, line: bytes) -> bool:
        words = line.split()
        if len(words) != 3 or words[0] not in _LABELS:
            return False
        try:
            random, secret = unhexlify(words[1]), unhexlify(words[2])
        except ValueError:
            return False
        if len(random) != _RANDOM_BYTES or len(secret) not in _SECRET_BYTES:
            return False
        self._of.setdefault(random, {})[_LABELS[words[0]]] = secret
        if len(self._of) > _MAX_CONNECTIONS:
            self._of.popitem(last=False)
        return True
