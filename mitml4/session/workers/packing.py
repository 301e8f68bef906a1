"""Instances of a class as tuples of their values, which are pickled in a tenth of the time.

Both ends of a channel have the same classes, so that the names need not be sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import Any, Final, Generic, TypeAlias, TypeVar

from mitml4.events import FlowClose, FlowLayer

__all__ = ["CLOSES", "LAYERS", "Packing", "Values"]

Values: TypeAlias = tuple[Any, ...]

T = TypeVar("T")


class Packing(Generic[T]):
    """Of one class of dataclasses, which takes its fields by name."""

    def __init__(self, cls: type[T], *without: str) -> None:
        """`without`: fields that are sent in another way."""
        names = [each.name for each in fields(cls)]  # type: ignore[arg-type]  # any dataclass
        self._cls = cls
        self._names = [name for name in names if name not in without]
        self.values: Final[Callable[[T], Values]] = attrgetter(*self._names)

    def made(self, values: Values, **others: Any) -> T:
        """The instance with these values."""
        return self._cls(**dict(zip(self._names, values, strict=True)), **others)


LAYERS: Final = Packing(FlowLayer)
CLOSES: Final = Packing(FlowClose)
