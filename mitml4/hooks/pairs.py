"""Names with values, in order: a query, a form, cookies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping

__all__ = ["Pairs", "cookie_pairs", "pairs_of"]


class Pairs(MutableMapping[str, str]):
    """Names with values, in order; a name may come several times. A change changes the message."""

    def __init__(
        self, pairs: Iterable[tuple[str, str]], store: Callable[[list[tuple[str, str]]], None]
    ) -> None:
        self._pairs = list(pairs)
        self._store = store

    def __getitem__(self, name: str) -> str:
        """The first value."""
        for each, value in self._pairs:
            if each == name:
                return value
        raise KeyError(name)

    def __setitem__(self, name: str, value: str) -> None:
        """Set the first value, and remove the others; a new name comes last."""
        value = str(value)
        at = next((at for at, pair in enumerate(self._pairs) if pair[0] == name), None)
        if at is None:
            self._pairs.append((name, value))
        else:
            rest = [pair for pair in self._pairs[at + 1 :] if pair[0] != name]
            self._pairs[at:] = [(name, value), *rest]
        self._store(self._pairs)

    def __delitem__(self, name: str) -> None:
        kept = [pair for pair in self._pairs if pair[0] != name]
        if len(kept) == len(self._pairs):
            raise KeyError(name)
        self._pairs = kept
        self._store(kept)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self._pairs))

    def __len__(self) -> int:
        return len({name for name, _ in self._pairs})

    def get_all(self, name: str) -> list[str]:
        return [value for each, value in self._pairs if each == name]

    def add(self, name: str, value: str) -> None:
        """Add a value behind all others."""
        self._pairs.append((name, str(value)))
        self._store(self._pairs)

    def all(self) -> list[tuple[str, str]]:
        """All names with their values, in order."""
        return list(self._pairs)

    def __repr__(self) -> str:
        return f"Pairs({self._pairs!r})"


def pairs_of(given: Mapping[str, str] | Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return list(given.items() if isinstance(given, Mapping) else given)


def cookie_pairs(lines: Iterable[str]) -> list[tuple[str, str]]:
    """Of RFC 6265 §4.2.1."""
    parts = (part.strip() for line in lines for part in line.split(";"))
    split = (part.partition("=") for part in parts if part)
    return [(name.strip(), value.strip()) for name, _, value in split]
