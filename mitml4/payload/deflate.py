"""The compressed messages of a WebSocket: permessage-deflate (RFC 7692).

A message may refer to the ones before it ("context takeover"), so all of them are inflated, also
what is not shown of them. That work has a bound: a message that inflates to more than
`MAX_INFLATED` is shown as it came, and so are the later ones of its direction. Where each message
is compressed by itself, the later ones are inflated again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.payload.codings import STEP, BrokenCodingError

__all__ = ["EXTENSION", "Deflate", "Inflater", "negotiated"]

EXTENSION: Final = "permessage-deflate"
MAX_INFLATED: Final = 8 << 20
"""Bytes that one message may inflate to without the context being given up."""
_TAIL: Final = b"\0\0\xff\xff"
"""RFC 7692 §7.2.2: "Append 4 octets of 0x00 0x00 0xff 0xff to the tail end of the payload"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deflate:
    """What the two sides have agreed on (RFC 7692 §7.1). The sizes of the windows matter only to
    who compresses: the largest one reads all."""

    client_keeps_context: bool = True
    server_keeps_context: bool = True
    client_window_bits: int = 15
    server_window_bits: int = 15


def negotiated(extensions: bytes | None) -> Deflate | None:
    """What the `Sec-WebSocket-Extensions` of a response agree on; None: no compression."""
    for extension in (extensions or b"").decode("latin-1").split(","):
        name, *parameters = (item.strip().lower() for item in extension.split(";"))
        if name == EXTENSION:
            return Deflate(
                client_keeps_context="client_no_context_takeover" not in parameters,
                server_keeps_context="server_no_context_takeover" not in parameters,
                client_window_bits=_window_bits(parameters, "client_max_window_bits"),
                server_window_bits=_window_bits(parameters, "server_max_window_bits"),
            )
    return None


def _window_bits(parameters: list[str], name: str) -> int:
    for each in parameters:
        key, _, value = each.partition("=")
        if key.strip() == name and value.strip(' "').isdecimal():
            return min(int(value.strip(' "')[:2]), 15)
    return 15


class Inflater:
    """Inflates the messages of one direction, one after the other: a `Decoder` of each."""

    __slots__ = ("_inflate", "_inflated", "_keeps_context", "_lost")

    reads_all: ClassVar[bool] = True
    is_exhausted: ClassVar[bool] = False
    fault: ClassVar[str | None] = None

    def __init__(self, *, keeps_context: bool) -> None:
        self._keeps_context = keeps_context
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._inflated = 0
        self._lost: str | None = None
        """Why messages can no longer be read."""

    def begin(self) -> None:
        """The next message begins."""
        self._inflated = 0
        if not self._keeps_context:
            self._inflate, self._lost = zlib.decompressobj(-zlib.MAX_WBITS), None

    def read(self, data: bytes, _room: Callable[[], int]) -> Iterator[bytes]:
        """What the next piece of the message inflates to. Raises BrokenCodingError."""
        while True:
            yield (inflated := self._step(data))
            data = self._inflate.unconsumed_tail
            if self._inflate.eof:  # RFC 7692 §7.2.3.4: a block may have "BFINAL" set to 1
                data = self._inflate.unused_data
                self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            elif len(inflated) < STEP:
                return

    def finish(self, room: Callable[[], int]) -> Iterator[bytes]:
        """The message is complete."""
        return self.read(_TAIL, room)

    def _step(self, data: bytes) -> bytes:
        if self._inflated > MAX_INFLATED and not self._lost:
            self._lost = f"{EXTENSION}: a message of more than {MAX_INFLATED} bytes"
        if self._lost:
            raise BrokenCodingError(self._lost)
        try:
            inflated = self._inflate.decompress(data, STEP)
        except zlib.error as error:
            self._lost = f"{EXTENSION}: not valid"
            raise BrokenCodingError(self._lost) from error
        self._inflated += len(inflated)
        return inflated
