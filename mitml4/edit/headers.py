"""Header fields that can be changed: in order, found in any case, and as they came where they were
not changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.regex import regex

__all__ = ["Field", "Headers", "check_field"]

_NAME: Final = regex(rb":?[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NOT_IN_VALUE: Final = regex(rb"[\r\n\0]")


@dataclass(frozen=True, slots=True)
class Field:
    """One field. `raw` is what HTTP/1 has sent for it, with its line end; empty if it is ours."""

    name: bytes
    value: bytes
    raw: bytes = b""
    is_sensitive: bool = False
    """HTTP/2 sent it as never to be indexed (RFC 7541 §6.2.3)."""


def check_field(name: bytes, value: bytes) -> None:
    """Raises ValueError for what would not be one field (RFC 9110 §5.1, §5.5)."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name.decode('latin-1')!a} is no name of a header field")
    if _NOT_IN_VALUE.search(value):
        raise ValueError("the value of a header field has no CR, LF or NUL")


def _bytes(text: str | bytes) -> bytes:
    """Raises ValueError: a field has bytes, which a text has in ISO 8859-1 or else in UTF-8."""
    if isinstance(text, bytes):
        return text
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


class Headers:
    """The fields of a message. Names are found in any case; texts are ISO 8859-1."""

    __slots__ = ("fields", "is_changed")

    def __init__(self, fields: Iterable[Field] = ()) -> None:
        self.fields = list(fields)
        self.is_changed = False

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> Headers:
        """Raises ValueError for what is no field."""
        headers = cls()
        for name, value in pairs:
            headers.add(name, value)
        return headers

    def get(self, name: str, default: str | None = None) -> str | None:
        """The value of the first field of this name."""
        key = _bytes(name).lower()
        for each in self.fields:
            if each.name.lower() == key:
                return each.value.decode("latin-1")
        return default

    def get_all(self, name: str) -> list[str]:
        key = _bytes(name).lower()
        return [each.value.decode("latin-1") for each in self.fields if each.name.lower() == key]

    def add(self, name: str, value: str) -> None:
        """Add a field behind all others. Raises ValueError."""
        field = Field(_bytes(name), _bytes(value))
        check_field(field.name, field.value)
        self.fields.append(field)
        self.is_changed = True

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __setitem__(self, name: str, value: str) -> None:
        """Replace the first field of this name where it stands, and remove others of the name.
        Raises ValueError."""
        key, new = _bytes(name).lower(), Field(_bytes(name), _bytes(value))
        check_field(new.name, new.value)
        found = [at for at, each in enumerate(self.fields) if each.name.lower() == key]
        if not found:
            self.fields.append(new)
        else:
            old = self.fields[found[0]]
            if len(found) == 1 and old.value == new.value:
                return
            # HTTP/2's names are in lower case, and a name that is there keeps its spelling.
            self.fields[found[0]] = Field(old.name, new.value, is_sensitive=old.is_sensitive)
            for at in reversed(found[1:]):
                del self.fields[at]
        self.is_changed = True

    def __delitem__(self, name: str) -> None:
        """Remove all fields of this name. Raises KeyError if there is none."""
        if not self.discard(name):
            raise KeyError(name)

    def discard(self, name: str) -> bool:
        """Remove all fields of this name; whether there were any."""
        key = _bytes(name).lower()
        kept = [each for each in self.fields if each.name.lower() != key]
        was_there = len(kept) < len(self.fields)
        if was_there:
            self.fields, self.is_changed = kept, True
        return was_there

    def put(self, at: int, name: bytes, value: bytes) -> None:
        """Replace the field at this place. Raises ValueError."""
        check_field(name, value)
        old = self.fields[at]
        self.fields[at] = Field(name, value, is_sensitive=old.is_sensitive)
        self.is_changed = True

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return (each.name.decode("latin-1") for each in self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def items(self) -> list[tuple[str, str]]:
        """Names and values, in order."""
        return [(each.name.decode("latin-1"), each.value.decode("latin-1")) for each in self.fields]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self.items() == other.items()

    __hash__ = None  # type: ignore[assignment] # it can be changed

    def __repr__(self) -> str:
        return f"Headers({self.items()!r})"
