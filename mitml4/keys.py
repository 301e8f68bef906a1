"""The keys of the live table, as its help, the man page and the reference name them."""

from __future__ import annotations

from typing import Final

__all__ = ["KEYS"]

KEYS: Final = (
    ("q", "end the session; again: at once"),
    ("p, Space", "pause the picture, and go on; the flows never pause"),
    ("!", "show only flows that failed or were blocked; all again"),
    ("↑ ↓, k j", "scroll by a line"),
    ("Page Up, Page Down", "scroll by a page"),
    ("Home g, End G", "the oldest flow that is kept, the newest"),
    ("?", "show these keys; any key goes back to the flows"),
)
