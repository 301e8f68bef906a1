"""How a session tells its user something."""

from __future__ import annotations

from collections.abc import Callable

from mitml4.errors import MitmError

__all__ = ["Complain", "Say"]

Say = Callable[[str], None]
"""Takes a note."""
Complain = Callable[[MitmError], None]
"""Takes an error that does not end the session."""
