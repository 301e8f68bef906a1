"""SSH: both orders, whole and byte by byte; nothing waits."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import FORWARD_ALL, Direction, Opening, Verdict
from mitml4.protocols.ssh import MAX_PREAMBLE, Ssh, detect

UP, DOWN = Direction.UP, Direction.DOWN

CLIENT = (UP, b"SSH-2.0-OpenSSH_9.6p1 Debian-5\r\n")
SERVER = (DOWN, b"SSH-2.0-dropbear_2022.83\r\n")
KEXINIT = b"\x00\x00\x05\xdc\x06\x14" + bytes(range(256)) * 4

KEXINIT_START = b"\0\0\6\x14\x08\x14\xa4K@\xf46>\xb2\n9\xc7\6\x15\xb1\xfc\xce\xea\0\0\0\x1c"
"""OpenSSH's, with fewer names."""


def test_both_sides_are_named_and_then_all_passes(converse: Any) -> None:
    for chunk in (None, 1, 7):
        for script, client, server in (
            ([CLIENT, SERVER], b"OpenSSH_9.6p1 Debian-5", b"dropbear_2022.83"),
            ([SERVER, CLIENT], b"OpenSSH_9.6p1 Debian-5", b"dropbear_2022.83"),
            ([CLIENT, (DOWN, b"Hello!\r\nSSH-1.99-x-y\n")], b"OpenSSH_9.6p1 Debian-5", b"x-y"),
            ([(UP, b"SSH-1.5-old\n"), SERVER], b"old", b"dropbear_2022.83"),
        ):
            conversation = Ssh()
            talk = converse(conversation, [*script, (UP, KEXINIT), (DOWN, KEXINIT)], chunk=chunk)
            assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
            assert not talk.kept[UP]
            assert not talk.kept[DOWN]
            assert conversation.details_ready
            details = conversation.details()
            assert (details.client_software, details.server_software) == (client, server)


def test_key_exchange_right_behind_the_line_is_no_part_of_it(converse: Any) -> None:
    conversation = Ssh()
    talk = converse(conversation, [(UP, CLIENT[1] + KEXINIT), (DOWN, SERVER[1] + KEXINIT)])
    assert talk.moved[UP] == CLIENT[1] + KEXINIT
    assert conversation.details().client_software == b"OpenSSH_9.6p1 Debian-5"


def test_a_part_of_a_line_is_not_held_back(converse: Any) -> None:
    talk = converse(Ssh(), [(DOWN, b"SSH-2.0-Open"), (UP, b"S")])
    assert not talk.kept[UP]
    assert not talk.kept[DOWN]


def test_one_banner_is_enough_once_the_other_side_has_ended(converse: Any) -> None:
    conversation = Ssh()
    converse(conversation, [SERVER])
    assert not conversation.details_ready
    converse(conversation, [(UP, None)])
    assert conversation.details_ready
    assert conversation.details().client_software is None


@pytest.mark.parametrize("chunk", [None, 1])
def test_a_key_exchange_without_a_line_before_it_passes(converse: Any, chunk: int | None) -> None:
    conversation = Ssh()
    converse(conversation, [(DOWN, KEXINIT), SERVER, (UP, KEXINIT)], chunk=chunk)
    assert conversation.details_ready
    assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
    assert conversation.details().server_software is None


def test_other_lines_raise_protocol_error(converse: Any) -> None:
    for chunk in (None, 1):
        for script in (
            [(UP, b"GET / HTTP/1.1\r\n")],
            [(UP, b"SSH-3.0-x\r\n")],
            [(DOWN, b"SSH-0.9\r\n")],
            [(UP, b"SSH-2.0-" + b"x" * 1020 + b"\r\n")],
            [(DOWN, b"x" * 1030)],
            [(DOWN, b"no\r\n" * (MAX_PREAMBLE // 4 + 1))],
        ):
            with pytest.raises(ProtocolError, match="SSH"):
                converse(Ssh(), script, chunk=chunk)


def test_detection_from_either_side() -> None:
    for opening, verdict in (
        (Opening(up=b"SSH-2"), Verdict.NEED_MORE),
        (Opening(up=b"SSH-2.0-"), Verdict.MATCH),
        (Opening(up=b"SSH-1.99-x"), Verdict.MATCH),
        (Opening(up=b"SSH-3"), Verdict.REJECT),
        (Opening(up=b"STAT"), Verdict.REJECT),
        (Opening(down=b"SSH-2.0-x"), Verdict.LIKELY),
        (Opening(down=b"SSH-2.0-x\r\n\x00\x00"), Verdict.LIKELY),
        (Opening(down=b"SSH-2.0-x", up_ended=True), Verdict.MATCH),
        (Opening(down=b"SSH-2.0-x", up=b"S"), Verdict.NEED_MORE),
        (Opening(down=b"SSH-2.0-x", up=b"SSH-2.0-y"), Verdict.MATCH),
        (Opening(down=b"SSH-2.0-x", up=b"GET /"), Verdict.REJECT),
        (Opening(down=b"Welcome\r\nSS"), Verdict.NEED_MORE),
        (Opening(down=b"Welcome\r\nSSH-2.0-x"), Verdict.LIKELY),
        (Opening(down=b"Welcome\x00\r\nSSH-2.0-x"), Verdict.REJECT),
        (Opening(down=b"GNUTELLA/0.6 200 OK\r\nSSH-2.0-x", up_ended=True), Verdict.REJECT),
        (Opening(down=b"HTTP/1.1 200 OK\r\nSSH-2.0-x", up_ended=True), Verdict.REJECT),
        (Opening(down=b"SSH-4.0-x"), Verdict.REJECT),
        (Opening(up=b"\r\n"), Verdict.NEED_MORE),
        (Opening(up=b"\r\n", down=b"SSH-2.0-x"), Verdict.LIKELY),
        (Opening(up=b"\r\n", down=b"SSH-2.0-x", up_ended=True), Verdict.MATCH),
        (Opening(up=b"\r\nSSH-2.0-y", down=b"SSH-2.0-x"), Verdict.REJECT),
        (Opening(up=b"\r\nGET /", down=b"SSH-2.0-x"), Verdict.REJECT),
        (Opening(up=KEXINIT_START), Verdict.NEED_MORE),
        (Opening(up=KEXINIT_START + b"curve25519-sha256,ext-info-c" + bytes(9)), Verdict.MATCH),
        (Opening(down=KEXINIT_START + b"curve25519-sha256,ext-info-c" + bytes(9)), Verdict.LIKELY),
        (Opening(up=KEXINIT_START + b"curve25519-sha256,ext-info\0"), Verdict.REJECT),
        (Opening(up=KEXINIT_START[:5] + b"\x15"), Verdict.REJECT),
        (Opening(up=KEXINIT_START[:2] + b"\xff"), Verdict.REJECT),
    ):
        assert detect(opening) is verdict
