"""A row of the report: a flow in the waterfall, and what opens below it."""

from __future__ import annotations

from datetime import datetime

from mitml4.dataclass import dataclass
from mitml4.model.flow import Flow
from mitml4.view.detail import MAX_EXCHANGES
from mitml4.view.markup import Markup, tag
from mitml4.view.outline import has_failed, outline, size_text, stack_text

__all__ = ["Row", "Scale"]


@dataclass(frozen=True, slots=True)
class Scale:
    """The time that the width of the waterfall stands for."""

    first: datetime
    last: datetime

    def bar(self, kind: str, start: datetime, duration_s: float, *, part: bool = False) -> Markup:
        whole_s = max((self.last - self.first).total_seconds(), 1e-6)
        begin = min(max((start - self.first).total_seconds() / whole_s, 0), 1)
        length = min(max(duration_s / whole_s, 0), 1 - begin)
        style = f"--from:{begin * 100:.3f};--for:{length * 100:.3f}"
        return tag("div", class_=f"bar {kind}{' part' if part else ''}", style=style)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a row needs of its flow."""

    number: int
    server: str
    stack: str
    outline: str
    size: str
    kind: str
    """Its colour."""
    start: datetime
    duration_s: float
    exchanges: tuple[tuple[datetime, float], ...]
    """When each began, and how long it took."""
    detail: Markup

    @classmethod
    def of(cls, flow: Flow, detail: Markup) -> Row:
        return cls(
            number=flow.number,
            server=str(flow.server),
            stack=stack_text(flow),
            outline=outline(flow),
            size=f"↑ {size_text(flow.bytes_up)} ↓ {size_text(flow.bytes_down)}",
            kind=_kind(flow),
            start=flow.opened_at,
            duration_s=flow.duration_s or 0,
            exchanges=tuple(
                (each.request.time, each.duration_s or 0) for each in flow.exchanges[:MAX_EXCHANGES]
            ),
            detail=detail,
        )

    def markup(self, scale: Scale) -> Markup:
        bars = [
            scale.bar(self.kind, self.start, self.duration_s),
            *(scale.bar(self.kind, *each, part=True) for each in self.exchanges),
        ]
        head = tag(
            "summary",
            tag("span", self.number, class_="number dim"),
            tag("span", self.server, title=self.server),
            tag("span", self.stack, title=self.stack),
            tag("span", self.outline, class_="bad" if self.kind == "failed" else None),
            tag("span", self.size),
            tag("div", bars, class_="track"),
        )
        return tag("details", head, tag("div", self.detail), class_="flow")


def _kind(flow: Flow) -> str:
    """Which colour it has."""
    if has_failed(flow) or flow.reason in ("blocked", "denied"):
        return "failed"
    if flow.passthrough:
        return "passthrough"
    opened = any(
        each.action == "intercepted" or (each.action == "answered" and each.protocol == "tls")
        for each in flow.layers
    )
    return "intercepted" if opened else "relayed"
