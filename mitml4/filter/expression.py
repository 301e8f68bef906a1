"""An expression, and its value for a flow.

The value has three states, because flows are asked about while they are open: true, false, or not
known yet. `None` stands for the last. A value that is known does not change any more, whatever the
flow goes on to do (Kleene's logic: `x or y` is true as soon as one of them is).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from mitml4.dataclass import dataclass
from mitml4.model.flow import Exchange, Flow

__all__ = ["And", "Condition", "Filter", "Node", "Not", "Or", "Subject"]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is asked about: a flow, or an exchange of it."""

    flow: Flow
    exchange: Exchange | None = None
    is_final: bool = False
    """Whether to answer by what is known now, as if nothing followed."""
    is_named: bool = False
    """Whether the exchanges that may come ask only for the names that are known now."""

    def until_close(self, found: bool) -> bool | None:
        """The value of a condition that an open flow may still come to meet."""
        return found or (None if self.flow.is_open and not self.is_final else False)

    def until_end(self, found: bool) -> bool | None:
        """The same for an exchange."""
        if self.exchange and self.exchange.ended:
            return found
        return self.until_close(found)


class Node(Protocol):
    """A part of an expression."""

    def value(self, subject: Subject) -> bool | None:
        """Its value, or None while that is not known."""

    def conditions(self) -> Iterator[Condition]:
        """The conditions in it, in their order."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One word with its value, such as `method:POST`."""

    test: Callable[[Subject], bool | None]
    word: str = ""
    """The name of the word; empty for one that is searched for."""
    at: int = 0
    """Its place in the expression."""

    def conditions(self) -> Iterator[Condition]:
        yield self

    def value(self, subject: Subject) -> bool | None:
        return self.test(subject)


@dataclass(frozen=True, slots=True)
class Not:
    part: Node

    def conditions(self) -> Iterator[Condition]:
        return self.part.conditions()

    def value(self, subject: Subject) -> bool | None:
        value = self.part.value(subject)
        return None if value is None else not value


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple[Node, ...]

    def conditions(self) -> Iterator[Condition]:
        return (each for part in self.parts for each in part.conditions())

    def value(self, subject: Subject) -> bool | None:
        values = [part.value(subject) for part in self.parts]
        return False if False in values else None if None in values else True


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple[Node, ...]

    def conditions(self) -> Iterator[Condition]:
        return (each for part in self.parts for each in part.conditions())

    def value(self, subject: Subject) -> bool | None:
        values = [part.value(subject) for part in self.parts]
        return True if True in values else None if None in values else False


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed expression."""

    text: str
    root: Node

    def decide(self, flow: Flow, exchange: Exchange | None = None) -> bool | None:
        """Whether a flow matches, or an exchange of it; None while that is not known.

        Without an exchange, the answer is true if it is for any exchange that may come.
        """
        return self.root.value(Subject(flow, exchange))

    def matches(self, flow: Flow) -> bool:
        """Whether a flow matches by what is known of it now: whether one of its exchanges does or,
        if it has none, the flow itself."""
        subjects = [Subject(flow, each, is_final=True) for each in flow.exchanges]
        return any(map(self.root.value, subjects or [Subject(flow, is_final=True)]))
