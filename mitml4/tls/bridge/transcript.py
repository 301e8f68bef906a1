"""The hash over the messages of one leg's handshake (RFC 8446 §4.4.1)."""

from __future__ import annotations

import hashlib
from typing import Final

__all__ = ["Transcript"]

_MESSAGE_HASH: Final = 254


class Transcript:
    """Messages as they are on the wire, header and all. The hash is known with the cipher suite,
    so the first messages are kept until then."""

    __slots__ = ("_first", "_hash", "_messages")

    def __init__(self) -> None:
        self._first = b""
        self._hash: hashlib._Hash | None = None
        self._messages: bytearray | None = None

    def add(self, message: bytes) -> None:
        if self._hash:
            self._hash.update(message)
        else:
            self._first += message
        if self._messages is not None:
            self._messages += message

    def choose(self, name: str, *, keep: bool = False) -> None:
        """The suite's hash, as hashlib names it. `keep`: the messages stay, see `messages`."""
        self._hash = hashlib.new(name, self._first)
        self._messages = bytearray(self._first) if keep else None
        self._first = b""

    def replace_hello(self, name: str) -> None:
        """A retry was asked for: the first ClientHello is replaced by its hash, in a message of
        its own."""
        digest = hashlib.new(name, self._first).digest()
        self._first = bytes([_MESSAGE_HASH, 0, 0, len(digest)]) + digest

    @property
    def first_messages(self) -> bytes:
        """What the hash is to begin with; empty once it is chosen."""
        return self._first

    @property
    def messages(self) -> bytes:
        """All of them: in TLS 1.2, a client signs these with the hash of its scheme (RFC 5246
        §7.4.8)."""
        assert self._messages is not None
        return bytes(self._messages)

    def forget_messages(self) -> None:
        """Keep only the hash."""
        self._messages = None

    def digest(self) -> bytes:
        """Of all messages so far."""
        assert self._hash
        return self._hash.copy().digest()

    def copy(self) -> Transcript:
        """One to which more can be added without a change to this one."""
        copied = Transcript()
        copied._first = self._first
        copied._hash = self._hash and self._hash.copy()
        return copied
