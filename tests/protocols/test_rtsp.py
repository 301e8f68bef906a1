"""RTSP: its request line among HTTP's and SIP's, and the first heads."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.protocols.conversation import FORWARD_ALL, SWITCH, Direction, Opening, Verdict
from mitml4.protocols.rtsp import Rtsp, RtspDetails, detect

UP, DOWN = Direction.UP, Direction.DOWN


@pytest.mark.parametrize("chunk", [None, 1])
def test_the_first_request_and_its_answer_are_told(converse: Any, chunk: int | None) -> None:
    conversation = Rtsp()
    script = [
        (UP, b"DESCRIBE rtsp://me:pw@a/b RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: VLC\r\n\r\n"),
        (DOWN, b"RTSP/1.0 200 OK\r\nServer: GStreamer\r\nContent-Length: 3\r\n\r\nv=0"),
        (UP, b"PLAY rtsp://other RTSP/1.0\r\nUser-Agent: none\r\n\r\n"),
    ]
    talk = converse(conversation, script, chunk=chunk)
    assert not talk.kept[UP]
    assert conversation.details_ready
    assert conversation.details() == RtspDetails(
        method=b"DESCRIBE",
        uri=b"rtsp://me:<redacted, 2 bytes>@a/b",
        user_agent=b"VLC",
        server=b"GStreamer",
    )


FRAME = b"$\0\0\x10" + b"\x80\x60\n\n" + bytes(12)
INTERLEAVED = [
    (UP, b"DESCRIBE rtsp://a/b RTSP/1.0\r\nCSeq: 1\r\n\r\n"),
    (DOWN, b"RTSP/1.0 200 OK\r\nContent-Type: application/sdp\r\nContent-Length: 3\r\n\r\n$=0"),
    (UP, b"SETUP rtsp://a/b RTSP/1.0\r\nTransport: RTP/AVP/TCP;interleaved=0-1\r\n\r\n"),
    (DOWN, b"RTSP/1.0 200 OK\r\nTransport: RTP/AVP/TCP;interleaved=0-1\r\n\r\n"),
]


@pytest.mark.parametrize("chunk", [None, 1])
def test_frames_among_the_messages_are_a_layer_inside(converse: Any, chunk: int | None) -> None:
    conversation = Rtsp()
    converse(conversation, INTERLEAVED, chunk=chunk)
    assert conversation.inner is None
    conversation = Rtsp()
    converse(conversation, [*INTERLEAVED, (DOWN, FRAME)], chunk=chunk)
    assert conversation.inner == "rtp"
    assert (conversation.up, conversation.down) == (SWITCH, SWITCH)


def test_frames_that_were_not_agreed_on_or_come_when_one_side_is_over_are_no_layer(
    converse: Any,
) -> None:
    for script in ([*INTERLEAVED[:2], (DOWN, FRAME)], [*INTERLEAVED, (UP, None), (DOWN, FRAME)]):
        conversation = Rtsp()
        converse(conversation, script)
        assert conversation.inner is None
        assert conversation.down is FORWARD_ALL


def test_what_is_no_request_tells_nothing(converse: Any) -> None:
    conversation = Rtsp()
    converse(conversation, [(UP, b"$\0\0\4binary\n\n")])
    assert conversation.details() == RtspDetails()


def test_detection_by_request_line() -> None:
    for up, verdict in (
        (b"", Verdict.NEED_MORE),
        (b"OPTIONS rt", Verdict.NEED_MORE),
        (b"OPTIONS rtsp", Verdict.NEED_MORE),
        (b"OPTIONS rtsps://a b RTSP/1.0\r", Verdict.NEED_MORE),
        (b"OPTIONS rtspu://a RTSP/1.0\r\n", Verdict.MATCH),
        (b"OPTIONS * RTSP/2.0\n", Verdict.MATCH),
        (b"OPTIONS * RT", Verdict.NEED_MORE),
        (b"OPTIONS * HT", Verdict.NEED_MORE),
        (b"DESCRIBE /stream RTSP/1.0\r\n", Verdict.MATCH),
        (b"RTSP/1.0 200 OK\r\n", Verdict.MATCH),
        (b"\r\nOPTIONS * RTSP/1.0\r\n", Verdict.MATCH),
        (b"\r\n", Verdict.NEED_MORE),
        (b"OPTIONS * HTTP/1.1\r\n", Verdict.REJECT),
        (b"OPTIONS rtsp://a HTTP/1.1\r\n", Verdict.REJECT),
        (b"OPTIONS sip:a SIP/2.0\r\n", Verdict.REJECT),
        (b"GET / HTTP/1.1\r\n", Verdict.REJECT),
        (b"PLAY \x00", Verdict.REJECT),
        (b"get rtsp://a", Verdict.REJECT),
    ):
        assert detect(Opening(up=up)) is verdict


@pytest.mark.parametrize(
    ("down", "verdict"),
    [
        (b"RTSP/1.0 ", Verdict.NEED_MORE),
        (b"RTSP/1.0 200 OK", Verdict.LIKELY),
        (b"HTTP/1.1 200 OK", Verdict.REJECT),
    ],
)
def test_detection_by_the_answer_alone(down: bytes, verdict: Verdict) -> None:
    assert detect(Opening(down=down)) is verdict
