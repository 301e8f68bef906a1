"""No password is shown with what is said, in any protocol, however its bytes are split."""

from __future__ import annotations

import struct
from base64 import b64decode
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.engine.engine import Engine
from mitml4.engine.replay import Record, Replay, Step
from mitml4.engine.rules import HOLD_S, Rules
from mitml4.payload.budget import SessionPayload
from mitml4.protocols import registry
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import Direction, Target
from mitml4.protocols.flow_data import FlowData
from mitml4.protocols.payload import Shown
from mitml4.protocols.secrets.table import CLIENT, SERVER

UP, DOWN = Direction.UP, Direction.DOWN
SECRET = b"hunter2-S3cret"
PLAIN = b"AGFsaWNlAGh1bnRlcjItUzNjcmV0"
"""SASL PLAIN of alice and that password."""
S, P = len(SECRET), len(PLAIN)


def ber(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes([tag, len(body)]) + body


def bson(*elements: bytes) -> bytes:
    body = b"".join(elements) + b"\0"
    return struct.pack("<I", len(body) + 4) + body


def binary(name: bytes, value: bytes) -> bytes:
    return b"\x05" + name + b"\0" + struct.pack("<IB", len(value), 0) + value


def text(name: bytes, value: bytes) -> bytes:
    return b"\x02" + name + b"\0" + struct.pack("<I", len(value) + 1) + value + b"\0"


def mongo(*elements: bytes, number: int = 1) -> bytes:
    body = bytes(5) + bson(*elements)
    return struct.pack("<4I", 16 + len(body), number, 0, 2013) + body


def mysql(number: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack("<I", len(body))[:3] + bytes([number]) + body


def postgres(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def short(data: bytes) -> bytes:
    return struct.pack("!H", len(data)) + data


def mqtt(kind: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes([kind, len(body)]) + body


def kafka(api: int, version: int, body: bytes, tags: bytes = b"") -> bytes:
    head = struct.pack("!HHI", api, version, 7) + short(b"my-client") + tags
    return struct.pack("!I", len(head + body)) + head + body


def cql(opcode: int, body: bytes, version: int = 4) -> bytes:
    return struct.pack("!BBHBI", version, 0, 1, opcode, len(body)) + body


def amqp(body: bytes) -> bytes:
    return struct.pack("!BHI", 1, 0, len(body)) + body + b"\xce"


def resp(*words: bytes) -> bytes:
    strings = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
    return b"*%d\r\n%s" % (len(words), strings)


def memcached(opcode: int, key: bytes, value: bytes) -> bytes:
    size = len(key) + len(value)
    return struct.pack("!BBHBBHI4x8x", 0x80, opcode, len(key), 0, 0, 0, size) + key + value


def tds(kind: int, body: bytes, size: int = 4096) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(
        struct.pack("!BBHHBB", kind, piece is pieces[-1], len(piece) + 8, 0, 1, 0) + piece
        for piece in pieces
    )


def tds_login(password: bytes) -> bytes:
    """Hosts, user, password and so on, which follow the table of their places."""
    texts = [b"h\0", b"s\0a\0", password, b"app" * 40, b"", b"", b"", b"", b"d\0"]
    at, table, rest = 94, b"", b""
    for each in texts:
        table += struct.pack("<HH", at + len(rest), len(each) // 2)
        rest += each
    table += bytes(6) + struct.pack("<HHHHHHI", at, 0, at, 0, at, 0, 0)
    body = struct.pack("<4xI7I", 0x74000004, 4096, *range(6)) + table + rest
    return struct.pack("<I", len(body)) + body[4:]


PRELOGIN = tds(0x12, bytes.fromhex("00000b0006010011000 1ff".replace(" ", "")) + bytes(6) + b"\2")
PRELOGIN_ANSWER = tds(4, bytes.fromhex("00000b00060100110001ff") + bytes(6) + b"\2")
MYSQL_GREETING = mysql(0, b"\x0a8.0.30\0", bytes(4), b"12345678\0", b"\xff\xf7\x21\2\0", bytes(40))
LOGIN41 = struct.pack("<II", 0x00A82200 | 0x8000, 1 << 24) + b"\x21" + bytes(23)
CHALLENGE = b"R" + struct.pack("!II", 8, 3)
STARTUP = struct.pack("!II", 22, 196608) + b"user\0alice\0\0\0"
STARTUP = struct.pack("!I", len(STARTUP)) + STARTUP[4:]
CQL_STARTUP = cql(1, struct.pack("!H", 1) + short(b"CQL_VERSION") + short(b"3.0.0"))
CQL_STARTUP_5 = b"\5\0\0\0" + CQL_STARTUP[4:]
SEGMENT = cql(15, struct.pack("!I", S) + SECRET, 5)
SEGMENT = struct.pack("<I", len(SEGMENT))[:3] + b"crc" + SEGMENT + b"crc4"
SASL_INIT = b"\0\x53\x41\xc0\x30\3\xa3\5PLAIN\xa0" + bytes([S]) + SECRET + b"\xa1\1h"
SIP = b"REGISTER sip:example.org SIP/2.0\r\nCSeq: 1 REGISTER\r\nAuthorization: "
SIP_ANSWER = b"SIP/2.0 401 Unauthorized\r\nCSeq: 1 REGISTER\r\nContent-Length: 0\r\n\r\n"

Case = tuple[str, int, list[Step], list[int]]
"""A protocol, its port, a dialogue, and how long each secret of the client's is."""
CASES: list[Case] = [
    (
        "smtp",
        25,
        [
            (DOWN, b"220 mx ESMTP\r\n"),
            (UP, b"EHLO me\r\n"),
            (DOWN, b"250 AUTH PLAIN\r\n"),
            (UP, b"AUTH PLAIN " + PLAIN + b"\r\n"),
            (DOWN, b"235 ok\r\n"),
            (UP, b"QUIT\r\n"),
        ],
        [P],
    ),
    (
        "smtp",
        25,
        [
            (DOWN, b"220 mx ESMTP\r\n"),
            (UP, b"EHLO me\r\n"),
            (DOWN, b"250 AUTH LOGIN\r\n"),
            (UP, b"auth LOGIN\r\n"),
            (DOWN, b"334 VXNlcm5hbWU6\r\n"),
            (UP, b"YWxpY2U=\r\n"),
            (DOWN, b"334 UGFzc3dvcmQ6\r\n"),
            (UP, b"aHVudGVyMi1TM2NyZXQ=\r\n"),
            (DOWN, b"535 no\r\n"),
            (UP, b"NOOP\r\nMAIL FROM:<a@b>\r\n"),
        ],
        [8, 20],
    ),
    (
        "imap",
        143,
        [
            (DOWN, b"* OK IMAP4 ready\r\n"),
            (UP, b'a1 LOGIN alice "hun\\"ter"\r\n'),
            (DOWN, b"a1 NO\r\n"),
            (UP, b"a2 LOGIN alice " + SECRET + b"\r\n"),
            (DOWN, b"a2 OK\r\n"),
            (UP, b"a3 NOOP\r\n"),
        ],
        [8, S],
    ),
    (
        "imap",
        143,
        [
            (DOWN, b"* OK IMAP4 ready\r\n"),
            (UP, b"a1 LOGIN {5}\r\n"),
            (DOWN, b"+ go\r\n"),
            (UP, b"alice {%d}\r\n" % S),
            (DOWN, b"+ go\r\n"),
            (UP, SECRET + b"\r\n"),
            (DOWN, b"a1 OK\r\n"),
            (UP, b"a2 NOOP\r\n"),
        ],
        [S],
    ),
    (
        "imap",
        143,
        [
            (DOWN, b"* OK IMAP4 ready\r\n"),
            (UP, b"a1 AUTHENTICATE PLAIN\r\n"),
            (DOWN, b"+ \r\n"),
            (UP, PLAIN + b"\r\n"),
            (DOWN, b"a1 OK\r\n"),
            (UP, b"a2 NOOP\r\n"),
        ],
        [P],
    ),
    (
        "pop3",
        110,
        [
            (DOWN, b"+OK POP3 ready\r\n"),
            (UP, b"USER alice\r\n"),
            (DOWN, b"+OK\r\n"),
            (UP, b"PASS " + SECRET + b" x\r\n"),
            (DOWN, b"+OK\r\n"),
            (UP, b"STAT\r\n"),
        ],
        [S + 2],
    ),
    (
        "pop3",
        110,
        [
            (DOWN, b"+OK POP3 <1@h>\r\n"),
            (UP, b"APOP alice c4c9334bac560ecc\r\n"),
            (DOWN, b"-ERR\r\n"),
            (UP, b"AUTH PLAIN\r\n"),
            (DOWN, b"+ \r\n"),
            (UP, PLAIN + b"\r\n"),
            (DOWN, b"+OK\r\n"),
            (UP, b"QUIT\r\n"),
        ],
        [16, P],
    ),
    (
        "managesieve",
        4190,
        [
            (DOWN, b'"IMPLEMENTATION" "x"\r\n"SASL" "PLAIN"\r\nOK\r\n'),
            (UP, b'AUTHENTICATE "PLAIN" "' + PLAIN + b'"\r\n'),
            (DOWN, b"NO\r\n"),
            (UP, b'AUTHENTICATE "PLAIN" {%d+}\r\n%s\r\n' % (P, PLAIN)),
            (DOWN, b"OK\r\n"),
            (UP, b"LISTSCRIPTS\r\n"),
        ],
        [P, P],
    ),
    (
        "nntp",
        119,
        [
            (DOWN, b"200 news NNTP\r\n"),
            (UP, b"AUTHINFO USER alice\r\n"),
            (DOWN, b"381 more\r\n"),
            (UP, b"AUTHINFO PASS " + SECRET + b"\r\n"),
            (DOWN, b"281 ok\r\n"),
            (UP, b"GROUP a.b\r\n"),
        ],
        [S],
    ),
    (
        "nntp",
        119,
        [
            (DOWN, b"200 news NNTP\r\n"),
            (UP, b"AUTHINFO SASL PLAIN\r\n"),
            (DOWN, b"383 =\r\n"),
            (UP, PLAIN + b"\r\n"),
            (DOWN, b"281 ok\r\n"),
            (UP, b"DATE\r\n"),
        ],
        [P],
    ),
    (
        "ftp",
        21,
        [
            (DOWN, b"220 FTP ready\r\n"),
            (UP, b"USER alice\r\n"),
            (DOWN, b"331 pw\r\n"),
            (UP, b"PASS " + SECRET + b"\r\n"),
            (DOWN, b"230 ok\r\n"),
            (UP, b"PWD\r\n"),
            (DOWN, b"257 x\r\n"),
            (UP, b"PASS " + SECRET + b"\r\n"),
        ],
        [S, S],
    ),
    (
        "irc",
        6667,
        [
            (UP, b"CAP LS 302\r\nPASS " + SECRET + b"\r\nNICK a\r\nUSER a 0 * :A\r\n"),
            (DOWN, b":irc.example 001 a :hi\r\n"),
            (UP, b"AUTHENTICATE PLAIN\r\n"),
            (UP, b"AUTHENTICATE " + PLAIN + b"\r\nOPER alice " + SECRET + b"\r\n"),
            (
                UP,
                b"PRIVMSG NickServ :IDENTIFY " + SECRET + b"\r\nJOIN #a key\r\nPRIVMSG #a :hi\r\n",
            ),
        ],
        [S, P, S, S, 3],
    ),
    (
        "xmpp",
        5222,
        [
            (UP, b"<stream:stream to='a' xmlns='jabber:client' xmlns:stream='x'>"),
            (DOWN, b"<stream:stream from='a' xmlns='jabber:client'><stream:features/>"),
            (UP, b"<auth xmlns='urn:x' mechanism='PLAIN'>" + PLAIN + b"</auth>"),
            (DOWN, b"<success/>"),
            (
                UP,
                b"<message><body>hi</body></message><iq><query><username>a</username><password>"
                + SECRET
                + b"</password></query></iq>",
            ),
        ],
        [P, S],
    ),
    (
        "ldap",
        389,
        [
            (UP, ber(0x30, b"\2\1\1", ber(0x60, b"\2\1\3", ber(4, b"cn=a"), ber(0x80, SECRET)))),
            (DOWN, ber(0x30, b"\2\1\1", ber(0x61, b"\n\1\0\4\0\4\0"))),
            (
                UP,
                ber(
                    0x30,
                    b"\2\1\2",
                    ber(0x60, b"\2\1\3", ber(4, b""), ber(0xA3, ber(4, b"PLAIN"), ber(4, SECRET))),
                ),
            ),
            (UP, ber(0x30, b"\2\1\3", ber(0x42))),
        ],
        [S, S],
    ),
    (
        "redis",
        6379,
        [
            (UP, resp(b"PING")),
            (DOWN, b"+PONG\r\n"),
            (UP, resp(b"AUTH", SECRET)),
            (UP, resp(b"auth", b"alice", SECRET)),
            (UP, resp(b"HELLO", b"3", b"AUTH", b"alice", SECRET)),
            (UP, resp(b"CONFIG", b"SET", b"requirepass", SECRET) + resp(b"SET", b"AUTH", b"value")),
            (
                UP,
                resp(b"ACL", b"SETUSER", b"bob", b"on", b">" + SECRET)
                + b"AUTH bob "
                + SECRET
                + b"\r\n",
            ),
            (UP, b'AUTH "my \\" word" \r\nAUTH \'a b\r\nSET "a b" c\r\n'),
        ],
        [S, S, S, S, S + 1, S, 12, 4],
    ),
    (
        "postgresql",
        5432,
        [
            (UP, STARTUP),
            (DOWN, CHALLENGE),
            (UP, postgres(b"p", SECRET + b"\0")),
            (DOWN, b"R" + struct.pack("!II", 8, 0)),
            (UP, postgres(b"Q", b"select 1\0")),
        ],
        [S],
    ),
    (
        "mysql",
        3306,
        [
            (DOWN, MYSQL_GREETING),
            (UP, mysql(1, LOGIN41, b"alice\0", bytes([S]), SECRET, b"mysql_native_password\0")),
            (DOWN, mysql(2, b"\xfemysql_clear_password\0")),
            (UP, mysql(3, SECRET + b"\0")),
            (DOWN, mysql(4, b"\0\0\0\2\0\0\0")),
            (UP, mysql(0, b"\3select 1")),
        ],
        [S, S],
    ),
    (
        "tds",
        1433,
        [
            (UP, PRELOGIN),
            (DOWN, PRELOGIN_ANSWER),
            (UP, tds(0x10, tds_login(SECRET))),
            (DOWN, tds(4, bytes(30))),
        ],
        [S],
    ),
    (
        "tds",
        1433,
        [(UP, PRELOGIN), (DOWN, PRELOGIN_ANSWER), (UP, tds(0x10, tds_login(SECRET), 106))],
        [6, S - 6],
    ),
    (
        "mongodb",
        27017,
        [
            (UP, mongo(text(b"hello", b"x"), text(b"$db", b"admin"))),
            (
                UP,
                mongo(
                    text(b"saslStart", b"x"),
                    text(b"mechanism", b"PLAIN"),
                    binary(b"payload", SECRET),
                ),
            ),
            (UP, mongo(text(b"createUser", b"bob"), text(b"pwd", SECRET), b"\x08x\0\1")),
            (UP, mongo(text(b"insert", b"a"), text(b"payload", b"seen"))),
        ],
        [S, S],
    ),
    (
        "mqtt",
        1883,
        [
            (
                UP,
                mqtt(
                    0x10,
                    short(b"MQTT"),
                    b"\4\xc2\0\x3c",
                    short(b"id"),
                    short(b"alice"),
                    short(SECRET),
                ),
            ),
            (DOWN, b"\x20\2\0\0"),
            (UP, mqtt(0x30, short(b"topic"), b"alice")),
        ],
        [S],
    ),
    (
        "mqtt",
        1883,
        [
            (
                UP,
                mqtt(
                    0x10,
                    short(b"MQTT"),
                    b"\5\xc6\0\x3c",
                    b"\x05\x11\0\0\0\1",
                    short(b"id"),
                    b"\0",
                    short(b"will"),
                    short(b"bye"),
                    short(b"alice"),
                    short(SECRET),
                ),
            ),
            (DOWN, b"\x20\3\0\0\0"),
            (UP, mqtt(0xF0, b"\x18\x15\x15\0\1A\x16" + short(SECRET))),
        ],
        [S, S],
    ),
    (
        "amqp",
        5672,
        [
            (UP, b"AMQP\0\0\x09\1"),
            (DOWN, amqp(b"\0\x0a\0\x0a\0\x09\0\0\0\0")),
            (UP, amqp(b"\0\x0a\0\x0b\0\0\0\0\5PLAIN" + struct.pack("!I", S) + SECRET + b"\5en_US")),
            (UP, amqp(b"\0\x0a\0\x28\1/\0\0")),
        ],
        [S],
    ),
    (
        "amqp",
        5672,
        [
            (UP, b"AMQP\3\1\0\0"),
            (DOWN, b"AMQP\3\1\0\0"),
            (UP, struct.pack("!IBBH", 8 + len(SASL_INIT), 2, 1, 0) + SASL_INIT),
            (UP, b"AMQP\0\1\0\0"),
        ],
        [S],
    ),
    (
        "stomp",
        61613,
        [
            (UP, b"CONNECT\nhost:a\nlogin:alice\npasscode:" + SECRET + b"\n\n\0"),
            (DOWN, b"CONNECTED\nversion:1.2\n\n\0"),
            (UP, b"SEND\n\npasscode\0"),
        ],
        [S],
    ),
    (
        "nats",
        4222,
        [
            (DOWN, b'INFO {"server_id":"a"}\r\n'),
            (UP, b'CONNECT {"user":"alice", "pass":"' + SECRET + b'","jwt":"a\\"b"}\r\nPING\r\n'),
        ],
        [S, 4],
    ),
    (
        "memcached",
        11211,
        [(UP, memcached(0x21, b"PLAIN", SECRET)), (UP, memcached(0, b"key", b""))],
        [S],
    ),
    (
        "kafka",
        9092,
        [
            (UP, kafka(18, 0, b"")),
            (DOWN, struct.pack("!II", 10, 7) + bytes(6)),
            (UP, kafka(36, 0, struct.pack("!I", S) + SECRET)),
            (UP, kafka(36, 2, bytes([S + 1]) + SECRET + b"\0", b"\0")),
            (UP, kafka(3, 1, bytes(4))),
        ],
        [S, S],
    ),
    (
        "kafka",
        9092,
        [
            (UP, kafka(17, 0, short(b"PLAIN"))),
            (DOWN, struct.pack("!II", 10, 7) + bytes(6)),
            (UP, struct.pack("!I", S + 7) + b"\0alice\0" + SECRET),
            (UP, kafka(3, 1, bytes(4))),
        ],
        [S + 7],
    ),
    (
        "cassandra",
        9042,
        [
            (UP, CQL_STARTUP),
            (DOWN, cql(3, short(b"A"), 0x84)),
            (UP, cql(15, struct.pack("!I", S) + SECRET)),
            (UP, cql(7, bytes(10))),
        ],
        [S],
    ),
    (
        "cassandra",
        9042,
        [(UP, CQL_STARTUP_5), (DOWN, cql(3, short(b"A"), 0x85)), (UP, SEGMENT)],
        [S],
    ),
    (
        "sip",
        5060,
        [
            (UP, SIP + b"Digest a=b,\r\n " + SECRET + b"\r\nContent-Length: 0\r\n\r\n"),
            (DOWN, SIP_ANSWER),
            (UP, SIP + SECRET + b"\r\nContent-Length: 0\r\n\r\n"),
        ],
        [11, S, S],
    ),
    (
        "rtsp",
        554,
        [
            (UP, b"OPTIONS rtsp://h/a RTSP/1.0\r\nCSeq: 1\r\n\r\n"),
            (DOWN, b"RTSP/1.0 401 no\r\nCSeq: 1\r\n\r\n"),
            (
                UP,
                b"DESCRIBE rtsp://alice:hunter@h/a RTSP/1.0\r\nCSeq: 2\r\nAuthorization: Basic "
                + PLAIN
                + b"\r\n\r\n",
            ),
        ],
        [6, P + 6],
    ),
    (
        "fix",
        9878,
        [(UP, b"8=FIX.4.4\x019=70\x0135=A\x01553=alice\x01554=" + SECRET + b"\x0110=1\x01")],
        [S],
    ),
]


def shown(case: Case, chunk: int | None, *, redacts: bool = True, side: Direction = UP) -> bytes:
    """What is shown of a side."""
    _, port, script, _ = case
    record = Record()
    context = LayerContext(
        hold_s=HOLD_S,
        target=Target("192.0.2.1", port),
        shown=Shown(payload=SessionPayload().of_flow(), redacts=redacts),
    )
    replay = Replay(Engine(Rules(), record, context))
    replay.play([*script, (UP, None), (DOWN, None)], chunk=chunk)
    replay.engine.close()
    assert record.stack == [case[0]], record.stack
    said = b""
    for _, event in record.protocol_events:
        if isinstance(event, FlowData) and event.direction is side:
            said += event.text.encode() if event.text is not None else b64decode(event.base64 or "")
    return said


def without(sent: bytes, redacted: bytes, sizes: Iterable[int]) -> bool:
    """Whether `redacted` is `sent` with secrets of these sizes redacted, in order."""
    at = 0
    pieces = redacted.split(b"<redacted, ")
    if not sent.startswith(pieces[0]):
        return False
    at = len(pieces[0])
    for size, piece in zip(sizes, pieces[1:], strict=True):
        count, _, rest = piece.partition(b" bytes>")
        if int(count) != size or not sent.startswith(rest, at + size):
            return False
        at += size + len(rest)
    return at == len(sent)


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: CASES[number][0])
def test_every_split_hides_the_same_secrets(number: int) -> None:
    case = CASES[number]
    sent = b"".join(data or b"" for direction, data in case[2] if direction is UP)
    whole = shown(case, None)
    assert without(sent, whole, case[3]), whole
    assert SECRET not in whole
    assert PLAIN not in whole
    for chunk in (1, 2, 7, 64):
        assert shown(case, chunk) == whole
    assert shown(case, None, redacts=False) == sent


def test_a_unit_that_comes_byte_by_byte_is_hidden_once_it_is_whole() -> None:
    """Beyond a kilobyte it is read again only once an eighth more has come, or at the end."""
    value = SECRET * 200
    for name, unit, spared in (
        ("smtp", b"AUTH PLAIN " + value + b"\r\n", b"NOOP\r\n" * 100),
        ("ldap", b"\x30\x84" + struct.pack("!I", len(value) + 24) + b"\2\1\1\x60\x84"
         + struct.pack("!I", len(value) + 15) + b"\2\1\3\4\4cn=a\x80\x84"
         + struct.pack("!I", len(value))[:4] + value, b""),
    ):  # fmt: skip
        for stream in (unit + spared, unit):
            finder = CLIENT[name]()
            whole, hidden = b"", b""
            for at in range(len(stream)):
                data, spans = finder.feed(stream[at : at + 1])
                hidden += b"".join(data[start:end] for start, end in spans)
                whole += data
            data, spans = finder.end()
            hidden += b"".join(data[start:end] for start, end in spans)
            assert whole + data == stream
            assert hidden == value, name


ANSWERS: list[Case] = [
    (
        "redis",
        6379,
        [
            (UP, resp(b"CONFIG", b"GET", b"*") * 9),
            (DOWN, resp(b"port", b"6379", b"requirepass", SECRET, b"masterauth", b"")),
            (DOWN, b"%1\r\n" + resp(b"MasterAuth", SECRET)[4:] + b"$-1\r\n+requirepass\r\n"),
            (DOWN, b"$2\r\nok\r\n" + resp(b"flags", b"passwords")),
            (DOWN, b"*2\r\n$6\r\n" + b"abcdef" + b"\r\n$6\r\nfedcba\r\n$3\r\nyes\r\n"),
            (DOWN, resp(b"user me on #" + b"0a" * 32 + b" ~* +@all", b"requirepass #1")),
            (DOWN, b"-ERR no\r\n:1\r\n$" + b"20000\r\n" + b"x" * 20000 + b"\r\n"),
            (DOWN, resp(b"requirepass", SECRET)),
        ],
        [S, S, 6, 6, 64, S],
    ),
    (
        "sip",
        5060,
        [
            (UP, b"OPTIONS sip:b SIP/2.0\r\nTo: a\r\n\r\n"),
            (DOWN, b"SIP/2.0 302 no\r\nContact: <sip:bob:" + SECRET + b"@h>\r\n\r\n"),
        ],
        [S],
    ),
    (
        "xmpp",
        5222,
        [
            (UP, b"<stream:stream xmlns='jabber:client' to='a.example' version='1.0'>"),
            (DOWN, b"<stream:stream xmlns='jabber:client' id='1'><message><x><password>"),
            (DOWN, SECRET + b"</password></x></message>"),
        ],
        [S],
    ),
]


@pytest.mark.parametrize("case", ANSWERS, ids=lambda case: case[0])
def test_secrets_that_servers_send_are_hidden(case: Case) -> None:
    sent = b"".join(data or b"" for direction, data in case[2] if direction is DOWN)
    whole = shown(case, None, side=DOWN)
    assert without(sent, whole, case[3]), whole
    assert SECRET not in whole
    for chunk in (1, 7):
        assert shown(case, chunk, side=DOWN) == whole
    assert shown(case, None, redacts=False, side=DOWN) == sent


def test_every_protocol_with_a_finder_is_tried() -> None:
    assert {case[0] for case in CASES} == set(CLIENT)
    assert set(SERVER) <= set(CLIENT)
    assert all(registry.by_name(name) for name in CLIENT)


@pytest.mark.parametrize("name", CLIENT)
@given(pieces=st.lists(st.binary(max_size=64), max_size=8), data=st.data())
def test_nothing_but_secrets_is_changed(
    name: str, pieces: list[bytes], data: st.DataObject
) -> None:
    """Whatever the bytes are: those of a real client, changed at will, or any."""
    real = [
        piece
        for case in CASES
        if case[0] == name
        for direction, piece in case[2]
        if direction is UP and piece
    ]
    stream = data.draw(st.permutations([*pieces, *real]))
    finder = CLIENT[name]()
    taken = b""
    for piece in stream:
        known, spans = finder.feed(piece)
        assert all(0 <= start < end <= len(known) for start, end in spans)
        taken += known
    known, spans = finder.end()
    assert all(0 <= start < end <= len(known) for start, end in spans)
    assert taken + known == b"".join(stream)
