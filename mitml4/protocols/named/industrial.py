"""Protocols of machines, meters and instruments. Named only.

    modbus    transaction(2) 00 00 length(2) unit function …         Modbus TCP/IP V1.0b §3.1
    dnp3      05 64 length control to(2) from(2) CRC(2) …            IEEE 1815 §9.2
    iec104    68 length control(4) …                                 IEC 60870-5-104 §5
    opcua     "HEL" | "ACK" | "OPN" … "F" length(4) …                OPC 10000-6 §7.1.2
    tpkt      03 00 length(2) LI E0 … C0|C1|C2 …                     RFC 1006 §6, X.224 §13.3
    enip      command(2) length(2) session(4) 00000000 …             CIP volume 2 §2-3.1
    hislip    "HS" type control parameter(4) length(8) …             IVI-6.1 §6.2
    c1222     60 length, A1 … A8 invocation … BE 28 …                ANSI C12.22 §5.3, X.227

Modbus has few fixed bits, so its answer must repeat fields of the request. The same holds for a
request of EtherNet/IP that is almost all zeros. `tpkt` is the transport of S7 and MMS: a connection
between two named ends (TSAPs), which RDP lacks.
"""

from __future__ import annotations

from typing import Final

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Opening, Protocol, Verdict
from mitml4.protocols.parts.ber import read_head, read_length
from mitml4.protocols.parts.evidence import Rule, request_response, single_message
from mitml4.protocols.parts.fields import Reader, evaluate

__all__ = ["PROTOCOLS"]

MODBUS_HEAD: Final = 6
MODBUS_MAX: Final = 254
FUNCTIONS: Final = tuple(
    bytes([code]) for code in (*range(1, 9), 11, 12, *range(15, 18), *range(20, 25), 43, 90, 125)
)
"""Modbus Application Protocol V1.1b3 §5.1, and 90 and 125 of Schneider Electric."""
EXCEPTION: Final = 0x80
READS: Final = (b"\x01", b"\x02", b"\x03", b"\x04")
"""Reading coils, inputs and registers: the answer has a count of its bytes."""
LENGTHS: Final = {7: 2, 11: 2, 12: 2, 17: 2, 22: 8, 24: 4}
"""Length of unit, function and arguments, where it is fixed (§6)."""
COUNTS: Final = {15: 4, 16: 4, 20: 0, 21: 0, 23: 8}
"""The offset, after the function, of a count of the bytes that follow."""


def read_modbus(reader: Reader) -> None:
    """A whole request."""
    reader.take(2)
    reader.one_of(b"\0\0")
    length = reader.uint(2, 2, MODBUS_MAX)
    reader.take(1)  # unit
    function = reader.one_of(*FUNCTIONS)
    if function <= b"\x06" and length != 6:
        raise ProtocolError("a request with more than an address and a value")
    reader.take(length - 2)


def read_modbus_arguments(reader: Reader) -> None:
    """A request with the length of arguments that its function requires."""
    reader.take(MODBUS_HEAD - 2)
    length = reader.uint(2)
    reader.take(1)
    function = reader.uint(1)
    if LENGTHS.get(function, length) != length:
        raise ProtocolError("arguments that do not fit the function")
    if function in COUNTS:
        arguments = reader.part(length - 2)
        arguments.take(COUNTS[function])
        counted = length - 2 - COUNTS[function] - 1
        arguments.uint(1, counted, counted)


def modbus_reply(up: bytes) -> Rule:
    """The answer to the first request: the same transaction, and the same function or an
    exception."""
    transaction, function = up[:2], up[MODBUS_HEAD + 1]

    def read(reader: Reader) -> None:
        reader.one_of(transaction)
        reader.one_of(b"\0\0")
        length = reader.uint(2, 3, MODBUS_MAX)
        reader.take(1)
        code = reader.one_of(bytes([function]), bytes([function | EXCEPTION]))
        if code in READS:
            reader.uint(1, length - 3, length - 3)

    return read


_modbus: Final = request_response(read_modbus, modbus_reply)


def detect_modbus(opening: Opening) -> Verdict:
    """A request with an answer, or with a second request; or one whose every field is valid."""
    verdict = _modbus(opening)
    if verdict is Verdict.LIKELY and evaluate(read_modbus_arguments, opening.up) is Verdict.REJECT:
        return Verdict.NEED_MORE
    return verdict


