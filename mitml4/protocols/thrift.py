"""Apache Thrift's binary protocol, with or without frames. Named only.

[length(4)] 80 01 00 type length(4) name …     thrift-binary-protocol.md, "Message"
"""

from __future__ import annotations

from typing import Final

from mitml4.protocols.conversation import Protocol
from mitml4.protocols.evidence import proof
from mitml4.protocols.fields import Reader

__all__ = ["PROTOCOL"]

VERSION: Final = b"\x80\x01\x00"
MAX_FRAME: Final = 0x00FFFFFF
"""16 384 000 bytes is the libraries' own limit."""
MAX_NAME: Final = 255
NAME: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:"
"""A method's, behind its service's name and a colon where services share a connection."""


def read_thrift(reader: Reader) -> None:
    """A message up to the end of its name. A call's type is 1; 2, 3 and 4 are the others."""
    if reader.data[:1] != VERSION[:1]:
        reader.uint(4, len(VERSION) + 1 + 4 + 1 + 4, MAX_FRAME)
    reader.one_of(VERSION)
    reader.uint(1, 1, 4)
    reader.take(reader.uint(4, 1, MAX_NAME), NAME)


PROTOCOL: Final = Protocol(
    name="thrift", detect=proof(read_thrift), client_first=b"\x00\x80", server_first=b""
)
