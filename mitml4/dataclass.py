"""The `dataclass` of this project: the standard library's, at less cost for each class.

The standard library generates and compiles six methods for a frozen class. With more than 200
classes, that was more than a quarter of what a session imports. Here only `__init__` is generated,
when the first instance is created; a session needs a quarter of the classes. The other methods are
ordinary functions that read the fields by name. `frozen` is checked by mypy alone: at run time,
each field of a new instance would cost a further call. `InitVar` is not supported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeVar

__all__ = ["dataclass", "replace"]

T = TypeVar("T")

_NOT_GIVEN: Final = object()
"""The default of a parameter whose field has a `default_factory`."""


def _dataclass(
    *, frozen: bool = False, slots: bool = False, kw_only: bool = False, eq: bool = True
) -> Callable[[type[T]], type[T]]:
    """The class with the methods that it does not define itself."""

    def made(cls: type[T]) -> type[T]:
        own = frozenset(vars(cls))
        if cls.__doc__ is None:
            cls.__doc__ = cls.__name__  # or it would be made of the signature, which takes time
        standard = dataclasses.dataclass(
            init=False, repr=False, eq=False, slots=slots, kw_only=kw_only
        )
        result = standard(cls)
        _add(result, {"__init__": _first_init(result), "__repr__": _repr}, own)
        if eq:
            _add(result, _comparison(result, hashable=frozen), own)
        return result

    return made


def _add(cls: type[Any], methods: dict[str, Any], own: Collection[str]) -> None:
    for name in methods.keys() - own:
        setattr(cls, name, methods[name])


def _first_init(cls: type[Any]) -> Callable[..., None]:
    """An `__init__` that replaces itself with the generated one."""

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        setattr(cls, "__init__", generated := _generated_init(cls))  # noqa: B010
        generated(self, *args, **kwargs)

    return init


def _generated_init(cls: type[Any]) -> Callable[..., None]:
    """Assigns the parameters, or the defaults, to the fields; then calls `__post_init__`."""
    names: dict[str, Any] = {"_not_given": _NOT_GIVEN}
    positional: list[str] = []
    by_name: list[str] = []
    body: list[str] = []
    for field in dataclasses.fields(cls):
        name = field.name
        if field.default is not dataclasses.MISSING:
            names[f"_default_{name}"] = field.default
            parameter, value = f"{name}=_default_{name}", f"_default_{name}"
        elif field.default_factory is not dataclasses.MISSING:
            names[f"_make_{name}"] = field.default_factory
            parameter, value = f"{name}=_not_given", f"_make_{name}()"
        else:
            parameter, value = name, ""
        if field.init:
            (by_name if field.kw_only else positional).append(parameter)
            given = f"{name} if {name} is not _not_given else {value}"
            value = given if parameter.endswith("=_not_given") else name
        if value:
            body.append(f"self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    parameters = ", ".join(["self", *positional, *(["*", *by_name] if by_name else [])])
    exec(f"def __init__({parameters}):\n " + "\n ".join(body or ["pass"]), names)
    generated: Callable[..., None] = names["__init__"]
    generated.__qualname__ = f"{cls.__qualname__}.__init__"
    return generated


def _replace(instance: T, /, **changes: Any) -> T:
    """The same, but for these fields: `dataclasses.replace`, at a fraction of its cost for classes
    with many fields. It does not call `__init__`; a class with `__post_init__` is not for this."""
    cls = type(instance)
    key = (cls, *changes)
    if key not in _replacers:
        _replacers[key] = _replacer(cls, changes)
    replaced: T = _replacers[key](instance, **changes)
    return replaced


_replacers: Final[dict[tuple[Any, ...], Callable[..., Any]]] = {}
"""By the class, and the names of the fields that are changed."""


def _replacer(cls: type[Any], changed: Collection[str]) -> Callable[..., Any]:
    """Makes a shallow copy of an instance, but for these fields."""
    assert not hasattr(cls, "__post_init__")
    fields = [field.name for field in dataclasses.fields(cls)]
    if unknown := set(changed) - set(fields):
        raise TypeError(f"{cls.__name__} has no {', '.join(sorted(unknown))}")
    body = [f"new.{name} = {name if name in changed else f'old.{name}'}" for name in fields]
    names: dict[str, Any] = {"_new": cls.__new__, "_cls": cls}
    head = f"def replaced(old, /, {', '.join(changed)}):\n new = _new(_cls)\n "
    exec(head + "\n ".join([*body, "return new"]), names)
    replaced: Callable[..., Any] = names["replaced"]
    return replaced


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
    from dataclasses import dataclass, replace
else:
    dataclass = _dataclass
    replace = _replace
