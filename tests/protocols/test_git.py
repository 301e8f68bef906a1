"""Git's own transport: one request, and what it wants."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import FORWARD_ALL, Direction, LayerContext, Opening, Verdict
from mitml4.protocols.git import PROTOCOL, GitDetails, detect

UP, DOWN = Direction.UP, Direction.DOWN
FETCH, PUSH = b"git-upload-pack", b"git-receive-pack"


@pytest.mark.parametrize("chunk", [None, 1, 7])
@pytest.mark.parametrize(
    ("request_bytes", "details"),
    [
        (
            b"0029git-upload-pack /a\0host=b\0\0version=2\0",
            GitDetails(command=FETCH, path=b"/a", host=b"b"),
        ),
        (b"0019git-receive-pack /ab\0", GitDetails(command=PUSH, path=b"/ab", host=None)),
        (b"0017git-upload-pack /a\n", GitDetails(command=FETCH, path=b"/a", host=None)),
    ],
)
def test_the_request_is_told_and_the_rest_passes(
    converse: Any, request_bytes: bytes, details: GitDetails, chunk: int | None
) -> None:
    assert PROTOCOL.converse is not None
    conversation = PROTOCOL.converse(LayerContext())
    script = [(UP, request_bytes + b"0000"), (DOWN, b"000eversion 2\n")]
    talk = converse(conversation, script, chunk=chunk)
    assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
    assert not talk.kept[UP]
    assert conversation.details_ready
    assert conversation.details() == details


def test_a_request_without_a_length_breaks_the_protocol(converse: Any) -> None:
    assert PROTOCOL.converse is not None
    with pytest.raises(ProtocolError):
        converse(PROTOCOL.converse(LayerContext()), [(UP, b"0xyzgit-upload-pack /a\0")])


def test_detection_by_length_and_command() -> None:
    for up, verdict in (
        (b"00", Verdict.NEED_MORE),
        (b"0032", Verdict.NEED_MORE),
        (b"0032git-", Verdict.NEED_MORE),
        (b"0032git-upload-pack", Verdict.NEED_MORE),
        (b"0032git-upload-pack ", Verdict.MATCH),
        (b"002Egit-receive-pack /a", Verdict.MATCH),
        (b"0032git-annex", Verdict.REJECT),
        (b"003xgit-upload-pack ", Verdict.REJECT),
        (b"1032git-upload-pack ", Verdict.REJECT),
        (b"0032want", Verdict.REJECT),
    ):
        assert detect(Opening(up=up)) is verdict


def test_the_server_never_speaks_first() -> None:
    assert detect(Opening(down=b"0032")) is Verdict.NEED_MORE
    assert detect(Opening(down=b"0032", up_ended=True)) is Verdict.REJECT
