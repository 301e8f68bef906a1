"""The keys of `view` on a terminal, for its help, the man page and the reference."""

from __future__ import annotations

from typing import Final

__all__ = ["KEYS"]

KEYS: Final = (
    ("↑ ↓, k j", "select a flow, or scroll in one"),
    ("Page Up, Page Down", "the same by a page"),
    ("Home g, End G", "the first, or the last"),
    ("Enter →, Esc ←", "open a flow: its layers, certificates, requests and data; go back"),
    ("/", "filter; Enter applies it, Esc drops it"),
    ("s", "sort: as opened, by bytes, by server, by stack"),
    ("!", "show only flows that failed or were blocked; all again"),
    ("e", "copy the request as a curl command to the terminal's clipboard"),
    ("q", "go back; then leave"),
    ("?", "show these keys; any key goes back"),
)
