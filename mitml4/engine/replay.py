"""The smallest driver of an engine: bytes from a list. Tests and fuzzers use it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from typing import TypeAlias, assert_never

from mitml4.dataclass import dataclass
from mitml4.engine.actions import End, HandOver, Mirror, Move, MoveAhead, Switch, Wait, Yield
from mitml4.engine.engine import Engine
from mitml4.protocols.conversation import Details, Direction, Forward, Speaker
from mitml4.protocols.protocol_event import ProtocolEvent, StreamLayer

__all__ = ["Record", "Replay", "Step"]

Step: TypeAlias = tuple[Direction, bytes | None]
"""Bytes that arrive in a direction; None is its FIN."""


@dataclass()
class Record:
    """An observer that keeps what it is told."""

    layers: list[tuple[int, str, Speaker, Details | None]] = field(default_factory=list)
    protocol_events: list[tuple[int, ProtocolEvent | StreamLayer]] = field(default_factory=list)
    faults: list[tuple[int, Direction, str]] = field(default_factory=list)

    def found(self, depth: int, protocol: str) -> None:
        pass

    def layer(self, depth: int, protocol: str, speaker: Speaker, details: Details | None) -> None:
        self.layers.append((depth, protocol, speaker, details))

    def protocol_event(self, depth: int, protocol_event: ProtocolEvent | StreamLayer) -> int:
        self.protocol_events.append((depth, protocol_event))
        return 0

    def fault(self, depth: int, direction: Direction, reason: str) -> None:
        self.faults.append((depth, direction, reason))

    @property
    def stack(self) -> list[str]:
        return [protocol for _, protocol, _, _ in self.layers]


@dataclass()
class Replay:
    """What became of the bytes of a script, in each direction."""

    engine: Engine
    """Of the innermost depth."""
    goes_inside: bool = True
    """Whether the inner layers are followed."""
    moved: dict[Direction, bytearray] = field(
        default_factory=lambda: {direction: bytearray() for direction in Direction}
    )
    kept: dict[Direction, bytes] = field(default_factory=lambda: dict.fromkeys(Direction, b""))
    """What may not move yet."""
    ended: set[Direction] = field(default_factory=set)
    """Which directions have ended."""
    over: set[Direction] = field(default_factory=set)
    """Whose end has been passed on."""
    _has_yielded: bool = False

    def play(self, script: Iterable[Step], *, chunk: int | None = None) -> None:
        """Let a script arrive, `chunk` bytes at a time (None: each step whole)."""
        for direction, data in script:
            if data is None:
                self.ended.add(direction)
                self.pump()
                continue
            size = chunk or len(data) or 1
            for start in range(0, len(data), size):
                self.kept[direction] += data[start : start + size]
                self.pump()

    def pump(self) -> None:
        """Ask for both directions, until neither has an action left."""
        progress = True
        while progress:
            self._has_yielded = False
            up, down = (self._act_on(direction) for direction in Direction)
            stale = self._is_stale(Direction.UP) or self._is_stale(Direction.DOWN)
            progress = up or down or stale or self._has_yielded

    def _is_stale(self, direction: Direction) -> bool:
        return self.engine.is_stale(direction) and self._has_something(direction)

    def _act_on(self, direction: Direction) -> bool:
        """Perform the actions of a direction; whether there were any."""
        acted = False
        while self._has_something(direction) and self._act(direction):
            acted = True
        return acted

    def _act(self, direction: Direction) -> bool:
        data = self.kept[direction]
        action = self.engine.next_action(direction, data, ended=direction in self.ended)
        match action:
            case Move(count) | MoveAhead(count):
                assert 0 <= count <= len(data)
                self.moved[direction] += data[:count]
                self.kept[direction] = data[count:]
                return True
            case End(is_over):
                if is_over:
                    self.over.add(direction)
                return True
            case Switch() if self.goes_inside:
                self.engine = self.engine.inner()
                return True
            case Yield():
                self._has_yielded = True
                return False
            case Switch() | HandOver() | Wait() | Forward() | Mirror():
                return False
            case _:
                assert_never(action)

    def _has_something(self, direction: Direction) -> bool:
        ended = direction in self.ended and direction not in self.over
        return bool(self.kept[direction]) or ended
