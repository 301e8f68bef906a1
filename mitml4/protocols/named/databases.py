"""Databases and stores that are only named.

drda            length(2) D0 flags id(2) length(2) 1041 …     DRDA volume 3, DSS; EXCSAT
oracle-tns      length(2) 0000 01 flags 0000 version(2) …   as in Wireshark's packet-tns.c
elasticsearch   "ES" length(4) request(8) status version(4)   TcpHeader.java
zookeeper       length(4) 00000000 zxid(8) timeout(4) session(8) 00000010 …   zookeeper.jute
couchbase       80 1F lengths … features, or 08 and frames    kv_engine's BinaryProtocol.md
clickhouse      00 length name major minor revision …         Native protocol, "Hello"
"""

from __future__ import annotations

from typing import Final

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Protocol
from mitml4.protocols.memcached import OPERATIONS
from mitml4.protocols.parts.evidence import either, single_message
from mitml4.protocols.parts.fields import PRINTABLE, Reader

__all__ = ["PROTOCOLS"]

DSS_HEAD: Final = 6
MAX_DSS: Final = 0x0FFF
DSS_TYPES: Final = tuple(bytes([flags | kind]) for flags in (0x00, 0x40, 0x50) for kind in (1, 2))
"""Requests and replies, chained or not."""
EXCHANGE_ATTRIBUTES: Final = (b"\x10\x41", b"\x14\x43")
"""EXCSAT, and EXCSATRD, its answer."""


def read_drda(reader: Reader) -> None:
    """The first message of every connection, or the answer to it."""
    length = reader.uint(2, DSS_HEAD + 4, MAX_DSS)
    reader.one_of(b"\xd0")
    reader.one_of(*DSS_TYPES)
    reader.take(2)
    reader.uint(2, length - DSS_HEAD, length - DSS_HEAD)
    reader.one_of(*EXCHANGE_ATTRIBUTES)


MIN_CONNECT: Final = 34
MAX_CONNECT: Final = 0x1FFF
TNS_VERSIONS: Final = (0x0100, 0x01FF)


def read_oracle_tns(reader: Reader) -> None:
    """A connect packet up to its versions: the own one, and the oldest that is supported."""
    reader.uint(2, MIN_CONNECT, MAX_CONNECT)
    reader.one_of(bytes(2))  # checksum
    reader.one_of(b"\x01")
    reader.take(1)
    reader.one_of(bytes(2))  # the header's checksum
    version = reader.uint(2, *TNS_VERSIONS)
    reader.uint(2, TNS_VERSIONS[0], version)


PING: Final = b"\xff\xff\xff\xff"
MIN_TRANSPORT: Final = 13
MAX_TRANSPORT: Final = (1 << 30) - 1
"""Far more than a node accepts, and less than any text."""
STATUS_BITS: Final = 0x0F


def read_elasticsearch(reader: Reader) -> None:
    """The header of a message, or of a ping, which has no body."""
    reader.one_of(b"ES")
    if reader.data[reader.at : reader.at + 1] == PING[:1]:
        reader.one_of(PING)
        return
    reader.uint(4, MIN_TRANSPORT, MAX_TRANSPORT)
    reader.uint(8, 0, (1 << 48) - 1)
    reader.uint(1, 0, STATUS_BITS)
    reader.one_of(b"\0")  # versions are below 2^24: 8.12.0 is 8120099


CONNECT_LENGTHS: Final = (44, 45)
"""Without and with the flag for read-only servers."""
PASSWORD: Final = 16


def read_zookeeper(reader: Reader) -> None:
    """A client's ConnectRequest up to the length of its password."""
    reader.uint(4, *CONNECT_LENGTHS)
    reader.one_of(bytes(4))  # protocol version
    reader.take(8)
    reader.uint(4, 1, (1 << 31) - 1)
    reader.take(8)
    reader.uint(4, PASSWORD, PASSWORD)


def read_clickhouse(reader: Reader) -> None:
    """A hello of either side: name, version, and a revision of the protocol.

    Revisions count from 54000. Each takes three bytes as a variable-length integer.
    """
    reader.one_of(b"\0")
    reader.take(reader.uint(1, 4, 100), PRINTABLE)
    for _ in ("major", "minor"):
        reader.uint(1, 0, 0x7F)
    reader.uint(1, 0x80)
    reader.uint(1, 0xA5, 0xAD)
    reader.one_of(b"\x03")


MAX_KEY: Final = 250
MAX_FEATURES: Final = 128
MAX_BUCKET: Final = 1023
MAX_BODY: Final = 1 << 25
DATA_TYPES: Final = 0x07


def read_couchbase(reader: Reader) -> None:
    """HELO, with which clients begin: a name, and features of two bytes each."""
    reader.one_of(b"\x80\x1f")
    key = reader.uint(2, 0, 0xFFFF >> 4)
    reader.one_of(bytes(4))  # extras, data type, bucket
    length = reader.uint(4, key, key + MAX_FEATURES)
    if (length - key) % 2:
        raise ProtocolError("half a feature")
    reader.take(4)
    reader.one_of(bytes(8))


def read_couchbase_frames(reader: Reader) -> None:
    """A request of memcached's operations with frames before its extras, of a capture that begins
    after HELO."""
    reader.one_of(b"\x08")
    operation = OPERATIONS[reader.one_of(*(bytes([code]) for code in OPERATIONS))[0]]
    frames = reader.uint(1, 1)
    key = reader.uint(1, 0, MAX_KEY)
    extras = reader.uint(1, operation.extras[0], operation.extras[-1])
    reader.uint(1, 0, DATA_TYPES)
    reader.uint(2, 0, MAX_BUCKET)
    reader.uint(4, frames + extras + key, MAX_BODY)
    reader.take(4 + 8)
    if reader.uint(1, 0, 0x3F) & 0x0F >= frames:
        raise ProtocolError("a frame that is longer than all of them")


PROTOCOLS: Final = (
    Protocol(
        name="drda",
        detect=single_message(read_drda, read_drda),
        client_first=bytes(range(16)),
        server_first=bytes(range(16)),
    ),
    Protocol(
        name="oracle-tns",
        detect=single_message(read_oracle_tns),
        client_first=bytes(range(32)),
        server_first=b"",
    ),
    Protocol(
        name="elasticsearch",
        detect=single_message(read_elasticsearch, read_elasticsearch),
        client_first=b"E",
        server_first=b"E",
    ),
    Protocol(
        name="zookeeper",
        detect=single_message(read_zookeeper),
        client_first=b"\0",
        server_first=b"",
    ),
    Protocol(
        name="clickhouse",
        detect=single_message(read_clickhouse, read_clickhouse),
        client_first=b"\0",
        server_first=b"\0",
    ),
    Protocol(
        name="couchbase",
        detect=single_message(either(read_couchbase, read_couchbase_frames)),
        client_first=b"\x80\x08",
        server_first=b"",
    ),
)
