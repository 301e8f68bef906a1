"""Every conversation against bytes that nobody promised: only ProtocolError, an end, and bounds.

Sessions are real ones, mutated: bytes changed, steps dropped, repeated and swapped. What a
conversation makes of them may not depend on how the bytes are split.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeAlias

import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator

from mitml4.encoding import encode
from mitml4.engine.engine import Engine
from mitml4.engine.replay import Record, Replay
from mitml4.engine.rules import Rules
from mitml4.events import LayerEvent
from mitml4.payload.budget import SessionPayload
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import MAX_PEEK, Conversation, Details, Direction, Protocol
from mitml4.protocols.flow_data import FlowData
from mitml4.protocols.payload import Shown
from mitml4.protocols.protocol_event import ProtocolEvent
from mitml4.protocols.registry import PROTOCOLS, by_name
from mitml4.schema import json_schema

UP, DOWN = Direction.UP, Direction.DOWN
Script: TypeAlias = list[tuple[Direction, bytes]]

GET = b"GET /a HTTP/1.1\r\nHost: a.example\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
HELLO = (
    b"\x16\x03\x01\x00\x30\x01\x00\x00\x2c\x03\x03" + bytes(32) + b"\x00\x00\x02\x13\x01\x01\x00"
)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WEBSOCKET = Encoder().encode(
    [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", "/")]
)
CALL = Encoder().encode(
    [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/"),
        ("content-type", "application/grpc"),
    ]
)

SESSIONS: dict[str, Script] = {
    "tls": [(UP, HELLO + b"\x00\x00"), (DOWN, b"\x15\x03\x01\x00\x02\x02\x28")],
    "http/1": [
        (UP, GET),
        (DOWN, ANSWER),
        (UP, GET),
        (DOWN, b"HTTP/1.0 500 No\r\n\r\nuntil the end"),
    ],
    "http-connect": [(UP, b"CONNECT a:443 HTTP/1.1\r\n\r\n"), (DOWN, b"HTTP/1.1 200 OK\r\n\r\n")],
    "http/2": [
        (UP, PREFACE + b"\0\0\0\4\0\0\0\0\0" + b"\0\0\3\1\5\0\0\0\1\x82\x86\x84"),
        (DOWN, b"\0\0\0\4\0\0\0\0\0" + b"\0\0\1\1\4\0\0\0\1\x88"),
        (DOWN, b"\0\0\2\0\1\0\0\0\1hi"),
        (UP, len(WEBSOCKET).to_bytes(3, "big") + b"\1\4\0\0\0\3" + WEBSOCKET),
        (DOWN, b"\0\0\1\1\4\0\0\0\3\x88" + b"\0\0\4\0\0\0\0\0\3\x81\2hi"),
    ],
    "websocket": [
        (UP, b"\x81\x85\1\2\3\4hello"),
        (DOWN, b"\x01\x02hi" + b"\x89\0" + b"\x80\x7e\1\0" + bytes(256)),
        (UP, b"\x8a\x80\0\0\0\0" + b"\x88\x82\0\0\0\0\3\xe8"),
    ],
    "socks5": [
        (UP, b"\x05\x02\x00\x02"),
        (DOWN, b"\x05\x02"),
        (UP, b"\x01\x05alice\x06secret"),
        (DOWN, b"\x01\x00"),
        (UP, b"\x05\x01\x00\x03\x0bexample.com\x01\xbb"),
        (DOWN, b"\x05\x00\x00\x01\x0a\x00\x00\x01\x04\x38"),
    ],
    "socks4": [
        (UP, b"\x04\x01\x01\xbb\x00\x00\x00\x01alice\x00example.com\x00"),
        (DOWN, b"\x00\x5a\x04\x38\x0a\x00\x00\x01"),
    ],
    "proxy-protocol": [
        (UP, b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x11" + bytes(range(12)) + b"\x01\x00\x02h2"),
        (DOWN, b"220 hello\r\n"),
    ],
    "ssh": [
        (DOWN, b"Welcome\r\nSSH-2.0-OpenSSH_9.6p1 Debian-5\r\n"),
        (UP, b"SSH-2.0-dropbear\r\n\x00\x00\x05\xdc\x06\x14"),
    ],
    "smtp": [
        (DOWN, b"220-mx.example ESMTP\r\n220 welcome\r\n"),
        (UP, b"EHLO me\r\nNOOP\r\n"),
        (DOWN, b"250-mx\r\n250 STARTTLS\r\n250 ok\r\n"),
        (UP, b"MAIL FROM:<a@example>\r\n"),
        (DOWN, b"530 STARTTLS first\r\n"),
        (UP, b"STARTTLS\r\n"),
        (DOWN, b"220 ready\r\n"),
    ],
    "postgresql": [
        (UP, b"\0\0\0\x08\x04\xd2\x16\x2f"),
        (DOWN, b"N"),
        (UP, b"\0\0\0\x10\0\3\0\0user\0a\0\0"),
        (DOWN, b"R\0\0\0\x08\0\0\0\0N\0\0\0\x06hi" + b"S\0\0\0\x18server_version\x0016.2\0"),
    ],
    "mysql": [
        (DOWN, b"\x1e\0\0\0\x0a8.0.36\0\1\0\0\0saltsalt\0\xff\xff\xff\2\0\xff\xdf\x15\0"),
        (UP, b"\x24\0\0\1\x85\xa6\xff\x19\0\0\0\1\xff" + bytes(23) + b"me\0\0"),
        (DOWN, b"\7\0\0\2\0\0\0\2\0\0\0"),
    ],
    "ftp": [
        (DOWN, b"220-FTP\r\n of ours\r\n220 welcome\r\n"),
        (UP, b"AUTH GSSAPI\r\n"),
        (DOWN, b"504 no\r\n"),
        (UP, b"USER me\r\nAUTH TLS\r\n"),
        (DOWN, b"331 and?\r\n234 go\r\n"),
    ],
    "imap": [
        (DOWN, b"* OK [CAPABILITY IMAP4rev1] hi\r\n"),
        (UP, b"a1 LOGIN {2}\r\n"),
        (DOWN, b"+ go\r\n"),
        (UP, b"me {3+}\r\nabc\r\n"),
        (DOWN, b'* ID ("a" {3}\r\n)))\r\na1 NO TLS first\r\n'),
        (UP, b"a2 STARTTLS\r\n"),
        (DOWN, b"a2 OK go\r\n"),
    ],
    "pop3": [
        (DOWN, b"+OK POP3\r\n"),
        (UP, b"CAPA\r\nAUTH PLAIN\r\n"),
        (DOWN, b"+OK\r\nSTLS\r\n.\r\n+ \r\n"),
        (UP, b"AG1lAHB3\r\n"),
        (DOWN, b"-ERR no\r\n"),
        (UP, b"STLS\r\n"),
        (DOWN, b"+OK go\r\n"),
    ],
    "nntp": [
        (DOWN, b"200 hi\r\n"),
        (UP, b"CAPABILITIES\r\nAUTHINFO SASL PLAIN\r\n"),
        (DOWN, b"101 these\r\nSTARTTLS\r\n.\r\n383 =\r\n"),
        (UP, b"AG1lAHB3\r\n"),
        (DOWN, b"481 no\r\n"),
        (UP, b"STARTTLS\r\n"),
        (DOWN, b"382 go\r\n"),
    ],
    "managesieve": [
        (DOWN, b'"IMPLEMENTATION" "a"\r\n"STARTTLS"\r\nOK {2}\r\nhi\r\n'),
        (UP, b'AUTHENTICATE "PLAIN" {3+}\r\nabc\r\n'),
        (DOWN, b'NO "no"\r\n'),
        (UP, b"STARTTLS\r\n"),
        (DOWN, b"OK\r\n"),
    ],
    "irc": [
        (UP, b"NICK me\r\nUSER me 0 * :Me\r\nSTARTTLS\r\n"),
        (DOWN, b":irc NOTICE * :hi\r\nPING :1\r\n:irc 451 * :Not now\r\n"),
        (UP, b"STARTTLS\r\n"),
        (DOWN, b":irc 670 * :go\r\n"),
    ],
    "xmpp": [
        (UP, b"<?xml version='1.0'?><stream:stream to='a' xmlns='jabber:client'>\n"),
        (
            DOWN,
            b"<stream:stream from='a'><stream:features><a/><!-- > --><b>t</b></stream:features>",
        ),
        (UP, b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'></starttls>"),
        (DOWN, b"<proceed/>"),
    ],
    "rtsp": [
        (UP, b"OPTIONS rtsp://a/b RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: c\r\n\r\n"),
        (DOWN, b"RTSP/1.0 200 OK\r\nServer: d\r\n\r\n"),
        (DOWN, b"RTSP/1.0 200 OK\r\nTransport: RTP/AVP/TCP;interleaved=0-1\r\n\r\n"),
        (DOWN, b"$\0\0\4" + bytes(4)),
    ],
    "portmap": [
        (UP, b"\x80\0\0\x28\0\0\0\7\0\0\0\0\0\0\0\2\0\1\x86\xa0\0\0\0\2\0\0\0\4" + bytes(16)),
        (
            DOWN,
            b"\x80\0\0\x30\0\0\0\7\0\0\0\1" + bytes(16) + b"\0\0\0\1\0\1\x86\xa5"
            b"\0\0\0\3\0\0\0\6\0\0\x50\2" + bytes(4),
        ),
    ],
    "sip": [
        (UP, b"\r\n\r\nREGISTER sip:a SIP/2.0\r\nUser-Agent: b\r\n\r\n"),
        (DOWN, b"\r\nSIP/2.0 200 OK\r\nServer: c\r\n\r\n"),
        (UP, b"INVITE sip:b SIP/2.0\r\nc: application/sdp\r\nl: 44\r\n\r\n"),
        (UP, b"c=IN IP4 192.0.2.1\r\nm=audio 7000 RTP/AVP 0\r\n"),
    ],
    "stomp": [
        (UP, b"CONNECT\nlogin:me\npasscode:secret\nhost:a\n\n\0\n"),
        (DOWN, b"CONNECTED\nversion:1.2\nserver:b\n\n\0"),
    ],
    "git": [
        (UP, b"0029git-upload-pack /a\0host=b\0\0version=2\0"),
        (DOWN, b"000eversion 2\n"),
    ],
    "rsync": [
        (DOWN, b"@RSYNCD: 31.0 sha512\n"),
        (UP, b"@RSYNCD: 30.0\nhome\n"),
        (DOWN, b"@RSYNCD: OK\n"),
    ],
    "vnc": [
        (DOWN, b"RFB 003.008\n"),
        (UP, b"RFB 003.008\n"),
        (DOWN, b"\2\2\x13"),
        (UP, b"\x13"),
        (DOWN, b"\0\2"),
        (UP, b"\0\2"),
        (DOWN, b"\0\2\0\0\1\2\0\0\1\5"),
        (UP, b"\0\0\1\5"),
        (DOWN, b"\1"),
    ],
    "tds": [
        (UP, b"\x12\1\0\x1a\0\0\1\0\0\0\x0b\0\6\1\0\x11\0\1\xff\x11\0\0\0\0\0\1"),
        (DOWN, b"\4\1\0\x1a\0\0\1\0\0\0\x0b\0\6\1\0\x11\0\1\xff\x10\0\3\xe8\0\0\1"),
        (UP, b"\x10\1\0\x6a\0\0\1\0\x62\0\0\0\4\0\0\x74" + bytes(32) + b"\x5e\0\2\0" + bytes(50)),
        (UP, b"m\0e\0"),
    ],
    "rdp": [
        (UP, b"\3\0\0\x28\x23\xe0\0\0\0\0\0Cookie: mstshash=me\r\n\1\0\x08\0\3\0\0\0"),
        (DOWN, b"\3\0\0\x13\x0e\xd0\0\0\x12\x34\0\2\0\x08\0\2\0\0\0"),
    ],
    "ldap": [
        (UP, b"0\x0f\2\1\1`\x0a\2\1\3\4\3a=b\x80\0"),
        (DOWN, b"0\x0c\2\1\1a\7\x0a\1\0\4\0\4\0"),
        (UP, b"0\x1d\2\1\2w\x18\x80\x161.3.6.1.4.1.1466.20037"),
        (DOWN, b"0\x0c\2\1\2x\7\x0a\1\0\4\0\4\0"),
    ],
    "mongodb": [
        (UP, b"\x3d\0\0\0\1\0\0\0\0\0\0\0\xdd\7\0\0\0\0\0\0\0"),
        (UP, b"\x28\0\0\0\x10hello\0\1\0\0\0\2$db\0\2\0\0\0a\0\3client\0\5\0\0\0\0\0"),
        (DOWN, b"\x25\0\0\0\2\0\0\0\1\0\0\0\xdd\7\0\0"),
    ],
    "redis": [
        (UP, b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n"),
        (DOWN, b"%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n"),
    ],
    "mqtt": [
        (UP, b"\x10\x18\0\4MQTT\5\x82\0\x3c\3!\0\x14\0\2me\0\4user"),
        (DOWN, b"\x20\3\0\0\0"),
        (UP, b"\x82\x0d\0\2\0\x08Bus17Cmd\1"),
    ],
    "amqp": [
        (UP, b"AMQP\0\0\x09\1"),
        (DOWN, b"\1\0\0\0\0\0\x20\0\x0a\0\x0a\0\x09\0\0\0\x0e"),
        (DOWN, b"\7productS\0\0\0\1a\0\0\0\0\0\0\0\0\xce"),
    ],
    "adb": [
        (UP, b"CNXN\1\0\0\1\0\0\x10\0\7\0\0\0\x32\2\0\0\xbc\xb1\xa7\xb1host::\0"),
        (DOWN, b"STLS\0\0\0\1" + bytes(12) + b"\xac\xab\xb3\xac"),
        (UP, b"STLS\0\0\0\1" + bytes(12) + b"\xac\xab\xb3\xac" + HELLO),
    ],
    "smb": [
        (UP, b"\x81\0\0\x44 " + b"CKFDENEC" * 4 + b"\0 " + b"EGFCCACA" * 4 + b"\0"),
        (DOWN, b"\x82\0\0\0"),
        (UP, b"\0\0\0\x40\xfeSMB\x40" + bytes(59)),
        (DOWN, b"\0\0\0\x80\xfeSMB\x40" + bytes(59) + b"\x41\0\1\0\x11\3" + bytes(58)),
        (UP, b"\0\0\0\x80\xfeSMB\x40" + bytes(7) + b"\x09" + bytes(53) + b"\x70" + bytes(45)),
        (UP, b"\5\0\x0b\3\x10\0\0\0\x10\0\0\0\1\0\0\0"),
    ],
    "rpc": [
        (UP, b"\x80\0\0\x28\0\0\0\7\0\0\0\0\0\0\0\2\0\1\x86\xa3\0\0\0\3" + bytes(20)),
        (DOWN, b"\x80\0\0\x18\0\0\0\7\0\0\0\1" + bytes(16)),
        (UP, b"\x80\0\0\x28\0\0\0\7\0\0\0\0\0\0\0\2\0\1\x86\xa3\0\0\0\3\0\0\0\1" + bytes(16)),
    ],
    "dns": [
        (UP, b"\0\x19\x43\x19\1\x20\0\1\0\0\0\0\0\0\3www\3org\0\0\1\0\1"),
        (DOWN, b"\0\x19\x43\x19\x85\0\0\1\0\0\0\0\0\0\3www\3org\0\0\1\0\1"),
    ],
    "kafka": [
        (UP, b"\0\0\0\x12\0\x12\0\3\0\0\0\1\0\2me\0\3me\0021"),
        (DOWN, b"\0\0\1\x5a\0\0\0\1\0\0"),
    ],
    "nats": [
        (DOWN, b'INFO {"server_id":"N","version":"2.1","tls_required":true}\r\n'),
        (UP, b'CONNECT {"lang":"go","pass":"x"}\r\nPING\r\n'),
        (DOWN, b"PONG\r\n"),
    ],
    "memcached": [
        (UP, b"\x80\0\0\3\0\0\0\0\0\0\0\3" + bytes(12) + b"key"),
        (DOWN, b"\x81\0\0\0" + bytes(20)),
    ],
    "cassandra": [
        (UP, b"\4\0\0\0\5\0\0\0\0"),
        (DOWN, b"\x84\0\0\0\6\0\0\0\2\0\0"),
        (UP, b"\4\0\0\1\1\0\0\0\x16\0\1\0\x0bCQL_VERSION\0\x053.0.0"),
    ],
}
CONVERSING = [row for row in PROTOCOLS if row.converse is not None]
each_protocol = pytest.mark.parametrize("row", CONVERSING, ids=lambda row: row.name)


def begin(row: Protocol, context: LayerContext | None = None) -> Conversation:
    assert row.converse is not None
    return row.converse(context or LayerContext())


@dataclass(frozen=True)
class Outcome:
    broken: bool
    details: Details
    moved: tuple[bytes, bytes] | None
    """Per direction; None when broken (all passes then, and how far it came is chance)."""
    events: list[ProtocolEvent] = field(default_factory=list, compare=False)


def follow(conversation: Conversation, script: Iterable[tuple[Direction, bytes]]) -> Outcome:
    """Drive it by the engine, ends included."""
    record = Record()
    context = replace(conversation.context, hold_s=math.inf, expected=None)
    engine = Engine(Rules(), record, context)
    engine.follow(conversation)
    replay = Replay(engine, goes_inside=False)
    replay.play(script)
    if not record.faults and engine.outcome is None:
        replay.play((direction, None) for direction in Direction)
    engine.close()
    events = [event for _, event in record.protocol_events if isinstance(event, ProtocolEvent)]
    if record.faults:
        return Outcome(True, conversation.details(), None, events)
    moved = (bytes(replay.moved[UP]), bytes(replay.moved[DOWN]))
    return Outcome(False, conversation.details(), moved, events)


def in_pieces(script: Script, size: int) -> Script:
    return [
        (direction, data[start : start + size])
        for direction, data in script
        for start in range(0, len(data), size)
    ]


def weight(value: Any) -> int:
    """Bytes that a conversation keeps of what it was fed."""
    if isinstance(value, bytes | bytearray | str):
        return len(value)
    if isinstance(value, dict):
        return sum(weight(key) + weight(item) for key, item in value.items())
    if is_dataclass(value) and not isinstance(value, type):
        return sum(weight(getattr(value, item.name)) for item in fields(value))
    if isinstance(value, Iterable):
        return sum(8 + weight(item) for item in value)
    return 0


@st.composite
def mutated(draw: st.DrawFn, script: Script) -> Script:
    """The session with a few of its bytes and its steps changed."""
    steps = [(direction, bytearray(data)) for direction, data in script]
    for _ in range(draw(st.integers(0, 2))):
        index = draw(st.integers(0, len(steps) - 1))
        match draw(st.sampled_from(("drop", "repeat", "swap", "turn"))):
            case "drop" if len(steps) > 1:
                del steps[index]
            case "repeat":
                steps.insert(index, (steps[index][0], bytearray(steps[index][1])))
            case "swap":
                steps[index], steps[0] = steps[0], steps[index]
            case _:
                steps[index] = (steps[index][0].other, steps[index][1])
    for _ in range(draw(st.integers(0, 3))):
        data = draw(st.sampled_from(steps))[1]
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    tail = draw(st.lists(st.tuples(st.sampled_from(Direction), st.binary(max_size=40)), max_size=2))
    return [(direction, bytes(data)) for direction, data in steps] + tail


def test_every_protocol_that_converses_has_a_session() -> None:
    assert set(SESSIONS) == {row.name for row in CONVERSING}


@each_protocol
@settings(deadline=None)
@given(data=st.data())
def test_any_bytes_raise_protocol_error_or_nothing(row: Protocol, data: st.DataObject) -> None:
    steps = st.tuples(st.sampled_from(Direction), st.binary(max_size=60))
    within = data.draw(st.sampled_from(((), ("tls",), (row.name, "tls"))))
    context = LayerContext(secure=bool(within), stack=within)
    follow(begin(row, context), data.draw(st.lists(steps, max_size=8)))


@each_protocol
@settings(deadline=None)
@given(data=st.data(), size=st.integers(1, 5))
def test_a_mutated_session_means_the_same_however_it_is_split(
    row: Protocol, data: st.DataObject, size: int
) -> None:
    script = data.draw(mutated(SESSIONS[row.name]))
    whole = follow(begin(row), script)
    assert follow(begin(row), in_pieces(script, size)) == whole


@each_protocol
def test_a_flood_in_either_direction_is_kept_within_bounds(row: Protocol) -> None:
    script = SESSIONS[row.name]
    for unit in (b"\x00", b"\xff", b"a", b"220 a\r\n", b"SSH", b"\r\n", b"\x05\x01"):
        # Of what is a line, each weighs 8 at least if it is kept.
        flood = unit * (9 * MAX_PEEK // 4 // (max(len(unit), 8) if b"\n" in unit else len(unit)))
        for direction in Direction:
            pieces = in_pieces([(direction, flood)], 30_000)
            for upto in range(min(len(script), 3) + 1):
                conversation = begin(row)
                follow(conversation, script[:upto] + pieces)
                assert weight(conversation) <= 2 * MAX_PEEK, (unit, direction, upto)


GRPC_WEB: Script = [
    (UP, b"POST /a HTTP/1.1\r\nHost: a.example\r\nContent-Type: application/grpc-web\r\n"),
    (UP, b"Content-Length: 5\r\n\r\n" + bytes(5)),
    (DOWN, ANSWER),
]
CALLS: dict[str, Script] = {
    "http/1": GRPC_WEB,
    "http-connect": [*GRPC_WEB, *SESSIONS["http-connect"]],
    "http/2": [
        *SESSIONS["http/2"],
        (UP, len(CALL).to_bytes(3, "big") + b"\1\4\0\0\0\5" + CALL),
        (UP, b"\0\0\5\0\1\0\0\0\5" + bytes(5)),
    ],
}
"""Sessions with gRPC."""


def test_a_session_gives_every_event_of_its_row_and_all_fit_the_schema() -> None:
    validator = Draft202012Validator(json_schema())
    for name, script in (SESSIONS | CALLS).items():
        row = by_name(name)
        assert row is not None
        payload = SessionPayload().of_flow()
        outcome = follow(begin(row, LayerContext(shown=Shown(payload=payload))), script)
        assert not outcome.broken, name
        contents = outcome.events
        assert {type(content) for content in contents} - {FlowData} == set(row.events), name
        for content in contents:
            validator.validate(json.loads(encode(LayerEvent(flow=1, depth=0, content=content))))
