"""Conversations fed from a script, by the engine that ships."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import pytest

from mitml4.engine.engine import Engine
from mitml4.engine.replay import Record, Replay, Step
from mitml4.engine.rules import Rules
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Conversation, Direction
from mitml4.protocols.protocol_event import ProtocolEvent, StreamLayer


@dataclass
class Strict(Record):
    """An observer that raises what ends the following."""

    def fault(self, depth: int, direction: Direction, reason: str) -> None:
        raise ProtocolError(reason)


@dataclass
class Talk:
    """What became of a script: per direction, the bytes that moved and those that did not."""

    moved: dict[Direction, bytearray]
    kept: dict[Direction, bytes]
    ended: set[Direction]
    protocol_events: list[ProtocolEvent | StreamLayer] = field(default_factory=list)


def drive(conversation: Conversation, script: Iterable[Step], *, chunk: int | None = None) -> Talk:
    """Feed a script, `chunk` bytes at a time (None: each step whole).

    Raises ProtocolError where the conversation does.
    """
    record = Strict()
    engine = Engine(Rules(), record, replace(conversation.context, hold_s=math.inf, expected=None))
    engine.follow(conversation)
    replay = Replay(engine, goes_inside=False)
    replay.play(script, chunk=chunk)
    events = [protocol_event for _, protocol_event in record.protocol_events]
    return Talk(replay.moved, replay.kept, replay.ended, events)


@pytest.fixture(scope="session")
def converse() -> Callable[..., Talk]:
    """`converse(conversation, script, chunk=None)`: see `drive`."""
    return drive
