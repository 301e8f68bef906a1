from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import MIRROR, Direction
from mitml4.protocols.http.websocket import PROTOCOL, WebSocket, WebSocketMessage

UP, DOWN = Direction.UP, Direction.DOWN
Converse = Callable[..., Any]
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(opcode: int, size: int, *, fin: bool = True, mask: bool = False, rsv: int = 0) -> bytes:
    """A frame with its length in the shortest form (RFC 6455 §5.2)."""
    first = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    masked = 0x80 if mask else 0
    if size < 126:
        length = bytes([masked | size])
    elif size < 65536:
        length = bytes([masked | 126]) + size.to_bytes(2)
    else:
        length = bytes([masked | 127]) + size.to_bytes(8)
    return first + length + (b"mask" if mask else b"") + b"\x81" * size


# name: (frames, (opcode, size) of each message)
STREAMS = {
    "each kind": (
        [frame(TEXT, 5), frame(BINARY, 0), frame(PING, 4), frame(PONG, 4), frame(CLOSE, 2)],
        [("text", 5), ("binary", 0), ("ping", 4), ("pong", 4), ("close", 2)],
    ),
    "each form of a length": (
        [frame(BINARY, size) for size in (125, 126, 65535, 65536)],
        [("binary", 125), ("binary", 126), ("binary", 65535), ("binary", 65536)],
    ),
    "fragments with a control frame between": (
        [
            *(frame(TEXT, 3, fin=False), frame(CONTINUATION, 200, fin=False)),
            *(frame(PING, 1), frame(CONTINUATION, 4), frame(BINARY, 1)),
        ],
        [("ping", 1), ("text", 207), ("binary", 1)],
    ),
    "compressed": ([frame(TEXT, 7, rsv=4)], [("text", 7)]),
    "not ended": ([frame(TEXT, 7)[:-1]], []),
}


def by_bytes(frames: Iterable[bytes]) -> Iterator[bytes]:
    """Byte by byte, except that most of a long frame's data is one piece."""
    for each in frames:
        yield from (each[at : at + 1] for at in range(min(len(each), 200)))
        yield from filter(None, (each[200:-1], each[200:][-1:]))


def test_every_split_gives_the_same_messages(converse: Converse) -> None:
    for direction in Direction:
        for chunk in (None, 1, 1000):
            for name in STREAMS:
                frames, messages = STREAMS[name]
                conversation = WebSocket()
                assert (conversation.up, conversation.down, conversation.details_ready) == (
                    MIRROR,
                    MIRROR,
                    True,
                )
                pieces = by_bytes(frames) if chunk == 1 else [b"".join(frames)]
                script = [(direction, piece) for piece in pieces]
                talk = converse(conversation, script, chunk=None if chunk == 1 else chunk)
                assert talk.protocol_events == [
                    WebSocketMessage(direction=direction, opcode=opcode, size=size)
                    for opcode, size in messages
                ]


def test_a_mask_is_no_part_of_the_size(converse: Converse) -> None:
    script = [(UP, frame(TEXT, 5, mask=True) + frame(BINARY, 300, mask=True))]
    assert [
        protocol_event.size for protocol_event in converse(WebSocket(), script).protocol_events
    ] == [5, 300]


def test_the_directions_do_not_mix(converse: Converse) -> None:
    script = [(UP, frame(TEXT, 3, fin=False)), (DOWN, frame(BINARY, 1)), (UP, frame(0, 2))]
    messages = [
        (item.direction, item.size) for item in converse(WebSocket(), script).protocol_events
    ]
    assert messages == [(DOWN, 1), (UP, 5)]


@pytest.mark.parametrize(
    "stream",
    [
        frame(3, 0),
        frame(0xB, 0),
        frame(CONTINUATION, 1),
        frame(TEXT, 1, fin=False) + frame(TEXT, 1),
        frame(PING, 126),
        frame(CLOSE, 2, fin=False),
        b"\x82\x7f\x80" + bytes(7),
    ],
)
def test_what_is_no_websocket_is_given_up(stream: bytes, converse: Converse) -> None:
    with pytest.raises(ProtocolError):
        converse(WebSocket(), [(UP, stream)])


@given(
    fragments=st.lists(st.tuples(st.booleans(), st.integers(0, 300)), max_size=8),
    chunk=st.integers(1, 40),
)
def test_fragments_add_up(
    fragments: list[tuple[bool, int]], chunk: int, converse: Converse
) -> None:
    stream, sizes, size, inside = b"", [], 0, False
    for fin, length in fragments:
        stream += frame(CONTINUATION if inside else BINARY, length, fin=fin)
        size += length
        inside = not fin
        if fin:
            sizes.append(size)
            size = 0
    talk = converse(WebSocket(), [(DOWN, stream)], chunk=chunk)
    assert [protocol_event.size for protocol_event in talk.protocol_events] == sizes


def test_it_is_never_detected_from_bytes_alone() -> None:
    assert PROTOCOL.detect is None
