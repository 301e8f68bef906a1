"""The comments in our own packet files, which say of whose connection a packet is.

An intercepted connection is in such a file twice: as the client's and as the server's. The first
packet of each has a comment, so that a reader can tell them apart.
"""

from __future__ import annotations

from typing import Final, Literal

from mitml4.dataclass import dataclass
from mitml4.regex import regex

__all__ = ["CaptureSide", "Side"]

Side = Literal["client", "server"]

_COMMENT: Final = regex(r"flow ([0-9]{1,18}), (client|server)'s side(?:: |$)")


@dataclass(frozen=True, slots=True)
class CaptureSide:
    """A side of a flow: the number of the flow in the session that wrote the file, and which."""

    flow: int
    side: Side

    def __str__(self) -> str:
        return f"flow {self.flow}, {self.side}'s side"

    @classmethod
    def parse(cls, comment: str) -> CaptureSide | None:
        """From a packet's comment; None if it is not one of ours."""
        found = _COMMENT.match(comment)
        if found is None:
            return None
        return cls(int(found[1]), "client" if found[2] == "client" else "server")
