"""Messages of a WebSocket, between what two ends of `websockets` write and read."""

from __future__ import annotations

from collections.abc import Callable, Generator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from mitml4.edit.websocket import MessageEdit, Pending
from mitml4.payload.deflate import Deflate, negotiated
from mitml4.protocols.conversation import Direction

UP, DOWN = Direction.UP, Direction.DOWN
LIMIT = 10_000


def extension(deflate: Deflate) -> PerMessageDeflate:
    """Of the server, which writes."""
    return PerMessageDeflate(
        not deflate.client_keeps_context,
        not deflate.server_keeps_context,
        deflate.client_window_bits,
        deflate.server_window_bits,
    )


def reader(deflate: Deflate) -> PerMessageDeflate:
    """Of the client, which reads."""
    return PerMessageDeflate(
        not deflate.server_keeps_context,
        not deflate.client_keeps_context,
        deflate.server_window_bits,
        deflate.client_window_bits,
    )


def read(data: bytes, extensions: list[PerMessageDeflate]) -> list[bytes]:
    """The contents of data messages."""
    at, messages, current = 0, [], b""

    def exactly(count: int) -> Generator[None, None, bytes]:
        nonlocal at
        at += count
        assert at <= len(data)
        yield from ()
        return data[at - count : at]

    while at < len(data):
        parsing = Frame.parse(exactly, mask=False, extensions=extensions)
        try:
            while True:
                next(parsing)
        except StopIteration as done:
            frame = done.value
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            current += frame.data
            if frame.fin:
                messages.append(bytes(current))
                current = b""
    return messages


def through(edit: MessageEdit, data: bytes, change: Callable[[bytes], bytes], split: int) -> bytes:
    out = b""
    for at in range(0, len(data), split):
        for item in edit.receive(data[at : at + split]):
            if isinstance(item, Pending):
                item.message.content = change(item.message.content)
                out += edit.encode(item)
            else:
                out += item
    return out


OFFERS = (
    b"permessage-deflate",
    b"permessage-deflate; server_no_context_takeover",
    b"permessage-deflate; server_max_window_bits=10",
)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from((None, *OFFERS)),
    st.lists(st.sampled_from([b"", b"keep this", b"a secret", b"secret" * 100]), max_size=8),
    st.integers(1, 50),
    st.booleans(),
)
def test_what_is_changed_arrives_changed(
    offer: bytes | None, contents: list[bytes], split: int, fragmented: bool
) -> None:
    deflate = negotiated(offer)
    writes = [extension(deflate)] if deflate else []
    reads = [reader(deflate)] if deflate else []
    data = b""
    for content in contents:
        half = len(content) // 2
        frames = [Frame(Opcode.BINARY, content)]
        if fragmented:
            frames = [
                Frame(Opcode.BINARY, content[:half], fin=False),
                Frame(Opcode.PING, b"p"),
                Frame(Opcode.CONT, content[half:]),
            ]
        data += b"".join(each.serialize(mask=False, extensions=writes) for each in frames)

    def change(content: bytes) -> bytes:
        return content.replace(b"secret", b"public thing")

    edit = MessageEdit(DOWN, deflate, LIMIT)
    assert read(through(edit, data, change, split), reads) == [change(each) for each in contents]
    same = MessageEdit(DOWN, deflate, LIMIT)
    unchanged = through(same, data, lambda content: content, split)
    # A control frame between fragments goes before them, since the message waits for its end.
    assert sorted(unchanged) == sorted(data) if fragmented else unchanged == data


def test_a_client_masks_what_was_changed() -> None:
    frame = Frame(Opcode.TEXT, b"secret").serialize(mask=True)
    out = through(MessageEdit(UP, None, LIMIT), frame, lambda _: b"public", 3)
    assert out[1] & 0x80
    assert b"public" not in out


@pytest.mark.parametrize("offer", [None, *OFFERS])
def test_a_message_above_the_limit_passes(offer: bytes | None) -> None:
    deflate = negotiated(offer)
    writes = [extension(deflate)] if deflate else []
    contents = [b"small", bytes(range(256)) * 4000, b"small"]
    data = b"".join(
        Frame(Opcode.BINARY, each).serialize(mask=False, extensions=writes) for each in contents
    )
    edit = MessageEdit(DOWN, deflate, 100)
    reads = [reader(deflate)] if deflate else []
    assert read(through(edit, data, lambda content: content, 100), reads) == contents


@pytest.mark.parametrize(
    "data", [b"\x83\x00more", b"\xc1\x01a", b"\x80\x00", b"\x89\xff" + b"a" * 20]
)
def test_what_cannot_be_read_passes(data: bytes) -> None:
    edit = MessageEdit(DOWN, None, LIMIT)
    assert through(edit, data + b"rest", lambda _: b"", 1) == data + b"rest"
    assert edit.is_broken
