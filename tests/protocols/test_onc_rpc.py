"""ONC RPC: calls and replies, and the program that a connection is for."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import FORWARD_ALL, PEEK, SWITCH, Direction, Opening, Verdict
from mitml4.protocols.onc_rpc import PROTOCOLS, OncRpc

UP, DOWN = Direction.UP, Direction.DOWN
MATCH, NEED_MORE, REJECT = Verdict.MATCH, Verdict.NEED_MORE, Verdict.REJECT
PORTMAP, NFS, MOUNT = 100000, 100003, 100005


def call(program: int, procedure: int, arguments: bytes = b"") -> bytes:
    words = (7, 0, 2, program, 3, procedure, 0, 0, 0, 0)
    body = b"".join(word.to_bytes(4, "big") for word in words) + arguments
    return (1 << 31 | len(body)).to_bytes(4, "big") + body


REPLY = b"\x80\0\0\x18\0\0\0\7\0\0\0\1" + bytes(16)
CASES = [
    (call(NFS, 0)[:27], NEED_MORE),
    (call(NFS, 0)[:28], MATCH),
    (b"\0" + call(NFS, 0)[1:], MATCH),  # not the last fragment
    (b"\x40" + call(NFS, 0)[1:], REJECT),
    (call(NFS, 0)[:8] + b"\0\0\0\2", REJECT),  # neither call nor reply
    (call(NFS, 0)[:12] + b"\0\0\0\3", REJECT),  # another version of RPC
    (call(0x60000000, 0), REJECT),
    (call(2, 0), REJECT),
    (b"\x80\0\0\x27", NEED_MORE),  # too short a call, but not a reply
    (b"\x80\0\0\x27" + call(NFS, 0)[4:12], REJECT),
    (b"\x80\0\0\x0f", REJECT),
    (REPLY[:-5], MATCH),  # a capture of the replies
    (REPLY[:12] + b"\0\0\0\2", REJECT),
    (b"\0" + REPLY[1:], REJECT),
]


def test_what_an_opening_is_worth() -> None:
    for up, verdict in CASES:
        detect = PROTOCOLS[0].detect
        assert detect is not None
        assert detect(Opening(up=up)) is verdict


@pytest.mark.parametrize("chunk", [None, 1, 7])
@pytest.mark.parametrize(("program", "name"), [(NFS, "nfs"), (PORTMAP, "portmap")])
def test_the_inner_name_comes_with_a_call_that_does_something(
    converse: Any, program: int, name: str, chunk: int | None
) -> None:
    conversation = OncRpc()
    null, real = call(program, 0), call(program, 3, b"arguments")
    talk = converse(conversation, [(UP, null), (DOWN, REPLY)], chunk=chunk)
    assert conversation.details_ready
    assert conversation.inner is None
    assert not talk.kept[UP]
    assert bytes(talk.moved[DOWN]) == REPLY
    talk = converse(conversation, [(UP, real), (DOWN, REPLY)], chunk=chunk)
    assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
    assert conversation.inner == name
    assert bytes(talk.kept[UP]) == real
    assert conversation.details().program == name
    assert conversation.details().version == 3


def test_a_program_without_a_name_has_no_inner_layer(converse: Any) -> None:
    conversation = OncRpc()
    talk = converse(conversation, [(UP, call(MOUNT, 1)), (DOWN, REPLY)])
    assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
    assert conversation.details().program == MOUNT
    assert not talk.kept[UP]


@pytest.mark.parametrize(("procedure", "inner"), [(0, None), (1, "nfs")])
def test_a_call_in_several_fragments_is_looked_at_once(
    converse: Any, procedure: int, inner: str | None
) -> None:
    conversation = OncRpc()
    converse(conversation, [(UP, b"\0" + call(NFS, procedure)[1:]), (UP, b"\x80\0\0\1x")])
    assert conversation.inner == inner
    assert conversation.up is (SWITCH if inner else FORWARD_ALL)
    assert conversation.details().program == "nfs"


def test_nothing_is_known_before_a_call(converse: Any) -> None:
    conversation = OncRpc()
    converse(conversation, [(UP, call(NFS, 0)[:20])])
    assert not conversation.details_ready
    assert conversation.details().program is None
    assert conversation.up is PEEK


def test_what_is_no_call_is_an_error(converse: Any) -> None:
    with pytest.raises(ProtocolError):
        converse(OncRpc(), [(UP, call(NFS, 0)), (UP, b"hello")])
