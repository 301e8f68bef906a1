"""Replacements by regular expressions, in whole texts and in streams.

The expressions are those of the package `regex`, which has deadlines, and says what may still
become a match. So bytes of a stream are held back only as long as a match may begin in them, and
the result does not depend on how they were split.
"""

from __future__ import annotations

import time
from typing import Any, Final

import regex

from mitml4.dataclass import dataclass
from mitml4.edit.allowance import Allowance, TooMuchError

__all__ = ["MAX_MATCH", "Replacement", "StreamReplacer"]

MAX_MATCH: Final = 65536
"""Bytes of a match in a stream."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """A regular expression over bytes, and what takes the place of each match."""

    pattern: Any
    """A compiled expression of `regex`."""
    with_: bytes
    """With references to groups: `\\1`, `\\g<name>`."""

    @classmethod
    def of(cls, expression: str, with_: str) -> Replacement:
        """Raises ValueError for what is no expression, or refers to no group."""
        try:
            pattern = regex.compile(expression.encode())
            regex.sub(pattern, with_.encode(), b"")
            empty = regex.compile(expression.encode() + b"|").match(b"")
            if empty:  # the references are looked up only where something matches
                empty.expand(with_.encode())
        except (regex.error, IndexError) as error:
            raise ValueError(str(error)) from None
        return cls(pattern, with_.encode())

    def apply(self, text: bytes, limit: int, allowance: Allowance) -> bytes:
        """The text with all matches replaced. Raises TooMuchError."""
        timeout_s = allowance.for_text(len(text))
        began = time.perf_counter()
        try:
            return self._applied(text, limit, timeout_s)
        finally:
            allowance.spend(time.perf_counter() - began)

    def _applied(self, text: bytes, limit: int, timeout_s: float) -> bytes:
        out = bytearray()
        at = 0
        try:
            for match in self.pattern.finditer(text, timeout=timeout_s):
                out += text[at : match.start()]
                out += match.expand(self.with_)
                at = match.end()
                _check_size(out, limit)
        except TimeoutError:
            raise TooMuchError("the expression takes too long") from None
        out += text[at:]
        _check_size(out, limit)
        return bytes(out)


def _check_size(result: bytearray, limit: int) -> None:
    """Raises TooMuchError."""
    if len(result) > limit:
        raise TooMuchError(f"the result has more than {limit} bytes")


class StreamReplacer:
    """Replaces in a stream of bytes, of which a match may have MAX_MATCH at most."""

    __slots__ = ("_allowance", "_limit", "_replacement", "_text", "count")

    def __init__(self, replacement: Replacement, limit: int, allowance: Allowance) -> None:
        """`limit`: bytes that may come of one piece."""
        self._replacement = replacement
        self._limit = limit
        self._allowance = allowance
        self._text = b""
        """What is held back: what may still become a match begins with its first byte."""
        self.count = 0
        """The number of matches so far."""

    @property
    def holds(self) -> bool:
        return bool(self._text)

    def feed(self, data: bytes) -> bytes:
        """What may be sent after these bytes. Raises TooMuchError, and then `rest` has what is
        left."""
        return self._run(data, is_last=False)

    def flush(self) -> bytes:
        """What is held back, as if nothing followed."""
        return self._run(b"", is_last=True)

    def rest(self) -> bytes:
        """What is held back, unchanged."""
        text, self._text = self._text, b""
        return text

    def _run(self, data: bytes, *, is_last: bool) -> bytes:
        text, self._text = self._text + data, b""
        out = bytearray()
        at, count = 0, self.count
        began = time.perf_counter()
        try:
            timeout_s = self._allowance.for_text(len(text))
            while at < len(text):
                found = self._search(text, at, is_last, began + timeout_s)
                if found is None:
                    out += text[at:]
                    at = len(text)
                    break
                start, match = found
                out += text[at:start]
                at = start
                if match is None:
                    break  # held back
                if match.end() == start:  # an empty match is none in a stream
                    out += text[start : start + 1]
                    at = start + 1
                    continue
                out += match.expand(self._replacement.with_)
                self.count += 1
                at = match.end()
                _check_size(out, self._limit)
        except (TimeoutError, TooMuchError) as error:
            self._text, self.count = text, count
            raise TooMuchError(str(error) or "the expression takes too long") from None
        finally:
            self._allowance.spend(time.perf_counter() - began)
        self._text = text[at:]
        return bytes(out)

    def _search(
        self, text: bytes, at: int, is_last: bool, until: float
    ) -> tuple[int, Any | None] | None:
        """The next match, and where it begins; no match there: what begins there may still become
        one. None: nothing."""
        pattern = self._replacement.pattern
        while True:
            left_s = until - time.perf_counter()
            if left_s <= 0:
                raise TimeoutError("the expression takes too long")
            match = pattern.search(text, at, partial=not is_last, timeout=left_s)
            if match is None:
                return None
            start = match.start()
            if is_last or (not match.partial and match.end() < len(text)):
                if match.end() - start <= MAX_MATCH:
                    return start, match
            elif len(text) - start <= MAX_MATCH:
                return start, None
            # What begins here is longer than a match may be.
            match = pattern.match(text, start, start + MAX_MATCH, timeout=left_s)
            if match is not None and match.end() > start:
                return start, match
            at = start + 1
