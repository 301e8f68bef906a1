"""Values of a filter: globs, hosts, numbers and sizes. Their errors are ValueErrors."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import idna

from mitml4.dataclass import dataclass
from mitml4.regex import regex

__all__ = ["Letter", "Numbers", "glob", "host", "literal", "port", "size", "split", "status"]

_SIZE: Final = regex(r"([0-9]+(?:\.[0-9]+)?)(|b|[kmgt]|[kmgt]b|[kmgt]ib)", re.IGNORECASE)
_NUMBER: Final = regex("[0-9]{1,9}")
_MAX_PORT: Final = 65535
_STATUS: Final = regex("[0-9]{3}")
_STATUS_CLASS: Final = regex("([1-9])xx", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Letter:
    """A character of an expression, and its place."""

    char: str
    at: int
    is_quoted: bool = False

    def is_plain(self, char: str) -> bool:
        """Whether it is this character, and not quoted."""
        return self.char == char and not self.is_quoted


Letters: TypeAlias = Sequence[Letter]


def literal(letters: Letters) -> str:
    return "".join(letter.char for letter in letters)


def split(letters: Letters, *separators: str) -> list[Letters]:
    """The parts between separators that are not quoted."""
    parts: list[list[Letter]] = [[]]
    for letter in letters:
        if any(map(letter.is_plain, separators)):
            parts.append([])
        else:
            parts[-1].append(letter)
    return list(parts)


def glob(letters: Letters, *, fold: bool = True, anywhere: bool = False) -> Callable[[str], bool]:
    """A test of texts: `*` stands for any characters, `?` for one, unless they are quoted.

    `fold`: upper and lower case are the same. `anywhere`: it may be found within the text.
    """
    wild = {"*": ".*", "?": "."}
    pattern = "".join(
        re.escape(letter.char)
        if letter.is_quoted
        else wild.get(letter.char, re.escape(letter.char))
        for letter in letters
    )
    compiled = re.compile(pattern, re.DOTALL | (re.IGNORECASE if fold else 0))  # noqa: TID251
    find = compiled.search if anywhere else compiled.fullmatch
    return lambda text: find(text) is not None


def host(letters: Letters) -> Callable[[str], bool]:
    """A test of host names and addresses: by a glob, or for addresses by a network."""
    text = literal(letters)
    if "/" in text:
        network = ipaddress.ip_network(text, strict=False)
        return lambda name: _address_in(name, network)
    if text.startswith("[") and text.endswith("]"):
        letters = letters[1:-1]
    tests = [glob(letters)]
    if not text.isascii():
        tests.append(glob([Letter(char, 0) for char in _to_ascii(text)]))
    return lambda name: any(test(name.rstrip(".")) for test in tests)


def _address_in(name: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(name) in network
    except ValueError:
        return False


def _to_ascii(name: str) -> str:
    """An international name as it is on the wire; labels with wildcards stay as they are."""
    labels = []
    for label in name.split("."):
        try:
            is_given = label.isascii() or "*" in label or "?" in label
            labels.append(label if is_given else idna.encode(label, uts46=True).decode())
        except idna.IDNAError as error:
            raise ValueError(f"{label} is no host name") from error
    return ".".join(labels)


@dataclass(frozen=True, slots=True)
class Numbers:
    """A range of numbers, both ends included."""

    first: float
    last: float

    def __contains__(self, value: float) -> bool:
        return self.first <= value <= self.last


def port(text: str) -> Numbers:
    """From `443`."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text} is no number")
    if int(text) > _MAX_PORT:
        raise ValueError(f"{text} is no port: 0 to {_MAX_PORT}")
    return Numbers(int(text), int(text))


def status(text: str) -> Numbers:
    """From `404` or `5xx`."""
    if found := _STATUS_CLASS.fullmatch(text):
        return Numbers(int(found[1]) * 100, int(found[1]) * 100 + 99)
    if not _STATUS.fullmatch(text):
        raise ValueError(f"{text} is no status: 404, 5xx or 400-499")
    return Numbers(int(text), int(text))


_UNITS: Final = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def size(text: str) -> Numbers:
    """From `100`, `1.5k`, `1M`, `1MiB` (powers of 1024) or `2MB` (of 1000)."""
    if not (found := _SIZE.fullmatch(text)):
        raise ValueError(f"{text} is no size: 500, 10k, 1.5M or 1MiB")
    unit = found[2].lower()
    base = 1000 if unit.endswith("b") and "i" not in unit else 1024
    value = round(float(found[1]) * base ** _UNITS[unit[:1]])
    return Numbers(value, value)
