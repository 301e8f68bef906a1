"""The handshakes of RFC 8448, by the titles of its sections."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MESSAGE_HASH: Final = 254
_HELLO_RETRY_REQUEST: Final = hashlib.sha256(b"HelloRetryRequest").digest()


@dataclass(frozen=True, kw_only=True)
class Trace:
    psk: bytes
    shared: bytes
    private_keys: dict[str, list[bytes]]
    """By sender; the second key of one that had to retry is its last."""
    secrets: dict[str, bytes]
    """By label, without `tls13 `."""
    messages: list[tuple[str, bytes]]
    """The handshake messages, each with its sender."""
    records: list[tuple[str, bytes, bytes]]
    """Sender, content, and the whole record."""
    ticket_psk: bytes
    binder_key: bytes
    binder_hash: bytes
    binder: bytes

    def transcript(self, count: int) -> bytes:
        """The hash of the first messages (RFC 8446 §4.4.1)."""
        messages = [message for _, message in self.messages[:count]]
        if count > 1 and messages[1][6:38] == _HELLO_RETRY_REQUEST:
            digest = hashlib.sha256(messages[0]).digest()
            messages[0] = bytes([_MESSAGE_HASH, 0, 0, len(digest)]) + digest
        return hashlib.sha256(b"".join(messages)).digest()

    def after(self, sender: str, kind: int) -> int:
        """How many messages there are up to the sender's last one of this type."""
        return max(
            number
            for number, (who, message) in enumerate(self.messages, start=1)
            if (who, message[0]) == (sender, kind)
        )


def _trace(said: dict) -> Trace:
    def single(name: str) -> bytes:
        return bytes.fromhex(said.get(name, ""))

    return Trace(
        psk=single("psk"),
        shared=single("shared"),
        private_keys={
            who: [bytes.fromhex(key) for key in keys] for who, keys in said["private_keys"].items()
        },
        secrets={label: bytes.fromhex(secret) for label, secret in said["secrets"].items()},
        messages=[(each["from"], bytes.fromhex(each["message"])) for each in said["messages"]],
        records=[
            (each["from"], bytes.fromhex(each["content"]), bytes.fromhex(each["record"]))
            for each in said["records"]
        ],
        ticket_psk=single("ticket_psk"),
        binder_key=single("binder_key"),
        binder_hash=single("binder_hash"),
        binder=single("binder"),
    )


TRACES: Final = {
    title: _trace(said)
    for title, said in json.loads(Path(__file__).with_suffix(".json").read_text()).items()
}
ONE_RTT: Final = TRACES["Simple 1-RTT Handshake"]
RESUMED: Final = TRACES["Resumed 0-RTT Handshake"]
