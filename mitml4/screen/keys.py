"""The keys of the screens, for their help, the man pages and the reference."""

from __future__ import annotations

from typing import Final

__all__ = ["KEYS", "VIEW_KEYS"]

_MOVE: Final = (
    ("↑ ↓, k j", "select a flow, or scroll in one"),
    ("Page Up, Page Down", "the same by a page"),
    ("Home g, End G", "the first, or the last"),
    ("Enter →, Esc ←", "open a flow: layers, certificates, requests, data; go back"),
    ("n, N", "in a flow: the next request, or the one before"),
)
_SELECT: Final = (
    ("/", "filter; Enter applies it, Esc drops it"),
    ("s", "sort: as opened, by bytes, by server, by stack"),
    ("!", "show only flows that failed or were blocked; all again"),
)
_COPY: Final = ("e", "copy the request as a curl command (to the clipboard)")
_WRITE: Final = ("w", "write this flow's events to a new file, flow-N.jsonl")
_HELP: Final = ("?", "show these keys; any key goes back")

KEYS: Final = (
    *_MOVE,
    ("f", "follow the newest flow again"),
    *_SELECT,
    ("p", "pass TLS to this flow's server through from now on; intercept it again"),
    ("b", "block this flow's server from now on; allow it again"),
    ("x", "reset this flow"),
    ("c", "show where clients get the CA, with a QR code"),
    _COPY,
    _WRITE,
    ("Space", "pause or resume the display; flows continue"),
    ("q", "go back; then end the session; again: at once"),
    _HELP,
)
"""Of the live table."""

VIEW_KEYS: Final = (*_MOVE, *_SELECT, _COPY, _WRITE, ("q", "go back; then leave"), _HELP)
"""Of the flows of a file."""
