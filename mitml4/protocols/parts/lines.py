"""What the detectors of text protocols share: a client's first word, and two sides that agree.

Many protocols greet with the same code (`220` is SMTP's, FTP's, and a dozen others'), and many
clients begin with the same word (`USER` is FTP's, POP3's and IRC's). So a greeting or a word alone
is no proof. Each side is examined for itself, by the four verdicts:

    MATCH       nobody else says so
    LIKELY      it fits, and others say so too
    NEED_MORE   it may still become one of these
    REJECT      it never will

and `agree` makes one verdict of the two. A client may say anything, a server that names itself is
believed all the same, as long as nobody else knows what the client says.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import cache
from typing import Final

from mitml4.protocols.conversation import Opening, Verdict

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
"""What the lines of these protocols' clients are made of."""

_DELIMITER: Final = re.compile(rb"[ \r\n]")
_FITS: Final = (Verdict.MATCH, Verdict.LIKELY)


def prefix_pattern(*units: bytes) -> re.Pattern[bytes]:
    """A pattern that fully matches every beginning of what the units (patterns) spell in a row."""
    pattern = b""
    for unit in reversed(units):
        pattern = b"(?:" + unit + pattern + b")?"
    return re.compile(pattern, re.DOTALL)


def begins(data: bytes, whole: re.Pattern[bytes], begun: re.Pattern[bytes]) -> Verdict:
    """MATCH if the bytes begin with the one pattern, NEED_MORE if the other matches all of them."""
    if whole.match(data):
        return Verdict.MATCH
    return Verdict.NEED_MORE if begun.fullmatch(data) else Verdict.REJECT


def command(up: bytes, own: frozenset[bytes], shared: frozenset[bytes] = frozenset()) -> Verdict:
    """The client's first word, in any case: MATCH if it is an `own` one, LIKELY if a `shared` one.

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
    """Whether the client's first line is text, as far as it has come."""
    return not up.partition(b"\n")[0].translate(None, TEXT)


def code(down: bytes, codes: Collection[bytes]) -> Verdict:
    """LIKELY, if the server's first line begins with one of these codes of three digits."""
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
    """One verdict for a protocol whose server greets: certain, once one side is and the other fits.

    What is not certain is LIKELY if the greeting is, if the flow goes to one of the protocol's own
    `ports`, if the greeting says the name of the protocol and only the client's words do not fit,
    or if only the client was seen and says a `telltale` thing.

    Behind the protocol's own STARTTLS the client begins anew, and its word is enough: the server
    does not greet again (RFC 3207 §4.2).
    """
    if opening.up and behind_starttls(opening.within, name):
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


def behind_starttls(within: tuple[str, ...], name: str) -> bool:
    """Whether this is the inside of a protocol's own TLS, where most begin without a greeting."""
    return within[-2:] == (name, "tls")


def initials(words: Iterable[bytes]) -> bytes:
    """Every byte that one of the words can begin with, in either case."""
    letters = b"".join(sorted({word[:1] for word in words}))
    return letters + letters.lower()
