"""Telnet: negotiations of known options, three of them."""

from __future__ import annotations

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.telnet import detect

DO_TERMINAL, WILL_TERMINAL = b"\xff\xfd\x18", b"\xff\xfb\x18"
SIZE = b"\xff\xfa\x1f\x00\x50\x00\x18\xff\xf0"
THREE = b"\xff\xfd\x18\xff\xfd\x20\xff\xfb\x01"


def test_three_commands_of_known_options() -> None:
    for up, down, verdict in (
        (b"", b"\xff\xfd", Verdict.NEED_MORE),
        (b"", THREE[:-1], Verdict.NEED_MORE),
        (b"", THREE + b"login: ", Verdict.LIKELY),
        (b"", b"login: ", Verdict.REJECT),
        (b"", b"\xff\xff", Verdict.REJECT),
        (b"\xff", THREE, Verdict.NEED_MORE),
        (WILL_TERMINAL, THREE, Verdict.MATCH),
        (WILL_TERMINAL + SIZE, DO_TERMINAL, Verdict.MATCH),
        (WILL_TERMINAL, DO_TERMINAL, Verdict.NEED_MORE),
        (THREE, b"", Verdict.MATCH),
        (THREE, b"login: ", Verdict.MATCH),
        (WILL_TERMINAL + b"root\r\n", DO_TERMINAL, Verdict.NEED_MORE),
        (b"root\r\n", THREE, Verdict.REJECT),
        (b"GET / HTTP/1.1\r\n", THREE, Verdict.REJECT),
        (b"\xff\xfb\x7f", THREE, Verdict.REJECT),
        (b"\xff" * 16, b"", Verdict.REJECT),
    ):
        assert detect(Opening(up=up, down=down)) is verdict


def test_a_server_alone_is_enough_once_the_client_has_ended() -> None:
    assert detect(Opening(down=THREE, up_ended=True)) is Verdict.MATCH
