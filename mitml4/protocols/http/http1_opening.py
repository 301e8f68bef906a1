"""Detecting HTTP/1: a request line, or a line whose answer shows that it is one."""

from __future__ import annotations

import re
from typing import Final

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.http.http1_heads import (
    REQUEST_BEGUN,
    REQUEST_LINE,
    STATUS_BEGUN,
    STATUS_LINE,
    line_verdict,
)
from mitml4.protocols.parts.lines import in_lines
from mitml4.regex import regex

__all__ = ["KNOWN_METHODS", "SIMPLE_REQUEST", "detect"]

# IANA's registry of methods, without CONNECT, PRI and *: a line that begins with one of them
# is LIKELY before it is whole.
KNOWN_METHODS: Final = frozenset(
    b"ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY DELETE GET HEAD LABEL LINK LOCK MERGE "
    b"MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST "
    b"PROPFIND PROPPATCH PUT QUERY REBIND REPORT SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK "
    b"UPDATE UPDATEREDIRECTREF VERSION-CONTROL".split()
)
_LIKELY: Final = regex(rb"(?:\r?\n){0,4}([A-Z-]+) (?:/|https?://)")
# "Simple-Request = "GET" SP Request-URI CRLF" (RFC 1945 §4.1): HTTP/0.9, answered by a page without
# a head. Servers accept more blanks.
SIMPLE_REQUEST: Final = regex(rb"GET {1,16}(?:/|http://)[^\x00-\x20\x7f]* {0,16}\r?\n")
_PAGE: Final = regex(rb"\s{0,8}<(?:!DOCTYPE|HTML|HEAD|TITLE|BODY)[ >]", re.IGNORECASE)
_ODD_REQUEST: Final = regex(rb"(?:\r?\n){0,4}([A-Z-]+)(?=[ \r\n])(?! [^\n]* (?!HTTP)[A-Z]+/[0-9])")
"""A line that begins with a method, and does not end with the version of another protocol."""


def detect(opening: Opening) -> Verdict:
    """A request line; or, from the server's side alone, a status line.

    A capture may take the server for the client, so a status line from the client counts, too.
    """
    if not opening.up:
        said = line_verdict(opening.down, STATUS_LINE, STATUS_BEGUN)
        return Verdict.LIKELY if said is Verdict.MATCH and not opening.up_ended else said
    verdict = line_verdict(opening.up, REQUEST_LINE, REQUEST_BEGUN)
    if verdict is Verdict.MATCH or STATUS_LINE.match(opening.up):
        return Verdict.MATCH
    if verdict is Verdict.REJECT:
        partial = STATUS_BEGUN.fullmatch(opening.up)
        return Verdict.NEED_MORE if partial else _by_answer(opening)
    likely = _LIKELY.match(opening.up)
    known = likely is not None and likely[1] in KNOWN_METHODS
    return Verdict.LIKELY if known else Verdict.NEED_MORE


def _by_answer(opening: Opening) -> Verdict:
    """The verdict on a line that is no request line: the status line, or the page, that answers it
    decides."""
    if not (in_lines(opening.up) or _LIKELY.match(opening.up)):
        return Verdict.REJECT
    answer = line_verdict(opening.down, STATUS_LINE, STATUS_BEGUN)
    if SIMPLE_REQUEST.match(opening.up):
        certain = answer is Verdict.MATCH or _PAGE.match(opening.down)
        return Verdict.MATCH if certain else Verdict.LIKELY
    if answer is not Verdict.MATCH:
        return answer
    odd = _ODD_REQUEST.match(opening.up)
    return Verdict.MATCH if odd and odd[1] in KNOWN_METHODS else Verdict.LIKELY
