"""The project's `dataclass` behaves as the standard library's."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from mitml4.dataclass import dataclass, replace


class Empty:
    pass


class Two:
    a: int
    b: list[int] = dataclasses.field(default_factory=list)


class Hidden:
    a: int
    secret: str = dataclasses.field(default="", repr=False)
    cached: int = dataclasses.field(default=0, compare=False)


class Made:
    a: int
    b: int = dataclasses.field(default=5, kw_only=True)
    c: tuple[int, ...] = dataclasses.field(init=False, default_factory=tuple)
    d: int = dataclasses.field(init=False, default=7)
    e: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "e", self.a + self.b)


class Own:
    a: int

    def __repr__(self) -> str:
        return "own"

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1


def _behaviour(made: type[Any]) -> list[object]:
    """What of a class can be seen from outside, with values of its fields that differ."""
    names = [field.name for field in dataclasses.fields(made) if field.init]
    options = [made(**dict(zip(names, values, strict=False))) for values in ((1, 2, 3), (1, 2, 4))]
    options += [made(**dict(zip(names, values, strict=False))) for values in ((2, 2, 3), (1, 5, 3))]
    seen: list[object] = [repr(option) for option in options]
    seen += [one == other for one in options for other in [*options, object()]]
    if made.__hash__ is not None:
        seen += [hash(one) == hash(other) for one in options for other in options]
    seen += [made.__hash__ is None, hasattr(options[0], "__dict__"), made.__match_args__]
    seen += [repr(copy.deepcopy(one)) for one in options]
    seen += [dataclasses.asdict(one) for one in options]
    return [*seen, _refusal(made, unknown=1), _refusal(made, 1, 2, 3, 4, 5), _refusal(made)]


def _refusal(made: type[Any], *args: object, **kwargs: object) -> str:
    try:
        made(*args, **kwargs)
    except TypeError as error:
        return str(error)
    return "accepted"


@pytest.mark.parametrize("body", [Empty, Two, Hidden, Made, Own])
@pytest.mark.parametrize(
    "options",
    [
        {"slots": True},
        {"frozen": True, "slots": True},
        {"frozen": True, "slots": True, "kw_only": True},
        {"slots": True, "eq": False},
        {"frozen": True, "slots": True, "eq": False},
        {},
    ],
)
def test_a_class_behaves_as_one_of_the_standard_library(
    body: type[Any], options: dict[str, bool]
) -> None:
    def made(decorator: Callable[..., Any]) -> type[Any]:
        namespace = {k: v for k, v in vars(body).items() if k not in ("__dict__", "__weakref__")}
        return decorator(**options)(type(body.__name__, (), dict(namespace)))

    assert _behaviour(made(dataclass)) == _behaviour(made(dataclasses.dataclass))


@dataclass(frozen=True, slots=True)
class Base:
    a: int


@dataclass(frozen=True, slots=True)
class Derived(Base):
    b: int = 0


def test_a_derived_class_has_the_fields_of_both() -> None:
    assert repr(Derived(1, 2)) == "Derived(a=1, b=2)"
    assert Derived(1, 2) == Derived(1, 2) != Derived(1, 3)
    assert Derived(1) != Base(1)
    assert len({Derived(1, 2), Derived(1, 2), Derived(1, 3)}) == 2
    assert pickle.loads(pickle.dumps(Derived(1, 2))) == Derived(1, 2)


def test_a_replaced_field_leaves_the_instance_and_the_other_fields_as_they_are() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Pair:
        one: int
        other: int = 2

    first = Pair(one=1)
    second = replace(first, one=3)
    assert (first, second) == (Pair(one=1), Pair(one=3, other=2))