DNP3_MIN: Final = 5
"""Control and addresses: the length does not count itself, the start and the CRCs."""


def read_dnp3(reader: Reader) -> None:
    """The header of a link frame."""
    start = reader.at
    reader.one_of(b"\x05\x64")
    reader.uint(1, DNP3_MIN)
    reader.take(5)
    header = reader.data[start : reader.at]
    reader.one_of(dnp3_crc(header).to_bytes(2, "little"))


def dnp3_crc(data: bytes) -> int:
    """IEEE 1815 annex E: CRC-16 of 0x3D65, bits reversed, the result inverted."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA6BC if crc & 1 else 0)
    return crc ^ 0xFFFF


CONTROLS: Final = tuple(bytes([control]) for control in (0x07, 0x0B, 0x13, 0x23, 0x43, 0x83))
"""STARTDT, STOPDT and TESTFR, each as act and con."""
MIN_I_FRAME: Final = 12
TYPES: Final = 127
CAUSES: Final = 0x3F


def read_iec104(reader: Reader) -> None:
    """A U frame, with which a connection begins; or two other frames, in the middle of a
    capture."""
    if not read_iec104_frame(reader):
        read_iec104_frame(reader)


def read_iec104_frame(reader: Reader) -> bool:
    """A frame of any kind. Returns whether it is a U frame."""
    reader.one_of(b"\x68")
    end = reader.uint(1, 4, 253) + reader.at
    if end - reader.at > 4:
        read_i_frame(reader, end)
        return False
    if reader.one_of(b"\x01", *CONTROLS) in CONTROLS:
        reader.one_of(bytes(3))
        return True
    reader.one_of(b"\x00")
    read_counter(reader)
    return False


def read_i_frame(reader: Reader, end: int) -> None:
    """The counters of sent and received frames, and an ASDU."""
    if end - reader.at < MIN_I_FRAME:
        raise ProtocolError("an ASDU that is too short")
    read_counter(reader)
    read_counter(reader)
    reader.uint(1, 1, TYPES)
    reader.uint(1, 1)
    if not reader.uint(1) & CAUSES:
        raise ProtocolError("an unknown cause of transmission")
    reader.take(end - reader.at)


def read_counter(reader: Reader) -> None:
    """A counter of fifteen bits. The lowest bit is 0, or it would be another kind of frame."""
    if reader.uint(1) & 1:
        raise ProtocolError("no counter")
    reader.take(1)


OPCUA_TYPES: Final = tuple(
    kind + chunk
    for kind, chunks in {
        b"HEL": b"F",
        b"ACK": b"F",
        b"ERR": b"F",
        b"RHE": b"F",
        b"OPN": b"F",
        b"MSG": b"FCA",
        b"CLO": b"F",
    }.items()
    for chunk in (bytes([letter]) for letter in chunks)
)
OPCUA_MAX: Final = (1 << 24) - 1


def read_opcua(reader: Reader) -> None:
    """The header of a message. Its length has a zero byte, which rules out text."""
    reader.one_of(*OPCUA_TYPES)
    reader.uint(4, 8, OPCUA_MAX, little=True)


COTP_FIXED: Final = 6
"""Bytes of a connection request after its length: code, two references, class."""


def read_tpkt(reader: Reader) -> None:
    """A connection request, or (in a capture) a confirm, that names its ends."""
    reader.one_of(b"\x03\x00")
    length = reader.uint(2, 4 + 1 + COTP_FIXED + 2, 4 + 0xFF)
    reader.uint(1, length - 5, length - 5)
    reader.one_of(b"\xe0", b"\xd0")
    reader.take(5)
    reader.one_of(b"\xc0", b"\xc1", b"\xc2")
    reader.uint(1, 1, length - 4 - 1 - COTP_FIXED - 2)


LISTS: Final = (b"\x04\0", b"\x63\0", b"\x64\0")
"""Requests for lists of services, identities and interfaces."""
REGISTER_SESSION: Final = b"\x65\0"
SEND_DATA: Final = (b"\x6f\0", b"\x70\0")
ENIP_MAX: Final = 0xFFFF - 24


def read_enip_head(
    reader: Reader, *commands: bytes, least: int, most: int, session: int = 0
) -> None:
    """An encapsulation header with `least` to `most` bytes after it; `session` is the lowest
    session."""
    reader.one_of(*commands)
    reader.uint(2, least, most, little=True)
    reader.uint(4, session)
    reader.one_of(bytes(4))  # status
    reader.take(8)  # sender's context
    reader.one_of(bytes(4))  # options


def read_enip_data(reader: Reader) -> None:
    """A session that is requested or granted, or data within one, for interface 0."""
    if reader.data[:1] == REGISTER_SESSION[:1]:
        read_enip_head(reader, REGISTER_SESSION, least=4, most=4)
        reader.one_of(b"\1\0\0\0")  # the protocol's version, no options
    else:
        read_enip_head(reader, *SEND_DATA, least=16, most=ENIP_MAX, session=1)
        reader.one_of(bytes(4))


def read_enip_question(reader: Reader) -> None:
    """A request for a list, which is only a header."""
    read_enip_head(reader, *LISTS, least=0, most=0)


def enip_list(up: bytes) -> Rule:
    """The answer to it."""
    return lambda reader: read_enip_head(reader, up[:2], least=2, most=ENIP_MAX)


_within_a_session: Final = single_message(read_enip_data, read_enip_data)
_before_one: Final = request_response(read_enip_question, enip_list)


def detect_enip(opening: Opening) -> Verdict:
    """Either kind of beginning: they have different commands."""
    verdict = _within_a_session(opening)
    return _before_one(opening) if verdict is Verdict.REJECT else verdict


HISLIP_TYPES: Final = 0x22


def read_hislip(reader: Reader) -> None:
    """The header of a message. Of its length, which has eight bytes, the first four are always
    0."""
    reader.one_of(b"HS")
    reader.uint(1, 0, HISLIP_TYPES)
    reader.take(1 + 4)
    reader.one_of(bytes(4))
    reader.take(4)


ELEMENTS: Final = tuple(bytes([0xA0 | number]) for number in (1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12))
"""Context, titles, qualifiers and numbers of both ends, and how they prove who they are."""
INVOCATION: Final = b"\xa8"
"""The caller's number of the message, which is never missing."""
MECHANISM: Final = b"\x8b"
SERVICES: Final = b"\xbe"
EXTERNAL: Final = b"\x28"
MAX_C1222: Final = 1 << 16


