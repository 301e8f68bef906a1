"""The passwords of TDS ([MS-TDS] §2.2.6.4, and "TDS 5.0" for Sybase's login)."""

from __future__ import annotations

from typing import Final

from mitml4.protocols.parts.fields import Reader
from mitml4.protocols.secrets.finder import SecretFinder, Span

__all__ = ["Tds"]

_HEAD: Final = 8
_OLD_LOGIN, _TOKEN, _LOGIN, _SSPI = 0x02, 0x08, 0x10, 0x11
_LOGIN_HEAD: Final = 94
_PLACES: Final = ((44, 2), (86, 2), (78, 1))
"""Where a login says where its password, its new password and its SSPI are; and the size of their
units."""
_OLD_PASSWORD: Final = 62
_OLD_REMOTE: Final = 202, 255
"""Passwords for other servers, and the length of that field."""


class Tds(SecretFinder):
    """A login may have several packets; its passwords are at any place in it."""

    def __init__(self) -> None:
        super().__init__()
        self._kind: int | None = None
        """Of the message whose packets go on."""
        self._at = 0
        """How much of it has come."""
        self._secrets: list[Span] = []

    def read(self, reader: Reader) -> None:
        kind, status = reader.uint(1), reader.uint(1)
        length = reader.uint(2, _HEAD) - _HEAD
        reader.take(4)
        if kind not in (_OLD_LOGIN, _TOKEN, _LOGIN, _SSPI):
            self._kind = None
            self.skip(length)
            return
        start = reader.at
        data = reader.take(length)
        if self._kind is None:
            self._at, self._secrets = 0, list(_secrets(kind, data))
        for begins, ends in self._secrets:
            self.hide(
                start + min(max(begins - self._at, 0), length),
                start + min(max(ends - self._at, 0), length),
            )
        self._at += length
        self._kind = None if status & 1 else kind


def _secrets(kind: int, data: bytes) -> list[Span]:
    """Where the secrets of a message are, from its first packet."""
    if kind in (_TOKEN, _SSPI):
        return [(0, 1 << 32)]
    if kind == _OLD_LOGIN:
        places = ((_OLD_PASSWORD, 30), _OLD_REMOTE)
        return [
            (start, start + data[start + size])
            for start, size in places
            if start + size < len(data)
        ]
    if len(data) < _LOGIN_HEAD:
        return []
    spans = []
    for place, unit in _PLACES:
        start = int.from_bytes(data[place : place + 2], "little")
        size = int.from_bytes(data[place + 2 : place + 4], "little")
        spans.append((start, start + size * unit))
    return spans
