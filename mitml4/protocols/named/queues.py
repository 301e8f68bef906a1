"""Message queues and job servers. Named only.

openwire     length(4) 01 "ActiveMQ" …                     ActiveMQ, "OpenWire Version 2"
gearman      00 "REQ"|"RES" type(4) length(4) …            Gearman protocol, "Binary Packet"
nsq          "  V2" then a command                         NSQ, "TCP Protocol Spec"
pulsar       size(4) size(4) 08 02 12 …                    Pulsar binary protocol, "Connect"
beanstalkd   put|use|watch|reserve … CRLF, and an answer   beanstalkd's protocol.txt
"""

from __future__ import annotations

from typing import Final

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Protocol
from mitml4.protocols.parts.evidence import Rule, request_response, single_message
from mitml4.protocols.parts.fields import PRINTABLE, Reader

__all__ = ["PROTOCOLS"]

MIN_WIREFORMAT, MAX_WIREFORMAT = 13, 4096


def read_openwire(reader: Reader) -> None:
    """A WireFormatInfo, with which both sides begin."""
    reader.uint(4, MIN_WIREFORMAT, MAX_WIREFORMAT)
    reader.one_of(b"\x01ActiveMQ")


MAX_GEARMAN: Final = 42
"""The last type of packet."""


def read_gearman(reader: Reader) -> None:
    """The header of a packet of either side."""
    reader.one_of(b"\0REQ", b"\0RES")
    reader.uint(4, 1, MAX_GEARMAN)
    reader.uint(4, 0, 1 << 26)


CAPITALS: Final = bytes(range(ord("A"), ord("Z") + 1))


def read_nsq(reader: Reader) -> None:
    """The magic, and two letters of a command."""
    reader.one_of(b"  V2")
    reader.take(2, CAPITALS)


def read_pulsar(reader: Reader) -> None:
    """A command without payload: CONNECT, whose two lengths must agree."""
    total = reader.uint(4, 8, 1 << 20)
    reader.uint(4, total - 4, total - 4)
    reader.one_of(b"\x08\x02\x12", b"\x08\x03\x1a")


DIGITS: Final = b"0123456789"
NAME: Final = PRINTABLE.replace(b" ", b"")


def read_beanstalkd(reader: Reader) -> None:
    """A command that no other protocol has."""
    verb = reader.one_of(b"put ", b"use ", b"watch ", b"reserve\r\n", b"reserve-with-timeout ")
    if verb == b"put ":
        for end in (b" ", b" ", b" ", b"\r"):
            if not reader.until(end, 10, DIGITS):
                raise ProtocolError("no number")
        reader.one_of(b"\n")
    elif verb != b"reserve\r\n":
        if not reader.until(b"\r", 200, NAME):
            raise ProtocolError("no name")
        reader.one_of(b"\n")


ANSWERS: Final = (
    *(b"INSERTED ", b"BURIED", b"USING ", b"WATCHING ", b"RESERVED "),
    *(b"DEADLINE_SOON", b"TIMED_OUT", b"DRAINING", b"JOB_TOO_BIG", b"OUT_OF_MEMORY"),
)


def beanstalkd_reply(_up: bytes) -> Rule:
    """What answers one of these."""
    return lambda reader: reader.one_of(*ANSWERS)


PROTOCOLS: Final = (
    Protocol(
        name="openwire",
        detect=single_message(read_openwire, read_openwire),
        client_first=b"\0",
        server_first=b"\0",
    ),
    Protocol(
        name="gearman",
        detect=single_message(read_gearman, read_gearman),
        client_first=b"\0",
        server_first=b"\0",
    ),
    Protocol(name="nsq", detect=single_message(read_nsq), client_first=b" ", server_first=b""),
    Protocol(
        name="pulsar",
        detect=single_message(read_pulsar, read_pulsar),
        client_first=b"\0",
        server_first=b"\0",
    ),
    Protocol(
        name="beanstalkd",
        detect=request_response(read_beanstalkd, beanstalkd_reply),
        client_first=b"purw",
        server_first=b"",
    ),
)