def read_c1222(reader: Reader) -> None:
    """An ACSE message whose elements come in order, up to the services in it.

    Other users of ACSE wrap it in a presentation layer, or have no number of the message.
    """
    _, length = read_head(reader, b"\x60")
    if not 8 <= length <= MAX_C1222:
        raise ProtocolError("a message of an unlikely length")
    message = reader.part(length)
    before = b""
    seen: set[bytes] = set()
    while (tag := message.one_of(*ELEMENTS, MECHANISM, SERVICES)) != SERVICES:
        number = bytes([tag[0] & 0x1F])
        if number <= before:
            raise ProtocolError("elements that are out of order")
        before = number
        seen.add(tag)
        message.take(read_length(message))
    if INVOCATION not in seen:
        raise ProtocolError("a message without its number")
    read_length(message)
    message.one_of(EXTERNAL)


PROTOCOLS: Final = (
    Protocol(name="modbus", detect=detect_modbus, server_first=b""),
    Protocol(
        name="dnp3",
        detect=single_message(read_dnp3, read_dnp3),
        client_first=b"\x05",
        server_first=b"\x05",
    ),
    Protocol(
        name="iec104",
        detect=single_message(read_iec104, read_iec104),
        client_first=b"\x68",
        server_first=b"\x68",
    ),
    Protocol(
        name="opcua",
        detect=single_message(read_opcua, read_opcua),
        client_first=b"HAEROMC",
        server_first=b"HAEROMC",
    ),
    Protocol(
        name="tpkt",
        detect=single_message(read_tpkt, read_tpkt),
        client_first=b"\3",
        server_first=b"\3",
    ),
    Protocol(
        name="enip",
        detect=detect_enip,
        client_first=b"\x04\x63\x64\x65\x6f\x70",
        server_first=b"\x65\x6f\x70",
    ),
    Protocol(
        name="hislip",
        detect=single_message(read_hislip, read_hislip),
        client_first=b"H",
        server_first=b"H",
    ),
    Protocol(
        name="c1222",
        detect=single_message(read_c1222, read_c1222),
        client_first=b"\x60",
        server_first=b"\x60",
    ),
)
