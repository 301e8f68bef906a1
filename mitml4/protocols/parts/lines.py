"""Detecting text protocols: a client's first word, a server's greeting, and a verdict on both.

Many protocols greet with the same code (`220` is SMTP's, FTP's and others'), and many clients begin
with the same word (`USER` is FTP's, POP3's and IRC's). So neither is certain alone. Each side gets
a separate verdict:

    MATCH       only this protocol says so
    LIKELY      it fits, but other protocols say so too
    NEED_MORE   it may still become one of these
    REJECT      it never will

`agree` combines the two. A server that names its protocol is believed even if the client's words
are unknown, as long as no other protocol knows them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import cache
from typing import Final

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.regex import regex

__all__ = [
    "TEXT",
    "agree",
    "begins",
    "behind_starttls",
    "code",
    "command",
    "in_lines",
    "initials",
    "prefix_pattern",
]

TEXT: Final = bytes({0x09, 0x0A, 0x0D, *range(0x20, 0x7F)})
"""The bytes that the lines of these protocols' clients consist of."""

_DELIMITER: Final = regex(rb"[ \r\n]")
_FITS: Final = (Verdict.MATCH, Verdict.LIKELY)


def prefix_pattern(*units: bytes) -> re.Pattern[bytes]:
    """A pattern whose fullmatch accepts every beginning of these patterns in a row."""
    pattern = b""
    for unit in reversed(units):
        pattern = b"(?:" + unit + pattern + b")?"
    return regex(pattern, re.DOTALL)


def begins(data: bytes, whole: re.Pattern[bytes], partial: re.Pattern[bytes]) -> Verdict:
    """MATCH if `whole` matches at the start, NEED_MORE if `partial` matches all, else REJECT."""
    if whole.match(data):
        return Verdict.MATCH
    return Verdict.NEED_MORE if partial.fullmatch(data) else Verdict.REJECT


def command(up: bytes, own: frozenset[bytes], shared: frozenset[bytes] = frozenset()) -> Verdict:
    """The verdict on the client's first word, in any case: MATCH for an `own` one, LIKELY for a
    `shared` one.

    The word must have ended: `USER` may still become `USERHOST`.
    """
    longest = _longest(own, shared)
    head = up[: longest + 1].upper()
    end = _DELIMITER.search(head)
    if end is None:
        possible = len(head) <= longest and any(word.startswith(head) for word in own | shared)
        return Verdict.NEED_MORE if possible else Verdict.REJECT
    word = head[: end.start()]
    if word in own:
        return Verdict.MATCH
    return Verdict.LIKELY if word in shared else Verdict.REJECT


@cache
def _longest(own: frozenset[bytes], shared: frozenset[bytes]) -> int:
    return max(map(len, own | shared))


def in_lines(up: bytes) -> bool:
    """Whether the client's first line is text, as far as it has arrived."""
    return not up.partition(b"\n")[0].translate(None, TEXT)


def code(down: bytes, codes: Collection[bytes]) -> Verdict:
    """LIKELY if the server's first line begins with one of these codes of three digits."""
    if down[:3] in codes and down[3:4] in (b" ", b"-"):
        return Verdict.LIKELY
    possible = not down or (len(down) < 4 and any(code.startswith(down) for code in codes))
    return Verdict.NEED_MORE if possible else Verdict.REJECT


def agree(
    opening: Opening,
    client: Verdict,
    server: Verdict,
    *,
    name: str,
    ports: tuple[int, ...],
    named: re.Pattern[bytes],
    telltale: re.Pattern[bytes] | None = None,
) -> Verdict:
    """One verdict for a protocol whose server greets: MATCH if one side is certain and the other
    fits.

    Otherwise it is LIKELY where the greeting is certain, where the flow goes to one of the
    protocol's `ports`, where the greeting has the protocol's name (`named`) and only the client's
    words do not fit, or where only the client was seen and its words match `telltale`.

    After the protocol's own STARTTLS the client's word is enough: the client begins anew, and the
    server does not greet again (RFC 3207 §4.2).
    """
    if opening.up and behind_starttls(opening.stack, name):
        return Verdict.MATCH if client is Verdict.LIKELY else client
    if server is Verdict.REJECT or (client is Verdict.REJECT and not in_lines(opening.up)):
        return Verdict.REJECT
    if client is Verdict.REJECT and not opening.down:
        return Verdict.NEED_MORE
    usual = opening.port in ports
    if not opening.down:
        fits = client in _FITS
        told = fits and telltale is not None and telltale.search(opening.up)
        return Verdict.LIKELY if told or (fits and usual) else Verdict.NEED_MORE
    if server not in _FITS:
        return Verdict.NEED_MORE
    if not opening.up:
        if server is Verdict.MATCH:
            return Verdict.MATCH if opening.up_ended else Verdict.LIKELY
    elif client not in _FITS:
        said = named.search(opening.down.partition(b"\n")[0])
        return Verdict.LIKELY if said else Verdict.NEED_MORE
    elif Verdict.MATCH in (client, server):
        return Verdict.MATCH
    return Verdict.LIKELY if usual else Verdict.NEED_MORE


def behind_starttls(stack: tuple[str, ...], name: str) -> bool:
    """Whether this is inside the TLS that the protocol itself began by STARTTLS."""
    return stack[-2:] == (name, "tls")


def initials(words: Iterable[bytes]) -> bytes:
    """Every byte that one of the words can begin with, in both cases."""
    letters = b"".join(sorted({word[:1] for word in words}))
    return letters + letters.lower()
