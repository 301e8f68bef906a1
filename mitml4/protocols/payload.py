"""What events show of what is said: headers, secrets, and payload."""

from __future__ import annotations

from typing import Final

from mitml4.dataclass import dataclass

__all__ = ["DEFAULT_LIMIT", "DEFAULT_TOTAL", "Payload", "Shown", "redacted"]

DEFAULT_LIMIT: Final = 64 << 10
DEFAULT_TOTAL: Final = 256 << 20


@dataclass(slots=True)
class Payload:
    """The bounds of a session's payload."""

    limit: int = DEFAULT_LIMIT
    """Bytes that are shown of a body, a message, or a direction."""
    left: int = DEFAULT_TOTAL
    """Bytes that may still be shown in the session."""

    def take(self, size: int) -> int:
        """Use up so many bytes of the session's bound; returns how many there are, at most that."""
        taken = min(size, self.left)
        self.left -= taken
        return taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What events show. Nothing else is made or kept."""

    headers: bool = False
    """The headers of messages."""
    secrets: bool = False
    """Passwords, cookies and their like, which are redacted otherwise."""
    payload: Payload | None = None
    """Bodies, messages, and the bytes of other innermost layers."""


def redacted(size: int) -> str:
    """What stands for a secret of so many bytes."""
    return f"<redacted, {size} bytes>"
