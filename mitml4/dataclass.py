"""The `dataclass` of this project: the standard library's, at less cost for each class.

The standard library generates and compiles six methods for a frozen class. With more than 200
classes, that was more than a quarter of what a session imports. Here only `__init__` is generated;
the other methods are ordinary functions that read the fields by name. `frozen` is checked by mypy
alone: at run time, each field of a new instance would cost a further call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

__all__ = ["dataclass"]

T = TypeVar("T")


def _dataclass(
    *, frozen: bool = False, slots: bool = False, kw_only: bool = False, eq: bool = True
) -> Callable[[type[T]], type[T]]:
    """The class with the methods that it does not define itself."""

    def made(cls: type[T]) -> type[T]:
        own = frozenset(vars(cls))
        if cls.__doc__ is None:
            cls.__doc__ = cls.__name__  # or it would be made of the signature, which takes time
        result = dataclasses.dataclass(repr=False, eq=False, slots=slots, kw_only=kw_only)(cls)
        _add(result, {"__repr__": _repr}, own)
        if eq:
            _add(result, _comparison(result, hashable=frozen), own)
        return result

    return made


def _add(cls: type[Any], methods: dict[str, Any], own: Collection[str]) -> None:
    for name in methods.keys() - own:
        setattr(cls, name, methods[name])


def _repr(self: Any) -> str:
    shown = (field.name for field in dataclasses.fields(self) if field.repr)
    values = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
    return f"{type(self).__qualname__}({values})"


def _comparison(cls: type[Any], hashable: bool) -> dict[str, Any]:
    """Equality and hash by the fields, in their order."""
    compared = [field.name for field in dataclasses.fields(cls) if field.compare]
    values: Callable[[Any], Any] = attrgetter(*compared) if compared else type

    def equal(self: Any, other: object) -> Any:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return values(self) == values(other)

    def hashed(self: Any) -> int:
        return hash(values(self))

    return {"__eq__": equal, "__hash__": hashed if hashable else None}


if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    dataclass = _dataclass
