"""SIP: its first lines among HTTP's and RTSP's, and the first heads."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.protocols.conversation import Direction, Opening, Verdict
from mitml4.protocols.sip import Sip, SipDetails, detect

UP, DOWN = Direction.UP, Direction.DOWN
REGISTER = b"REGISTER sip:a.example SIP/2.0\r\nUser-Agent: Zoiper\r\n\r\n"
ANSWER = b"SIP/2.0 200 OK\r\nServer: kamailio\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize(
    ("script", "details"),
    [
        (
            [(UP, b"\r\n\r\n"), (DOWN, b"\r\n"), (UP, REGISTER), (DOWN, ANSWER)],
            SipDetails(
                method=b"REGISTER",
                uri=b"sip:a.example",
                user_agent=b"Zoiper",
                server=b"kamailio",
            ),
        ),
        (
            [(UP, REGISTER.replace(b"sip:a.example", b"sip:me:pw@a.example", 1)), (DOWN, ANSWER)],
            SipDetails(
                method=b"REGISTER",
                uri=b"sip:me:<redacted, 2 bytes>@a.example",
                user_agent=b"Zoiper",
                server=b"kamailio",
            ),
        ),
        (
            [(UP, ANSWER), (DOWN, REGISTER)],
            SipDetails(
                method=b"REGISTER",
                uri=b"sip:a.example",
                user_agent=b"kamailio",
                server=b"Zoiper",
            ),
        ),
    ],
)
def test_the_first_head_of_each_side_is_told(
    converse: Any, script: Any, details: SipDetails, chunk: int | None
) -> None:
    conversation = Sip()
    converse(conversation, script, chunk=chunk)
    assert conversation.details_ready
    assert conversation.details() == details


def test_detection_by_first_line() -> None:
    for data, verdict in (
        (b"\r\n\r\n", Verdict.NEED_MORE),
        (b"INVITE s", Verdict.NEED_MORE),
        (b"INVITE sip:a SIP/2.0\r", Verdict.NEED_MORE),
        (b"INVITE sip:a SIP/2.0\r\n", Verdict.MATCH),
        (b"\r\n\r\nINVITE tel:122 SIP/2.0\n", Verdict.MATCH),
        (b"SIP/2.0 100 Trying\r\n", Verdict.MATCH),
        (b"SIP/2.0 1", Verdict.NEED_MORE),
        (b"SIP/2.0 000 x", Verdict.REJECT),
        (b"GET sip:a HTTP/1.1\r\n", Verdict.REJECT),
        (b"A sip:", Verdict.REJECT),
        (b"OPTIONS foo SIP/2.0\r\n", Verdict.MATCH),
        (b"INVITE a b", Verdict.REJECT),
        (b"OPTIONS * RTSP/1.0\r\n", Verdict.REJECT),
        (b"\r\n\r\n\0\r\nQUIT\n", Verdict.REJECT),
    ):
        assert detect(Opening(up=data)) is verdict
        alone = Verdict.LIKELY if verdict is Verdict.MATCH else verdict
        assert detect(Opening(down=data)) is alone
