"""The rsync daemon's protocol: versions in either order, and the module."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import FORWARD_ALL, Direction, Opening, Verdict
from mitml4.protocols.rsync import MAX_LINE, Rsync, RsyncDetails, detect

UP, DOWN = Direction.UP, Direction.DOWN
CLIENT, SERVER = (UP, b"@RSYNCD: 31.0\n"), (DOWN, b"@RSYNCD: 32.0 sha512 md5\n")
MODULE = (UP, b"home\n")


@pytest.mark.parametrize("chunk", [None, 1, 5])
@pytest.mark.parametrize(
    "script",
    [
        [SERVER, CLIENT, MODULE],
        [CLIENT, SERVER, MODULE],
        [(UP, CLIENT[1] + MODULE[1] + b"\0\n"), SERVER],
    ],
)
def test_versions_and_module_are_told_and_the_rest_passes(
    converse: Any, script: Any, chunk: int | None
) -> None:
    conversation = Rsync()
    talk = converse(conversation, [*script, (DOWN, b"motto"), (UP, b"\0")], chunk=chunk)
    assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
    assert not talk.kept[UP]
    assert not talk.kept[DOWN]
    assert conversation.details_ready
    assert conversation.details() == RsyncDetails(
        client_version=b"31.0", server_version=b"32.0", module=b"home"
    )


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize(
    "script",
    [[(UP, b"home\n")], [(DOWN, b"@RSYNCD: EXIT\n")], [CLIENT, (UP, b"x" * 2 * MAX_LINE)]],
)
def test_bytes_that_break_the_protocol_raise_protocol_error(
    converse: Any, script: Any, chunk: int | None
) -> None:
    with pytest.raises(ProtocolError):
        converse(Rsync(), script, chunk=chunk)


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (b"@RSYNC", Verdict.NEED_MORE),
        (b"@RSYNCD: ", Verdict.NEED_MORE),
        (b"@RSYNCD: 3", Verdict.MATCH),
        (b"@RSYNCD: OK", Verdict.REJECT),
        (b"@ERROR: x", Verdict.REJECT),
    ],
)
def test_detection_by_version(data: bytes, verdict: Verdict) -> None:
    assert detect(Opening(up=data)) is verdict
    alone = Verdict.LIKELY if verdict is Verdict.MATCH else verdict
    assert detect(Opening(down=data)) is alone
