"""Connections that only another one announces, by its commands. What they carry has no bytes by
which it could be known; what those show counts more, as everywhere.

ftp-data   PORT, EPRT and the replies to PASV and EPSV      RFC 959 §4.1.2, RFC 2428
irc-dcc    CTCP's DCC, in a message                         "A description of the DCC protocol"
"""

from __future__ import annotations

from typing import Final

from mitml4.protocols.conversation import Protocol

__all__ = ["PROTOCOLS"]

PROTOCOLS: Final = (
    Protocol(name="ftp-data", detect=None),
    Protocol(name="irc-dcc", detect=None),
)
