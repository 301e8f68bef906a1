"""FIX, a protocol of stock trading (FIX session layer, "Standard header"). Named only.

8=FIX.4.4 SOH 9=length SOH 35=type SOH …
"""

from __future__ import annotations

from typing import Final

from mitml4.protocols.conversation import Protocol
from mitml4.protocols.parts.evidence import single_message
from mitml4.protocols.parts.fields import Reader

__all__ = ["PROTOCOL"]

SOH: Final = b"\x01"
MAX_VALUE: Final = 16


def read_fix(reader: Reader) -> None:
    """The first three fields, whose order is fixed, up to the type of the message."""
    reader.one_of(b"8=FIX.", b"8=FIXT.")
    reader.until(SOH, MAX_VALUE, b"0123456789.SP")
    reader.one_of(b"9=")
    reader.until(SOH, MAX_VALUE, b"0123456789")
    reader.one_of(b"35=")


PROTOCOL: Final = Protocol(
    name="fix", detect=single_message(read_fix, read_fix), client_first=b"8", server_first=b"8"
)
