"""What the text protocols' detectors share: a first word, and the verdict of two sides."""

from __future__ import annotations

import re

import pytest

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.parts.lines import (
    agree,
    behind_starttls,
    code,
    command,
    in_lines,
    initials,
    prefix_pattern,
)

MATCH, LIKELY, NEED_MORE, REJECT = (
    Verdict.MATCH,
    Verdict.LIKELY,
    Verdict.NEED_MORE,
    Verdict.REJECT,
)
NAMED = re.compile(b"NAME")
OWN, SHARED = frozenset({b"USER", b"USERS"}), frozenset({b"QUIT"})


def test_a_first_word_counts_once_it_has_ended() -> None:
    for up, verdict in (
        (b"", NEED_MORE),
        (b"us", NEED_MORE),
        (b"USER", NEED_MORE),
        (b"user x", MATCH),
        (b"USERS\r\n", MATCH),
        (b"USERSX", REJECT),
        (b"QUIT\n", LIKELY),
        (b"QUIT x", LIKELY),
        (b"\r\nUSER x", REJECT),
        (b" USER x", REJECT),
        (b"\xff", REJECT),
    ):
        assert command(up, OWN, SHARED) is verdict


@pytest.mark.parametrize(
    ("client", "server", "verdict"),
    [
        (MATCH, LIKELY, MATCH),
        (LIKELY, MATCH, MATCH),
        (LIKELY, LIKELY, NEED_MORE),
        (MATCH, NEED_MORE, NEED_MORE),
        (NEED_MORE, MATCH, NEED_MORE),
        (MATCH, REJECT, REJECT),
        (REJECT, MATCH, NEED_MORE),
    ],
)
def test_one_side_is_certain_and_the_other_fits(
    client: Verdict, server: Verdict, verdict: Verdict
) -> None:
    opening = Opening(up=b"u", down=b"d")
    assert agree(opening, client, server, name="x", ports=(21,), named=NAMED) is verdict


@pytest.mark.parametrize(
    ("up", "down", "verdict"),
    [
        (b"FOO\r\n", b"220 NAME", LIKELY),
        (b"", b"220 NAME", LIKELY),
        (b"\r\n", b"220 NAME\r\n500 ?", LIKELY),
        (b"FOO\r\n", b"220 hello\r\n500 NAME", NEED_MORE),
        (b"FOO\r\n", b"", NEED_MORE),
        (b"F\x00", b"220 NAME", REJECT),
        (b"F\r\n\x00", b"220 NAME", LIKELY),
    ],
)
def test_a_greeting_with_a_name_is_believed_whatever_the_client_says_in_a_line(
    up: bytes, down: bytes, verdict: Verdict
) -> None:
    client = REJECT if up else NEED_MORE
    server = MATCH if down else NEED_MORE
    opening = Opening(up=up, down=down)
    assert agree(opening, client, server, name="x", ports=(21,), named=NAMED) is verdict


@pytest.mark.parametrize("up", [b"", b"FO", b"a\tb\r\n\0", b"\r\n\xff"])
def test_a_first_line_of_text_is_a_line(up: bytes) -> None:
    assert in_lines(up)
    assert not in_lines(b"\x00" + up)


@pytest.mark.parametrize(
    ("down", "verdict"),
    [
        (b"", NEED_MORE),
        (b"22", NEED_MORE),
        (b"220", NEED_MORE),
        (b"220 ", LIKELY),
        (b"421-x", LIKELY),
        (b"220\r\n", REJECT),
        (b"221", REJECT),
        (b"2200", REJECT),
    ],
)
def test_a_code_is_three_digits_and_what_ends_them(down: bytes, verdict: Verdict) -> None:
    assert code(down, {b"220", b"421"}) is verdict


def test_the_port_tips_the_scales_but_proves_nothing() -> None:
    opening = Opening(up=b"u", down=b"d", port=21)
    assert agree(opening, LIKELY, LIKELY, name="x", ports=(20, 21), named=NAMED) is LIKELY
    assert agree(opening, LIKELY, NEED_MORE, name="x", ports=(21,), named=NAMED) is NEED_MORE
    alone = Opening(down=b"d", port=21)
    assert agree(alone, NEED_MORE, LIKELY, name="x", ports=(21,), named=NAMED) is LIKELY
    alone = Opening(up=b"u", port=21)
    assert agree(alone, LIKELY, NEED_MORE, name="x", ports=(21,), named=NAMED) is LIKELY
    assert agree(alone, REJECT, NEED_MORE, name="x", ports=(21,), named=NAMED) is NEED_MORE


@pytest.mark.parametrize(
    ("ended", "server", "verdict"),
    [
        (False, MATCH, LIKELY),
        (True, MATCH, MATCH),
        (True, LIKELY, NEED_MORE),
        (False, LIKELY, NEED_MORE),
    ],
)
def test_a_silent_client_leaves_it_to_the_greeting(
    ended: bool, server: Verdict, verdict: Verdict
) -> None:
    opening = Opening(down=b"d", up_ended=ended)
    assert agree(opening, NEED_MORE, server, name="x", ports=(21,), named=NAMED) is verdict


def test_a_client_alone_is_known_by_a_telltale() -> None:
    telltale = re.compile(b"FEAT")
    seen = Opening(up=b"USER x\r\nFEAT\r\n")
    told = agree(seen, MATCH, NEED_MORE, name="x", ports=(21,), named=NAMED, telltale=telltale)
    assert told is LIKELY
    assert agree(seen, MATCH, NEED_MORE, name="x", ports=(21,), named=NAMED) is NEED_MORE


def test_begun_matches_every_beginning_and_nothing_else() -> None:
    pattern = prefix_pattern(b"a", b"[0-9]{2}", b"c")
    assert all(pattern.fullmatch(data) for data in (b"", b"a", b"a12", b"a12c"))
    assert not any(pattern.fullmatch(data) for data in (b"1", b"ac", b"a12cd"))


def test_only_the_inside_of_its_own_tls_is_behind_starttls() -> None:
    assert behind_starttls(("socks5", "imap", "tls"), "imap")
    assert not behind_starttls(("tls",), "imap")
    assert not behind_starttls(("imap", "tls", "imap"), "imap")
    assert not behind_starttls(("pop3", "tls"), "imap")


def test_behind_its_own_starttls_the_clients_word_is_enough() -> None:
    for client, verdict in ((LIKELY, MATCH), (MATCH, MATCH), (NEED_MORE, NEED_MORE)):
        inside = Opening(up=b"USER me\r\n", stack=("imap", "tls"))
        assert agree(inside, client, REJECT, name="imap", ports=(), named=NAMED) is verdict


def test_initials_are_in_both_cases() -> None:
    assert set(initials(OWN | SHARED)) == set(b"QUqu")
