"""NATS: INFO, and whether the client answers with CONNECT or with TLS."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    PEEK,
    SWITCH,
    Direction,
    LayerContext,
    Opening,
    Verdict,
)
from mitml4.protocols.nats import Nats, detect

UP, DOWN = Direction.UP, Direction.DOWN

INFO = b'INFO {"server_id":"NA","server_name":"n1","version":"2.10.4","headers":true} \r\n'
SECURE = INFO.replace(b'"headers"', b'"tls_required"')
CONNECT = (
    b'CONNECT {"verbose":false,"user":"u","pass":"secret","auth_token":"secret",'
    b'"lang":"go","version":"1.31.0","name":"shop"}\r\n'
)
HELLO = b"\x16\x03\x01\x02\x00"


@pytest.mark.parametrize("chunk", [None, 1, 7])
@pytest.mark.parametrize("info", [INFO, SECURE])
def test_tls_begins_where_the_client_begins_it(
    converse: Any, info: bytes, chunk: int | None
) -> None:
    conversation = Nats()
    script = [(DOWN, info), (UP, HELLO), (DOWN, b"\x16")]
    talk = converse(conversation, script, chunk=chunk)
    assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
    assert (talk.kept[UP], talk.kept[DOWN]) == (HELLO, b"\x16")
    assert conversation.details_ready
    details = conversation.details()
    assert (details.server_name, details.server_version) == ("n1", "2.10.4")
    assert (details.tls_required, details.upgraded) == (info is SECURE, True)


@pytest.mark.parametrize("chunk", [None, 1, 7])
def test_a_connect_tells_the_client_and_no_secret(converse: Any, chunk: int | None) -> None:
    conversation = Nats()
    script = [(DOWN, INFO), (UP, CONNECT + b"PING\r\n"), (DOWN, b"PONG\r\n")]
    talk = converse(conversation, script, chunk=chunk)
    assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
    assert conversation.details_ready
    assert talk.moved[UP] == CONNECT + b"PING\r\n"
    assert conversation.details().client == "go 1.31.0 shop"
    assert "secret" not in repr(conversation)


def test_the_server_may_speak_again_while_it_waits(converse: Any) -> None:
    conversation = Nats()
    more = b"-ERR 'Authentication Timeout'\r\n"
    talk = converse(conversation, [(DOWN, INFO + more)])
    assert talk.moved[DOWN] == INFO + more
    assert conversation.directive(UP) is PEEK
    converse(conversation, [(UP, HELLO)])
    assert conversation.directive(UP) is SWITCH


def test_inside_its_tls_the_client_goes_on_with_connect(converse: Any) -> None:
    conversation = Nats(context=LayerContext(secure=True, stack=("nats", "tls")))
    converse(conversation, [(UP, CONNECT), (DOWN, b"PONG\r\n")])
    assert conversation.details_ready
    assert conversation.details().client == "go 1.31.0 shop"


@pytest.mark.parametrize(
    "script",
    [
        [(DOWN, INFO), (UP, b"PING\r\n")],
        [(UP, HELLO)],
        [(DOWN, INFO), (UP, None)],
        [(UP, b"CONNECT {}\n")],
    ],
)
def test_everything_else_passes(converse: Any, script: Any) -> None:
    conversation = Nats()
    talk = converse(conversation, script)
    assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
    assert conversation.details_ready
    assert not talk.kept[UP]


@pytest.mark.parametrize(
    "script",
    [
        [(DOWN, b"HELLO {}\r\n")],
        [(DOWN, b'INFO {"server_id" broken}\r\n')],
        [(DOWN, b'INFO {"server_id": ' + b"[" * 20_000 + b"\r\n")],
        [(DOWN, INFO), (UP, b"CONNECT {[]\r\n")],
        [(DOWN, INFO), (UP, b"CONNECT {" + b" " * 40_000)],
    ],
)
def test_bytes_that_break_the_protocol_raise_protocol_error(converse: Any, script: Any) -> None:
    with pytest.raises(ProtocolError, match="nats"):
        converse(Nats(), script)


def test_detection_by_info_or_connect() -> None:
    for up, down, verdict in (
        (b"", b"", Verdict.NEED_MORE),
        (b"", b"INFO ", Verdict.NEED_MORE),
        (b"", INFO[:6], Verdict.LIKELY),
        (b"", INFO[:-1], Verdict.LIKELY),
        (b"", INFO, Verdict.MATCH),
        (b"", b'INFO {"name":"x"}\r\n', Verdict.REJECT),
        (b"", b"INFO: hello", Verdict.REJECT),
        (b"CONNECT ", INFO, Verdict.MATCH),
        (b"CONNECT ", b"220 hello\r\n", Verdict.NEED_MORE),
        (HELLO, INFO, Verdict.REJECT),
        (CONNECT[:9], b"", Verdict.MATCH),
        (CONNECT, INFO, Verdict.MATCH),
        (b"CONNECT a:443 HTTP/1.1\r\n", b"", Verdict.REJECT),
        (b"CONNECT\naccept-version:1.2\n", b"", Verdict.REJECT),  # STOMP
    ):
        assert detect(Opening(up=up, down=down)) is verdict
