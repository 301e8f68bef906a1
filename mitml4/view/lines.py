"""A flow in one line of text."""

from __future__ import annotations

from mitml4.model.flow import Flow
from mitml4.printable import printable
from mitml4.view.detail import outline, size_text

__all__ = ["line_of"]


def line_of(flow: Flow) -> str:
    """Its number, server, stack, what happened, and its bytes."""
    parts = (
        f"{flow.number:>6}  {flow.server}",
        " › ".join(flow.stack) or "–",
        outline(flow),
        f"↑ {size_text(flow.bytes_up)} ↓ {size_text(flow.bytes_down)}",
    )
    return printable("  ".join(filter(None, parts)))
