"""Units: taken whole, their bodies passed, and their errors named after the protocol."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import FORWARD_ALL, SWITCH, Direction
from mitml4.protocols.parts.fields import Reader
from mitml4.protocols.parts.units import Units

UP, DOWN = Direction.UP, Direction.DOWN


@dataclass(slots=True)
class Sized(Units):
    """Units of a length and that many bytes, of which the length alone is looked at."""

    name: ClassVar[str] = "sized"
    lengths: list[int] = field(default_factory=list)

    def client_unit(self, reader: Reader) -> None:
        length = reader.uint(2, 1)
        self.lengths.append(length)
        self.skip_body(reader, UP, length)

    def server_unit(self, reader: Reader) -> None:
        if reader.take(1) == b"!":
            self.go_inside()


@pytest.mark.parametrize("chunk", [None, 1, 2, 5])
def test_bodies_pass_whether_they_have_come_or_not(converse: Any, chunk: int | None) -> None:
    conversation = Sized()
    units = b"\x00\x01a\x00\x05bcdef\x00\x64" + bytes(100) + b"\x00\x02"
    talk = converse(conversation, [(UP, units)], chunk=chunk)
    assert conversation.lengths == [1, 5, 100, 2]
    assert talk.moved[UP] == units


def test_an_inner_protocol_begins_right_behind_a_unit(converse: Any) -> None:
    conversation = Sized()
    talk = converse(conversation, [(DOWN, b"..!inner"), (UP, b"too")])
    assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
    assert (talk.kept[UP], talk.kept[DOWN]) == (b"too", b"inner")
    assert conversation.details_ready


def test_an_error_names_the_protocol(converse: Any) -> None:
    with pytest.raises(ProtocolError, match="sized: "):
        converse(Sized(), [(UP, b"\x00\x00")])


def test_after_an_end_all_passes(converse: Any) -> None:
    conversation = Sized()
    converse(conversation, [(UP, None)])
    assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
    assert conversation.details_ready
