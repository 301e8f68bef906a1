"""What events show of what is said: headers, secrets, and payload."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.payload.budget import Payload
from mitml4.regex import regex

__all__ = ["Shown", "is_redacted", "redacted"]

_REDACTED: Final = regex("<redacted, [0-9]+ bytes>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What events show. Nothing else is made or kept."""

    headers: bool = False
    """The headers of messages."""
    redacts: bool = True
    """Whether passwords, cookies and their like are replaced by their length."""
    payload: Payload | None = None
    """Bodies, messages, and the bytes of other innermost layers."""

    def close(self) -> None:
        """The flow is over: give the memory of its payload back."""
        if self.payload:
            self.payload.close()

    def of_flow(self) -> Shown:
        """The same for a flow, which has separate bounds."""
        return replace(self, payload=self.payload.session.of_flow()) if self.payload else self


def redacted(size: int) -> str:
    """What stands for a secret of so many bytes."""
    return f"<redacted, {size} bytes>"


def is_redacted(value: str) -> bool:
    """Whether the value of a header field is what `redacted` returns."""
    return _REDACTED.fullmatch(value) is not None
