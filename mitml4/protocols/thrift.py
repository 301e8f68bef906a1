"""Apache Thrift's binary and compact protocols, with or without frames. Named only.

[length(4)] 80 01 00 type length(4) name …      thrift-binary-protocol.md, "Message"
[length(4)] 82 type|1 sequence* length* name …  thrift-compact-protocol.md, "Message" (* varint)
"""

from __future__ import annotations

from typing import Final

from mitml4.protocols.conversation import Protocol
from mitml4.protocols.parts.evidence import either, single_message
from mitml4.protocols.parts.fields import Reader

__all__ = ["PROTOCOL"]

BINARY: Final = b"\x80\x01\x00"
COMPACT: Final = b"\x82"
COMPACT_TYPES: Final = tuple(bytes([kind << 5 | 1]) for kind in range(1, 5))
"""Types 1 (a call) to 4, with the version in the lower bits."""
MAX_FRAME: Final = 0x00FFFFFF
"""16 384 000 bytes is the limit of the libraries."""
MAX_NAME: Final = 255
MAX_SHORT_NAME: Final = 127
NAME: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:"
"""The bytes of a method's name; with a service's name and a colon where several share a
connection."""


def read_binary(reader: Reader) -> None:
    """A message up to the end of its name."""
    reader.one_of(BINARY)
    reader.uint(1, 1, 4)
    reader.take(reader.uint(4, 1, MAX_NAME), NAME)


def read_compact(reader: Reader) -> None:
    """The same in the compact protocol."""
    reader.one_of(COMPACT)
    reader.one_of(*COMPACT_TYPES)
    continued = (reader.uint(1) & 0x80 for _ in range(4))
    if all(continued):
        reader.uint(1, 0, 0x0F)  # the last 4 of 32 bits
    reader.take(reader.uint(1, 1, MAX_SHORT_NAME), NAME)


read_message: Final = either(read_binary, read_compact)


def read_thrift(reader: Reader) -> None:
    """A message, with or without its length before it."""
    if reader.data[:1] not in (BINARY[:1], COMPACT):
        reader = reader.part(reader.uint(4, 6, MAX_FRAME))
    read_message(reader)


PROTOCOL: Final = Protocol(
    name="thrift",
    detect=single_message(read_thrift, read_thrift),
    client_first=b"\x00" + BINARY[:1] + COMPACT,
    server_first=b"\x00" + BINARY[:1] + COMPACT,
)
