"""HTML in which no text can become markup.

An element is made by `tag` only. A child or attribute that is a `str` is text: it is escaped,
whatever it contains. Only a `Markup` is taken as it is, and only this module makes one of text.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final, TypeAlias

from mitml4.printable import printable

__all__ = ["Child", "Markup", "block", "document", "joined", "table", "tag"]

_VOID: Final = frozenset({"meta", "br"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child: TypeAlias = str | int | Iterable["Child"] | None
"""Text, a number, an element, nothing, or several of them."""


def tag(name: str, /, *children: Child, **attributes: str | int | None) -> Markup:
    """An element. `class_` is the attribute `class`; an attribute that is None is left out."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(printable(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{pairs}>")
    return Markup(f"<{name}{pairs}>{joined(children)}</{name}>")


def block(text: str, **attributes: str | int | None) -> Markup:
    """A text of several lines, as it is."""
    lines = [printable(line.replace("\t", "    ")) for line in text.splitlines()]
    return tag("pre", Markup(escape("\n".join(lines))), **attributes)


def table(head: Iterable[str], rows: Iterable[Iterable[Child]]) -> Markup:
    """A table; columns whose heading begins with `#` are numbers."""
    heads = list(head)
    classes = ["number" if each.startswith("#") else None for each in heads]
    cells = [
        tag("th", each.lstrip("#"), class_=kind) for each, kind in zip(heads, classes, strict=True)
    ]
    body = [
        tag("tr", [tag("td", cell, class_=kind) for cell, kind in zip(row, classes, strict=True)])
        for row in rows
    ]
    return tag(
        "div", tag("table", tag("thead", tag("tr", cells)), tag("tbody", body)), class_="scroll"
    )


def document(*, title: str, style: str, policy: str, body: Iterable[Markup]) -> Iterable[Markup]:
    """The parts of a page. `style` is ours, and is not escaped; `policy` is its Content Security
    Policy."""
    yield Markup("<!doctype html>\n<html lang=en>\n")
    yield tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    yield Markup("\n<body>\n")
    yield from body
    yield Markup("</body>\n</html>\n")


def joined(children: Child) -> Markup:
    """Several children as one."""
    match children:
        case None:
            return Markup()
        case Markup():
            return children
        case str():
            return Markup(escape(printable(children)))
        case int():
            return Markup(str(children))
    return Markup("".join(map(joined, children)))
