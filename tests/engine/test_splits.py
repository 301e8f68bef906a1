"""No split of the bytes gives another answer: layers, events and moved bytes are the same."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitml4.engine.engine import Engine
from mitml4.engine.replay import Record, Replay, Step
from mitml4.engine.rules import HOLD_S, Rules
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import Direction

UP, DOWN = Direction.UP, Direction.DOWN

GET = b"GET /x HTTP/1.1\r\nHost: example.org\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"
HELLO = b"\x16\x03\x01\0\x30\x01\0\0\x2c\x03\x03" + bytes(32) + b"\0\0\x02\x13\x01\x01\0"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SOCKS5: list[Step] = [
    (UP, b"\x05\x01\x00"),
    (DOWN, b"\x05\x00"),
    (UP, b"\x05\x01\x00\x03\x0bexample.org\x00\x50"),
    (DOWN, b"\x05\x00\x00\x01\0\0\0\0\0\0"),
]
UPGRADE: list[Step] = [
    (UP, GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
    (DOWN, SWITCHING + b"\x81\x02hi"),
    (UP, b"\x81\x82\0\0\0\0ho\x88\x80\0\0\0\0"),
]
ENDS: list[Step] = [(UP, None), (DOWN, None)]
SCRIPTS: dict[str, list[Step]] = {
    "socks5, http/1": [*SOCKS5, (UP, GET), (DOWN, OK), (UP, GET + GET), (DOWN, OK + OK)],
    "socks5, http/1, websocket": [*SOCKS5, *UPGRADE],
    "http-connect, socks5, tls": [
        (UP, b"CONNECT example.org:1080 HTTP/1.1\r\nHost: example.org\r\n\r\n"),
        (DOWN, b"HTTP/1.1 200 OK\r\n\r\n"),
        *SOCKS5,
        (UP, HELLO),
    ],
    "smtp, tls": [
        (DOWN, b"220 mx.example ESMTP\r\n"),
        (UP, b"EHLO me\r\n"),
        (DOWN, b"250-mx.example\r\n250 STARTTLS\r\n"),
        (UP, b"STARTTLS\r\n"),
        (DOWN, b"220 go\r\n"),
        (UP, HELLO),
    ],
    "http/2": [
        (UP, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0\0\0\3\1\5\0\0\0\1\x82\x86\x84"),
        (DOWN, b"\0\0\0\4\0\0\0\0\0\0\0\1\1\5\0\0\0\1\x88"),
    ],
    "http-connect, refused, and a request that waits": [
        (UP, b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n" + GET),
        (DOWN, b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n" + OK),
    ],
    "smtp, refused, and commands that wait": [
        (DOWN, b"220 mx.example ESMTP\r\n"),
        (UP, b"EHLO me\r\n"),
        (DOWN, b"250-mx.example\r\n250 STARTTLS\r\n"),
        (UP, b"STARTTLS\r\nNOOP\r\nSTARTTLS\r\n" + HELLO),
        (DOWN, b"454 no\r\n250 ok\r\n220 go\r\n"),
    ],
    "a request that breaks off": [(UP, GET + GET[:20])],
    "broken": [*SOCKS5[:3], (DOWN, b"\x09\x09\x09\x09"), (UP, b"more")],
    "nobody's": [(DOWN, b"\xff\0hello"), (UP, b"\0\1\2\3 nothing at all")],
}


def play(script: list[Step]) -> tuple[object, ...]:
    record = Record()
    replay = Replay(Engine(Rules(), record, LayerContext(hold_s=HOLD_S)))
    replay.play(script)
    replay.engine.close()
    moved = {direction: bytes(replay.moved[direction]) for direction in Direction}
    return record.layers, record.protocol_events, record.faults, moved, replay.over


def test_bytes_that_moved_ahead_of_a_fault_do_not_move_again() -> None:
    """The fault comes with the message whose first bytes have moved."""
    said = GET + b"GET\t/ HTTP/1.1\r\n\r\nhello"
    whole = play([(UP, said), *ENDS])
    for at in range(1, len(said)):
        assert play([(UP, said[:at]), (UP, said[at:]), *ENDS]) == whole


def test_what_is_told_of_a_layer_has_what_the_answer_shows() -> None:
    """The request's event waits for it, since events are told behind their layer."""
    asked = (UP, b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n")
    connect: list[Step] = [asked, (DOWN, b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")]
    for script, name, value, events in (
        (UPGRADE, "upgrade", "websocket", 6),
        (UPGRADE[:1], "upgrade", None, 2),
        ([UPGRADE[0], (DOWN, OK)], "upgrade", None, 3),
        (connect, "status", 407, 3),
        (connect[:1], "status", None, 2),
    ):
        layers, told, *_ = play([*script, *ENDS])
        assert isinstance(layers, list)
        assert isinstance(told, list)
        assert getattr(layers[0][3], name) == value
        assert len(told) == events


@pytest.mark.parametrize("name", SCRIPTS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_no_split_gives_another_answer(name: str, data: st.DataObject) -> None:
    script = SCRIPTS[name] + ENDS
    size = data.draw(st.integers(1, 40))
    pieces: list[Step] = []
    for direction, said in script:
        if said is None:
            pieces.append((direction, None))
            continue
        cuts = [
            *data.draw(st.lists(st.integers(0, len(said)), max_size=3)),
            *range(0, len(said), size),
        ]
        places = sorted({0, *cuts, len(said)})
        pieces += [(direction, said[start:end]) for start, end in itertools.pairwise(places)]
    assert play(pieces) == play(script)
