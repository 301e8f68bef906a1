"""Regular expressions that are compiled when they are first used.

The protocols have more than a hundred, and a session uses few of them. To compile all of them took
a fifteenth of the CPU time that a session needs to start.

Sets may be repeated possessively (`[…]*+`), groups not: before Python 3.11.5, a group whose last
attempt failed went on behind what that had read (cpython, gh-106052).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

__all__ = ["regex"]

_METHODS: Final = ("match", "fullmatch", "search", "sub", "split", "findall", "finditer")


class _Regex:
    """The first use of a method compiles the expression, and stores its methods as attributes: each
    further call costs as much as with `re.Pattern`."""

    def __init__(self, expression: Any, flags: int = 0) -> None:
        self.pattern = expression
        self._flags = flags

    def __getattr__(self, name: str) -> Any:
        compiled = re.compile(self.pattern, self._flags)
        if name in _METHODS:
            vars(self).update({each: getattr(compiled, each) for each in _METHODS})
        return getattr(compiled, name)


if TYPE_CHECKING:
    from re import compile as regex
else:
    regex = _Regex
