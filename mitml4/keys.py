"""The keys of the live table, for its help, the man page and the reference."""

from __future__ import annotations

from typing import Final

__all__ = ["KEYS"]

KEYS: Final = (
    ("q", "end the session; a second time: at once"),
    ("p, Space", "pause or resume the display; flows continue"),
    ("!", "show only flows that failed or were blocked; all again"),
    ("↑ ↓, k j", "scroll by a line"),
    ("Page Up, Page Down", "scroll by a page"),
    ("Home g, End G", "go to the oldest or the newest flow"),
    ("?", "show these keys; any key goes back to the flows"),
)
