"""Keys, as a terminal sends them."""

from __future__ import annotations

from mitml4.screen.keyboard import Keys

TYPED = "k\x1b[A\x1bOB\x1b[5~\x1b[1;5Cé漢😀\r\x7f/a".encode()
KEYS = [b"k", b"\x1b[A", b"\x1bOB", b"\x1b[5~", b"\x1b[1;5C", "é".encode(), "漢".encode(),
        "😀".encode(), b"\r", b"\x7f", b"/", b"a"]  # fmt: skip


def test_keys_are_the_same_however_they_arrive() -> None:
    for size in range(1, len(TYPED) + 1):
        keys = Keys()
        pieces = [TYPED[at : at + size] for at in range(0, len(TYPED), size)]
        assert [key for piece in pieces for key in keys.feed(piece)] == KEYS, size
        assert not keys.is_partial


def test_what_does_not_go_on_is_a_key() -> None:
    for data, whole, rest in (
        (b"\x1b", [], [b"\x1b"]),
        (b"j\x1b", [b"j"], [b"\x1b"]),
        (b"\x1b[", [], [b"\x1b", b"["]),
        (b"\xc3", [], [b"\xc3"]),
        (b"\x1bx", [b"\x1b", b"x"], []),
    ):
        keys = Keys()
        assert keys.feed(data) == whole
        assert keys.is_partial == bool(rest)
        assert keys.feed(b"") == rest
        assert not keys.is_partial
    assert Keys().feed(b"\xff\x80") == [b"\xff", b"\x80"]
