"""The first head of each side, for text protocols whose details are all in it.

A head is a first line, header lines (`name: value`) and an empty line, as in RTSP, SIP and STOMP.
Everything after it passes unread, so bodies need not be counted. Nothing is held back, not even
half a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import FORWARD_ALL, Conversation, Direction
from mitml4.regex import regex

__all__ = ["MAX_HEAD", "FirstHeads", "parse_head"]

MAX_HEAD: Final = 16384
"""Bytes."""


_END: Final = regex(rb"\n\r?\n")


def parse_head(head: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """The first line, and the headers by lower-case name (the first of equals)."""
    line, *rest = head.split(b"\n")
    headers: dict[bytes, bytes] = {}
    for header in rest:
        name, _, value = header.partition(b":")
        headers.setdefault(name.strip().lower(), value.strip())
    return line.removesuffix(b"\r"), headers


@dataclass(slots=True)
class FirstHeads(Conversation):
    """Reads one head in each direction. For subclassing."""

    _begun: dict[Direction, bytes] = field(
        default_factory=lambda: dict.fromkeys(Direction, b""), repr=False
    )
    """The bytes so far of each head that has not ended."""

    def head(self, direction: Direction, line: bytes, headers: Mapping[bytes, bytes]) -> None:
        """Called with the first line, and the headers by lower-case name (the first of equals)."""
        raise NotImplementedError

    def feed(self, direction: Direction, data: bytes) -> int:
        """Skips empty lines before a head: SIP's keep-alives, STOMP's heart-beats."""
        head = (self._begun[direction] + data).lstrip(b"\r\n")
        end = _END.search(head)
        if end and end.end() <= MAX_HEAD:
            self._parse(direction, head[: end.start()])
        if end or len(head) > MAX_HEAD:
            self.end(direction)
        else:
            self._begun[direction] = head
        return len(data)

    def _parse(self, direction: Direction, head: bytes) -> None:
        self.head(direction, *parse_head(head))

    def end(self, direction: Direction) -> None:
        """Read no more in this direction."""
        self._begun.pop(direction, None)
        self.details_ready = not self._begun
        self.set_directive(direction, FORWARD_ALL)
