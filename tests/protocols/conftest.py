"""A driver that obeys each `Directive` to the letter, for conversations fed from a script."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    MAX_PEEK,
    MIRROR,
    PAUSE,
    PEEK,
    SWITCH,
    Conversation,
    Direction,
    Forward,
)
from mitml4.protocols.protocol_event import ProtocolEvent

Step: TypeAlias = tuple[Direction, bytes | None]
"""Bytes that arrive in a direction; None is its FIN."""


@dataclass
class Talk:
    """What became of a script: per direction, the bytes that moved and those that did not."""

    moved: dict[Direction, bytearray] = field(
        default_factory=lambda: {direction: bytearray() for direction in Direction}
    )
    kept: dict[Direction, bytearray] = field(
        default_factory=lambda: {direction: bytearray() for direction in Direction}
    )
    ended: set[Direction] = field(default_factory=set)
    protocol_events: list[ProtocolEvent] = field(default_factory=list)
    feeds: int = 0


def drive(conversation: Conversation, script: Iterable[Step], *, chunk: int | None = None) -> Talk:
    """Feed a script, `chunk` bytes at a time (None: each step whole).

    Raises ProtocolError where the conversation does. It fails the test when the conversation
    takes more than it was shown, or goes on without moving anything.
    """
    talk = Talk()
    for direction, data in script:
        if data is None:
            talk.ended.add(direction)
            _pump(conversation, talk)
            continue
        size = chunk or len(data) or 1
        for start in range(0, len(data), size):
            talk.kept[direction] += data[start : start + size]
            _pump(conversation, talk)
    return talk


def _pump(conversation: Conversation, talk: Talk) -> None:
    """Ask both directions in turn until neither changes any more."""
    changes = 0
    while any(_step(conversation, talk, direction) for direction in Direction):
        changes += 1
        talk.protocol_events += conversation.protocol_events
        conversation.protocol_events.clear()
        assert changes < 200_000, "the conversation goes round in circles"
    talk.protocol_events += conversation.protocol_events
    conversation.protocol_events.clear()


def _step(conversation: Conversation, talk: Talk, direction: Direction) -> bool:
    """Do once what is wanted in a direction; whether anything changed."""
    kept = talk.kept[direction]
    directive = conversation.directive(direction)
    if directive is PAUSE or directive is SWITCH:
        return False
    if not kept:
        if direction not in talk.ended:
            return False
        talk.ended.remove(direction)
        conversation.end(direction)
        return True
    if isinstance(directive, Forward):
        count = len(kept) if directive.count is None else min(directive.count, len(kept))
        assert count > 0, "a Pass of nothing"
        conversation.passed(direction, count)
        _move(talk, direction, count)
        return True
    talk.feeds += 1
    if directive is MIRROR:
        conversation.feed(direction, bytes(kept))
        _move(talk, direction, len(kept))
        return True
    assert directive is PEEK
    shown = bytes(kept[:MAX_PEEK])
    directives = (conversation.up, conversation.down)
    count = conversation.feed(direction, shown)
    assert 0 <= count <= len(shown), "took more than it was shown"
    _move(talk, direction, count)
    if count or directives != (conversation.up, conversation.down):
        return True
    if len(shown) == MAX_PEEK:
        raise ProtocolError("nothing understood within the bytes that may be looked at")
    if direction in talk.ended:
        _move(talk, direction, len(kept))  # nothing more can come: the rest goes unseen
        return True
    return False


def _move(talk: Talk, direction: Direction, count: int) -> None:
    talk.moved[direction] += talk.kept[direction][:count]
    del talk.kept[direction][:count]


@pytest.fixture(scope="session")
def converse() -> Callable[..., Talk]:
    """`converse(conversation, script, chunk=None)`: see `drive`."""
    return drive
