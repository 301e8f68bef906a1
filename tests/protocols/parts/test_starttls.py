"""What the STARTTLS family shares, through a protocol of three words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import FORWARD_ALL, PAUSE, SWITCH, Direction
from mitml4.protocols.parts.starttls import MAX_LINE, StartTLS

UP, DOWN = Direction.UP, Direction.DOWN


@dataclass(slots=True)
class Toy(StartTLS):
    """`tls?` asks, `yes` and `no` answer, `plain` ends the question."""

    name = "toy"

    lines: list[bytes] = field(default_factory=list)

    def client_line(self, line: bytes) -> None:
        self.lines.append(line)
        if line == b"tls?":
            self.ask()
        elif line == b"plain":
            self.stay_plain()

    def server_line(self, line: bytes) -> None:
        self.lines.append(line)
        if line == b"yes":
            self.accept()
        elif line == b"no":
            self.refuse()


@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_lines_are_taken_to_the_upgrade_and_no_further(converse: Any, chunk: int | None) -> None:
    toy = Toy()
    script = [
        (UP, b"a\r\nb\ntls?\r\nhello"),
        (DOWN, b"no\r\n"),
        (UP, b"\ntls?\nIN"),
        (DOWN, b"yes\nER"),
    ]
    talk = converse(toy, script, chunk=chunk)
    assert toy.lines == [b"a", b"b", b"tls?", b"no", b"hello", b"tls?", b"yes"]
    assert (toy.up, toy.down) == (SWITCH, SWITCH)
    assert (talk.kept[UP], talk.kept[DOWN]) == (b"IN", b"ER")
    assert toy.details_ready
    assert toy.details().upgraded


def test_a_no_settles_the_facts_but_not_the_question(converse: Any) -> None:
    toy = Toy()
    converse(toy, [(UP, b"tls?\n"), (DOWN, b"no\n"), (UP, b"tls?\n")])
    assert toy.details_ready
    assert not toy.details().upgraded
    assert toy.up is PAUSE


def test_once_plain_no_line_is_read(converse: Any) -> None:
    toy = Toy()
    talk = converse(toy, [(UP, b"plain\ntls?\n" + b"x" * 2 * MAX_LINE), (DOWN, b"yes\n")])
    assert toy.lines == [b"plain"]
    assert not talk.kept[UP]
    assert not talk.kept[DOWN]


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_the_end_of_a_side_ends_the_question(converse: Any, direction: Direction) -> None:
    toy = Toy()
    talk = converse(toy, [(direction, b"half a li"), (direction, None)])
    assert (toy.up, toy.down) == (FORWARD_ALL, FORWARD_ALL)
    assert talk.moved[direction] == b"half a li"
    assert toy.details_ready


@pytest.mark.parametrize("chunk", [None, 1000])
def test_a_line_has_a_longest_length_however_it_arrives(converse: Any, chunk: int | None) -> None:
    converse(Toy(), [(UP, b"x" * MAX_LINE + b"\n")], chunk=chunk)
    with pytest.raises(ProtocolError, match="toy: a line that does not end"):
        converse(Toy(), [(UP, b"x" * (MAX_LINE + 1) + b"\n")], chunk=chunk)
