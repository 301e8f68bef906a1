"""What the text protocols' detectors share: a first word, and the verdict of two sides."""

from __future__ import annotations

import re

import pytest

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.lines import agree, begun, behind_starttls, command, initials

MATCH, LIKELY, NEED_MORE, REJECT = (
    Verdict.MATCH,
    Verdict.LIKELY,
    Verdict.NEED_MORE,
    Verdict.REJECT,
)
OWN, SHARED = frozenset({b"USER", b"USERS"}), frozenset({b"QUIT"})


@pytest.mark.parametrize(
    ("up", "verdict"),
    [
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
    ],
)
def test_a_first_word_counts_once_it_has_ended(up: bytes, verdict: Verdict) -> None:
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
        (REJECT, MATCH, REJECT),
    ],
)
def test_one_side_is_certain_and_the_other_fits(
    client: Verdict, server: Verdict, verdict: Verdict
) -> None:
    assert agree(Opening(up=b"u", down=b"d"), client, server, port=21) is verdict


def test_the_port_tips_the_scales_but_proves_nothing() -> None:
    opening = Opening(up=b"u", down=b"d", port=21)
    assert agree(opening, LIKELY, LIKELY, port=21) is LIKELY
    assert agree(opening, LIKELY, NEED_MORE, port=21) is NEED_MORE
    assert agree(Opening(down=b"d", port=21), NEED_MORE, LIKELY, port=21) is LIKELY


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
    assert agree(Opening(down=b"d", up_ended=ended), NEED_MORE, server, port=21) is verdict


def test_a_client_alone_is_known_by_a_telltale() -> None:
    telltale = re.compile(b"FEAT")
    seen = Opening(up=b"USER x\r\nFEAT\r\n")
    assert agree(seen, MATCH, NEED_MORE, port=21, telltale=telltale) is LIKELY
    assert agree(seen, MATCH, NEED_MORE, port=21) is NEED_MORE


def test_begun_matches_every_beginning_and_nothing_else() -> None:
    pattern = begun(b"a", b"[0-9]{2}", b"c")
    assert all(pattern.fullmatch(data) for data in (b"", b"a", b"a12", b"a12c"))
    assert not any(pattern.fullmatch(data) for data in (b"1", b"ac", b"a12cd"))


def test_only_the_inside_of_its_own_tls_is_behind_starttls() -> None:
    assert behind_starttls(("socks5", "imap", "tls"), "imap")
    assert not behind_starttls(("tls",), "imap")
    assert not behind_starttls(("imap", "tls", "imap"), "imap")
    assert not behind_starttls(("pop3", "tls"), "imap")


def test_initials_are_in_both_cases() -> None:
    assert set(initials(OWN | SHARED)) == set(b"QUqu")
