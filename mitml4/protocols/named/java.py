"""Protocols of Java: AJP, debugging, remote method invocation. Named only.

ajp13      12 34 length(2) 02|0A …      AJPv13 (Apache Tomcat Connectors)
jdwp       "JDWP-Handshake"             JDWP specification, "JDWP Start-up"; both sides
java-rmi   "JRMI" 0001|0002 4B|4C|4D    Java RMI specification §10.2
"""

from __future__ import annotations

from typing import Final

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Protocol
from mitml4.protocols.parts.evidence import single_message
from mitml4.protocols.parts.fields import Reader

__all__ = ["PROTOCOLS"]

FORWARD_REQUEST: Final = b"\x02"
CPING: Final = b"\x0a"
MAX_AJP: Final = 0xFFFF - 4
METHODS: Final = 27


def read_ajp13(reader: Reader) -> None:
    """A packet from the web server: a request up to its method, or a CPing."""
    reader.one_of(b"\x12\x34")
    length = reader.uint(2, 1, MAX_AJP)
    if reader.one_of(FORWARD_REQUEST, CPING) == FORWARD_REQUEST:
        reader.uint(1, 1, METHODS)
    elif length != 1:
        raise ProtocolError("a CPing with a payload")


def read_jdwp(reader: Reader) -> None:
    """The handshake, which is the same from both sides."""
    reader.one_of(b"JDWP-Handshake")


def read_java_rmi(reader: Reader) -> None:
    """The head of the stream: a version, and one of the three protocols."""
    reader.one_of(b"JRMI")
    reader.uint(2, 1, 2)
    reader.one_of(b"\x4b", b"\x4c", b"\x4d")


PROTOCOLS: Final = (
    Protocol(
        name="ajp13", detect=single_message(read_ajp13), client_first=b"\x12", server_first=b""
    ),
    Protocol(
        name="jdwp",
        detect=single_message(read_jdwp, read_jdwp),
        client_first=b"J",
        server_first=b"J",
    ),
    Protocol(
        name="java-rmi", detect=single_message(read_java_rmi), client_first=b"J", server_first=b""
    ),
)
