"""A flow in a few words."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from mitml4.events import FAILURES
from mitml4.model.flow import Flow
from mitml4.model.names import NAMES

__all__ = ["has_failed", "outline", "size_text", "stack_text", "time_text"]

_MAX_FACTS: Final = 3


def has_failed(flow: Flow) -> bool:
    return bool(flow.problems) or flow.reason in FAILURES


def outline(flow: Flow) -> str:
    """The most important of it in a few words."""
    if flow.problems:
        return f"{flow.problems[0].side}: {flow.problems[0].reason}"
    if flow.reason in FAILURES or flow.reason in ("blocked", "denied"):
        return str(flow.reason)
    if flow.passthrough:
        return f"passed through: {flow.passthrough}"
    innermost = max((each.depth for each in flow.exchanges), default=0)
    exchanges = [each for each in flow.exchanges if each.depth == innermost]
    if not exchanges:
        return _facts(flow)
    first, more = exchanges[0], len(exchanges) - 1
    status = first.response.status if first.response else "–"
    edited = "edited: " if flow.is_edited else ""
    text = f"{edited}{status} {first.request.method} {first.request.url}"
    return f"{text} and {more} more" if more else text


def _facts(flow: Flow) -> str:
    """The first details of the innermost layer that has any, but the server's name."""
    for layer in reversed(flow.layers):
        known = (value for name, value in layer.details.items() if name not in NAMES)
        shown = [str(each) for each in known if each and type(each) in (str, int)]
        if shown:
            return ", ".join(shown[:_MAX_FACTS])
    return ""


def stack_text(flow: Flow) -> str:
    return " › ".join(flow.stack) or "–"


def size_text(count: int | None) -> str:
    """A number of bytes: `999 B`, `1.2 kB`, `34 MB`."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.1f} {unit}" if value < 9.95 and unit != "B" else f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def time_text(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}.{time.microsecond // 1000:03}"
