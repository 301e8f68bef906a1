"""The first head of each side, through a protocol that keeps what it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from mitml4.protocols.conversation import FORWARD_ALL, PEEK, Direction
from mitml4.protocols.parts.heads import MAX_HEAD, FirstHeads

UP, DOWN = Direction.UP, Direction.DOWN


@dataclass(slots=True)
class Toy(FirstHeads):
    name = "toy"

    heads: list[tuple[Direction, bytes, dict[bytes, bytes]]] = field(default_factory=list)

    def head(self, direction: Direction, line: bytes, headers: Mapping[bytes, bytes]) -> None:
        self.heads.append((direction, line, dict(headers)))


@pytest.mark.parametrize("chunk", [None, 1, 3])
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_one_head_of_each_side_is_read_and_the_rest_passes(
    converse: Any, end: bytes, chunk: int | None
) -> None:
    toy = Toy()
    head = end.join([b"", b"", b"ASK it", b"Name:  a:b ", b"NAME: c", b"odd", b"", b"body"])
    talk = converse(toy, [(UP, head + end * 2), (DOWN, b"SAY" + end * 2)], chunk=chunk)
    assert toy.heads == [
        (UP, b"ASK it", {b"name": b"a:b", b"odd": b""}),
        (DOWN, b"SAY", {}),
    ]
    assert (toy.up, toy.down) == (FORWARD_ALL, FORWARD_ALL)
    assert toy.details_ready
    assert not talk.kept[UP]


def test_half_a_head_is_not_held_back(converse: Any) -> None:
    toy = Toy()
    talk = converse(toy, [(UP, b"ASK it\r\nNa")])
    assert not talk.kept[UP]
    assert toy.up is PEEK


@pytest.mark.parametrize("chunk", [None, 1000])
@pytest.mark.parametrize("end", [b"\n\n", b""])
def test_a_head_that_does_not_end_is_given_up(converse: Any, end: bytes, chunk: int | None) -> None:
    toy = Toy()
    converse(toy, [(UP, b"ASK\n" + b"x" * MAX_HEAD + end)], chunk=chunk)
    assert toy.up is FORWARD_ALL
    assert not toy.heads
    assert not toy.details_ready


def test_a_side_that_ends_has_said_it_all(converse: Any) -> None:
    toy = Toy()
    converse(toy, [(UP, b"ASK\n\n"), (DOWN, None)])
    assert toy.details_ready
