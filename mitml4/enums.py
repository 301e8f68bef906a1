"""Enums whose members are read where bytes move.

Python 3.11 finds a member by its name (`Direction.UP`) with a function of `enum`, which costs ten
times as much as any other attribute. From 3.12 on, members are plain attributes of their class.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

__all__ = ["plain_members"]

E = TypeVar("E", bound=Enum)


def plain_members(cls: type[E]) -> type[E]:
    """The same class, with its members as plain attributes."""
    for name, member in cls.__members__.items():
        type.__setattr__(cls, name, member)  # Enum's own refuses it
    return cls
