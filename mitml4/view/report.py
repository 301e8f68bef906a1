"""The report: one page of HTML that needs no network, no script and no other file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import field
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.model.flow import Flow
from mitml4.view.detail import detail_of
from mitml4.view.markup import Markup, document, joined, table, tag
from mitml4.view.outline import size_text, time_text
from mitml4.view.row import Row, Scale
from mitml4.view.style import STYLE
from mitml4.view.summary import Summary

__all__ = ["MAX_FLOWS", "MAX_SIZE", "Report"]

MAX_FLOWS: Final = 2000
"""Flows that have a row; all are counted."""
MAX_SIZE: Final = 64 << 20
"""Characters of what opens below the rows."""
_MAX_ROWS: Final = 200
"""Of the other tables."""
_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
"""Even markup of an attacker could load nothing and run nothing."""
_KEY: Final = (
    ("intercepted", "TLS decrypted"),
    ("relayed", "without TLS"),
    ("passthrough", "TLS passed through"),
    ("failed", "failed or blocked"),
)


@dataclass(slots=True)
class Report:
    """Is given flows one by one; then makes the page."""

    name: str
    """Of the file that was read."""
    note: str | None = None
    """What is missing, if anything."""
    summary: Summary = field(default_factory=Summary)
    _rows: list[Row] = field(default_factory=list)
    _size: int = 0
    """Of the details of the rows."""

    def add(self, flow: Flow) -> None:
        self.summary.add(flow)
        if len(self._rows) == MAX_FLOWS:
            return
        detail = joined(detail_of(flow))
        if self._size + len(detail) > MAX_SIZE:
            detail = tag("p", "Left out: the page would be too large.", class_="dim")
        self._size += len(detail)
        self._rows.append(Row.of(flow, detail))

    def page(self) -> Iterable[Markup]:
        """The parts of the page, in order."""
        return document(
            title=f"{self.name} – mitml4", style=STYLE, policy=_POLICY, body=self._body()
        )

    def _body(self) -> Iterator[Markup]:
        yield from self._heading()
        yield from self._waterfall()
        yield from self._passed_through()
        yield from self._problems()
        yield from self._hosts()
        yield from self._counts()
        yield from self._certificates()

    def _heading(self) -> Iterator[Markup]:
        summary = self.summary
        yield tag("h1", self.name)
        if summary.first and summary.last:
            span = f"{time_text(summary.first)} to {time_text(summary.last)} UTC"
            yield tag("p", span, class_="dim")
        if self.note:
            yield tag("p", self.note, class_="bad")
        figures = (
            ("flows", f"{summary.flows:,}"),
            ("requests", f"{summary.requests:,}"),
            ("hosts", f"{len(summary.hosts):,}"),
            ("failed", f"{summary.failed:,}"),
            ("passed through", f"{sum(summary.passed_through.values()):,}"),
            ("from clients", size_text(summary.bytes_up)),
            ("from servers", size_text(summary.bytes_down)),
        )
        cards = [tag("div", tag("b", value), what, class_="card") for what, value in figures]
        yield tag("div", cards, class_="cards")

    def _waterfall(self) -> Iterator[Markup]:
        if not self._rows or not self.summary.first or not self.summary.last:
            return
        yield tag("h2", "Flows")
        key = [(tag("span", class_=kind), what) for kind, what in _KEY]
        yield tag("p", "Select a flow for its layers and requests.", key, class_="dim key")
        heads = ("#", "server", "stack", "", "bytes", "time")
        yield tag("div", [tag("span", each) for each in heads], class_="head")
        scale = Scale(self.summary.first, self.summary.last)
        for row in sorted(self._rows, key=lambda row: row.start):
            yield row.markup(scale)
        yield from _left_out(self.summary.flows - len(self._rows), "flows")

    def _passed_through(self) -> Iterator[Markup]:
        found = self.summary.passed_through
        if found:
            yield tag("h2", "Passed through, not decrypted")
            rows = [(*pair, count) for pair, count in found.most_common(_MAX_ROWS)]
            yield table(("server", "why", "#flows"), rows)
            yield from _left_out(len(found) - len(rows), "rows")

    def _problems(self) -> Iterator[Markup]:
        found = self.summary.problems
        if found:
            yield tag("h2", "Problems")
            rows = [(*pair, count) for pair, count in found.most_common(_MAX_ROWS)]
            yield table(("server", "what", "#flows"), rows)
            yield from _left_out(len(found) - len(rows), "rows")

    def _hosts(self) -> Iterator[Markup]:
        hosts = sorted(self.summary.hosts.items(), key=lambda item: -item[1].flows)
        rows = [
            (
                name,
                host.flows,
                host.requests,
                size_text(host.bytes_up),
                size_text(host.bytes_down),
                host.failed or "",
            )
            for name, host in hosts[:_MAX_ROWS]
        ]
        if rows:
            yield tag("h2", "Hosts")
            heads = ("server", "#flows", "#requests", "#from clients", "#from servers", "#failed")
            yield table(heads, rows)
            yield from _left_out(len(hosts) - len(rows), "hosts")

    def _counts(self) -> Iterator[Markup]:
        for title, what, counter in (
            ("Stacks", "stack", self.summary.stacks),
            ("Responses", "status", self.summary.statuses),
        ):
            if counter:
                yield tag("h2", title)
                yield table((what, "#times"), counter.most_common(_MAX_ROWS))
                yield from _left_out(len(counter) - _MAX_ROWS, "rows")

    def _certificates(self) -> Iterator[Markup]:
        found = list(self.summary.certificates.values())
        if not found:
            return
        yield tag("h2", "Certificates of servers")
        rows = []
        for certificate in found[:_MAX_ROWS]:
            said = {name: str(value) for name, value in certificate.details.items()}
            verify = certificate.details.get("verify")
            rows.append(
                (
                    [
                        tag("div", said.get("subject", "")),
                        tag("div", said.get("sha256", ""), class_="mono dim"),
                    ],
                    said.get("issuer", ""),
                    f"{said.get('not_before', '')[:10]} to {said.get('not_after', '')[:10]}",
                    said.get("key", ""),
                    tag(
                        "span",
                        str(verify or "not verified"),
                        class_="bad" if verify not in ("ok", None) else None,
                    ),
                    ", ".join(certificate.servers),
                    certificate.flows,
                )
            )
        heads = ("subject, SHA-256", "issuer", "valid", "key", "verification", "servers", "#flows")
        yield table(heads, rows)
        yield from _left_out(len(found) - len(rows), "certificates")


def _left_out(count: int, what: str) -> Iterator[Markup]:
    if count > 0:
        yield tag("p", f"{count:,} more {what} are left out", class_="dim")
