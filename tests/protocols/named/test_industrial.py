"""What machines speak: Modbus needs its answer, DNP3 its CRC, and so on."""

from __future__ import annotations

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.named.industrial import PROTOCOLS, dnp3_crc

MATCH, LIKELY, NEED_MORE, REJECT = Verdict.MATCH, Verdict.LIKELY, Verdict.NEED_MORE, Verdict.REJECT
DETECT = {row.name: row.detect for row in PROTOCOLS if row.detect}

READ = b"\0\1\0\0\0\6\1\1\0\0\0\3"
DNP3 = b"\5\x64\x11\xc4\2\0\3\0\xcc\xfb"
I_FRAME = b"\x68\x0e\2\0\4\0\x64\1\6\0\1\0\0\0\0\x14"
S7 = b"\3\0\0\x16\x11\xe0\0\0\0\1\0\xc0\1"

# To 1.2.3 from 1.2.4, its second message, with a service in clear
C1222 = bytes.fromhex(
    "601a a204 06022a03 a604 06022a04 a803 020102 be07 2805 8103 800120".replace(" ", "")
)

CASES = [
    ("c1222", C1222, b"", MATCH),
    ("c1222", C1222[:20], b"", NEED_MORE),
    ("c1222", b"", C1222, LIKELY),
    ("c1222", C1222.replace(b"\xa8", b"\xa7"), b"", REJECT),  # without its number
    ("c1222", C1222.replace(b"\xa6", b"\xa1"), b"", REJECT),  # out of order
    ("c1222", b"\x60\x48\x06\x06\x2b\x06", b"", REJECT),  # a token of GSS-API
    ("c1222", C1222[:1] + b"\x1d\xa1\x09\x06\x07\x60\x85\x74\5\x08\1\1\xbe", b"", REJECT),  # DLMS
    ("modbus", READ[:-1], b"", NEED_MORE),
    ("modbus", READ, b"", LIKELY),
    ("modbus", READ, b"\0\1\0\0\0\4\1\1", LIKELY),
    ("modbus", READ, b"\0\1\0\0\0\4\1\1\1", MATCH),
    ("modbus", READ, b"\0\1\0\0\0\4\1\1\2", NEED_MORE),  # more than its length allows
    ("modbus", b"0\x84\0\0\0\6\2\1\1c\x84\0", b"0\x84\0\0\0\x20\2\1\1", NEED_MORE),  # LDAP
    ("modbus", READ, b"\0\1\0\0\0\3\1\x81", MATCH),  # an exception
    ("modbus", READ, b"\0\2", NEED_MORE),  # another transaction's; a second request may tell
    ("modbus", READ + READ, b"", MATCH),
    ("modbus", READ + READ, b"\0\2", MATCH),
    ("modbus", READ + b"\0\2\1", b"", NEED_MORE),
    ("modbus", READ + b"\0\2\1", b"\0\2", REJECT),
    ("modbus", b"\0\1\0\0\0\7\1\1\0\0\0\3\0", b"", REJECT),  # read, and one byte more
    ("modbus", b"\0\1\0\0\0\6\1\x09", b"", REJECT),  # no such function
    ("modbus", b"\0\1\0\0\0\x0b\1\x10\0\1\0\2\4\0\1\0\2", b"", LIKELY),  # write two
    ("modbus", b"\0\1\0\0\0\x0b\1\x10\0\1\0\2\5\0\1\0\2", b"", NEED_MORE),  # five bytes
    ("modbus", b"\0\1\0\0\0\6\1\x10\0\1\0\2", b"", NEED_MORE),  # without them
    ("modbus", b"\0\1\0\0\0\6\1\x10\0\1\0\2", b"\0\1\0\0\0\3\1\x90", MATCH),  # refused
    ("modbus", b"\0\1\0\1", b"", REJECT),
    ("modbus", b"\0\1\0\0\1", b"", REJECT),
    ("modbus", b"", b"\0\1\0\0", REJECT),
    ("dnp3", DNP3[:-1], b"", NEED_MORE),
    ("dnp3", DNP3, b"", MATCH),
    ("dnp3", DNP3[:-1] + b"\xfc", b"", REJECT),
    ("dnp3", b"", DNP3, LIKELY),  # unsolicited
    ("dnp3", b"\5\x64\4", b"", REJECT),
    ("iec104", b"\x68\4\7\0\0", b"", NEED_MORE),
    ("iec104", b"\x68\4\x43\0\0\0", b"", MATCH),
    ("iec104", b"\x68\4\5", b"", REJECT),
    ("iec104", I_FRAME, b"", NEED_MORE),
    ("iec104", I_FRAME + I_FRAME, b"", MATCH),
    ("iec104", b"\x68\4\1\0\6\0", b"", NEED_MORE),  # an S frame
    ("iec104", b"\x68\4\1\0\6\0" + I_FRAME, b"", MATCH),
    ("iec104", b"\x68\4\1\0\7", b"", REJECT),  # a counter that is none
    ("iec104", b"\x68\5", b"", REJECT),  # no frame is so long
    ("iec104", I_FRAME.replace(b"\2", b"\3"), b"", REJECT),  # a counter that is no I frame's
    ("iec104", I_FRAME[:8] + b"\0", b"", REJECT),  # no cause
    ("iec104", b"hello you", b"", REJECT),
    ("opcua", b"HELF\x20\0\0\0", b"", MATCH),
    ("opcua", b"MSGC\x20\0\0\0", b"", MATCH),
    ("opcua", b"HELC", b"", REJECT),
    ("opcua", b"HELO me\r\n", b"", REJECT),
    ("opcua", b"HELF\7\0\0\0", b"", REJECT),
    ("opcua", b"", b"RHEF\x20\0\0\0", LIKELY),
    ("tpkt", S7[:-1], b"", NEED_MORE),
    ("tpkt", S7, b"", MATCH),
    ("tpkt", b"\3\0\0\x13\x0e\xe0\0\0\0\0\0\1\0\x08\0", b"", REJECT),  # RDP
    ("tpkt", b"\3\0\0\x2b\x26\xe0\0\0\0\0\0Cookie", b"", REJECT),  # RDP
    ("tpkt", b"\3\0\0\x0b\6\xe0", b"", REJECT),
    ("tpkt", b"\3\0\0\0\0\x09", b"", REJECT),  # RTMP
    ("enip", b"\x63\0" + bytes(21), b"", NEED_MORE),
    ("enip", b"\x63\0" + bytes(22), b"", LIKELY),
    ("enip", b"\x63\0" + bytes(22), b"\x63\0\x33\0" + bytes(20), MATCH),
    ("enip", b"\4\0" + bytes(22), b"\4\0\x1a\0" + bytes(20), MATCH),
    ("enip", b"\4\0" + bytes(22), b"\x63\0", NEED_MORE),  # no answer to this
    ("enip", b"\4\0" + bytes(22) + b"\5", b"", NEED_MORE),  # numbers of eight bytes
    ("enip", b"\x65\0\4\0" + bytes(20) + b"\1\0\0\0", b"", MATCH),
    ("enip", b"\x65\0\4\0" + bytes(20) + b"\2", b"", REJECT),
    ("enip", b"\4\0\0\0\5\0\0\0\0\4", b"", REJECT),  # Cassandra
    ("enip", b"", b"\x65\0\4\0\1\2\3\4" + bytes(16) + b"\1\0\0\0", LIKELY),
    ("enip", b"\x6f\0\x10\0\1\2\3\4" + bytes(20), b"", MATCH),
    ("enip", b"\x6f\0\x10\0\0\0\0\0", b"", REJECT),  # data without a session
    ("enip", b"\x6f\0\x10\0\1\2\3\4\1", b"", REJECT),  # a status in a request
    ("enip", b"\x70\0\4\0", b"", REJECT),
    ("enip", b"echo", b"", REJECT),
    ("hislip", b"HS\0\0\1\0RS\0\0\0\0\0\0\0\7", b"", MATCH),
    ("hislip", b"HS\0\0\1\0RS\0\0\1", b"", REJECT),
    ("hislip", b"HSET k", b"", REJECT),
]


def test_what_an_opening_is_worth() -> None:
    for name, up, down, verdict in CASES:
        ended = not up and verdict is REJECT  # until then it may be an answer
        opening = Opening(up=up, down=down, up_ended=ended)
        assert DETECT[name](opening) is verdict


def test_the_crc_is_that_of_the_standard() -> None:
    check = 0xEA82  # of "123456789", in the catalogue of CRCs: CRC-16/DNP
    assert dnp3_crc(b"123456789") == check
