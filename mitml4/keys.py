"""The keys of the live table, for its help, the man page and the reference."""

from __future__ import annotations

from typing import Final

__all__ = ["KEYS"]

KEYS: Final = (
    ("↑ ↓, k j", "select a flow, or scroll in one"),
    ("Page Up, Page Down", "the same by a page"),
    ("Home g, End G", "the first, or the last"),
    ("Enter →, Esc ←", "open a flow: its layers, certificates, requests and data; go back"),
    ("f", "follow the newest flow again"),
    ("/", "filter; Enter applies it, Esc drops it"),
    ("s", "sort: as opened, by bytes, by server, by stack"),
    ("!", "show only flows that failed or were blocked; all again"),
    ("p", "pass TLS to this flow's server through from now on; intercept it again"),
    ("b", "block this flow's server from now on; allow it again"),
    ("x", "reset this flow"),
    ("e", "copy the request as a curl command to the terminal's clipboard"),
    ("Space", "pause or resume the display; flows continue"),
    ("q", "go back; then end the session; again: at once"),
    ("?", "show these keys; any key goes back"),
)
