"""Who speaks next, where the sides take turns."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.protocols.conversation import FORWARD_ALL, PEEK, SWITCH, Direction
from mitml4.protocols.parts.fields import Reader
from mitml4.protocols.parts.turns import Turns

UP, DOWN = Direction.UP, Direction.DOWN


class Dialogue(Turns):
    """The client sends `a`, the server `bb`, the client `c`; then an inner protocol begins."""

    name = "dialogue"

    def __init__(self) -> None:
        super().__init__()
        self.client_next(self._first)

    def _first(self, reader: Reader) -> None:
        reader.one_of(b"a")
        self.server_next(self._second)

    def _second(self, reader: Reader) -> None:
        reader.one_of(b"bb")
        self.client_next(self._third)

    def _third(self, reader: Reader) -> None:
        reader.one_of(b"c")
        self.go_inside()


@pytest.mark.parametrize("chunk", [None, 1])
def test_what_is_sent_before_its_turn_waits(converse: Any, chunk: int | None) -> None:
    conversation = Dialogue()
    early = converse(conversation, [(DOWN, b"bbinner"), (UP, b"acinner")], chunk=chunk)
    assert (early.kept[UP], early.kept[DOWN]) == (b"inner", b"inner")
    assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
    assert conversation.details_ready


def test_a_client_may_end_and_still_be_answered(converse: Any) -> None:
    conversation = Dialogue()
    talk = converse(conversation, [(UP, b"a"), (UP, None), (DOWN, b"b")])
    assert conversation.down is PEEK
    talk = converse(conversation, [(DOWN, b"bb")])
    assert talk.moved[DOWN] == b"bb"


@pytest.mark.parametrize("script", [[(UP, None)], [(UP, b"a"), (DOWN, None)]])
def test_an_end_in_the_middle_lets_the_other_side_pass(converse: Any, script: Any) -> None:
    conversation = Dialogue()
    converse(conversation, script)
    assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
