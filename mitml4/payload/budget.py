"""How much of what is said may be kept: of one body, in one flow, and in the whole session.

Two bounds hold for a session. `left` is used up by what is put into events. `free` is memory for
bodies that have not ended; a flow may hold no more than is still free, so there is always room
for a flow that needs little (as in `sinks/shares.py`).
"""

from __future__ import annotations

from typing import Final

from mitml4.dataclass import dataclass

__all__ = ["DEFAULT_LIMIT", "DEFAULT_TOTAL", "MAX_MEMORY", "Payload", "SessionPayload"]

DEFAULT_LIMIT: Final = 64 << 10
DEFAULT_TOTAL: Final = 256 << 20
MAX_MEMORY: Final = 16 << 20


@dataclass(slots=True, kw_only=True)
class SessionPayload:
    """The bounds of a session."""

    limit: int = DEFAULT_LIMIT
    """Bytes that are shown of a body, a message, or a direction."""
    left: int = DEFAULT_TOTAL
    """Bytes that may still be shown."""
    free: int = MAX_MEMORY
    """Bytes of memory that are not held."""

    def of_flow(self) -> Payload:
        """The bounds of one flow."""
        return Payload(self)


@dataclass(slots=True)
class Payload:
    """The bounds of one flow, for all of its layers."""

    session: SessionPayload
    held: int = 0
    """Bytes of memory that its unfinished bodies hold."""

    @property
    def limit(self) -> int:
        return self.session.limit

    @property
    def is_used_up(self) -> bool:
        """Whether the session shows nothing more."""
        return not self.session.left

    def hold(self, size: int) -> int:
        """Reserve memory. Returns how many bytes of it there are, at most `size`."""
        session = self.session
        if self.is_used_up:
            return 0
        # What it holds must not be more than what is free afterwards.
        granted = min(size, max(0, session.free - self.held) // 2)
        self.held += granted
        session.free -= granted
        return granted

    def release(self, size: int) -> None:
        """Return reserved memory."""
        size = min(size, self.held)
        self.held -= size
        self.session.free += size

    def close(self) -> None:
        """The flow is over, however it ended: return all of its memory."""
        self.release(self.held)

    def take(self, size: int) -> int:
        """Use up the session's total. Returns how many bytes may be shown, at most `size`."""
        taken = min(size, self.session.left)
        self.session.left -= taken
        return taken
