"""What the detectors of text protocols share: a client's first word, and two sides that agree.

Many protocols greet with the same code (`220` is SMTP's, FTP's, and a dozen others'), and many
clients begin with the same word (`USER` is FTP's, POP3's and IRC's). So a greeting or a word alone
is no proof. Each side is judged for itself, by the four verdicts:

    MATCH       nobody else says so
    LIKELY      it fits, and others say so too
    NEED_MORE   it may still become one of these
    REJECT      it never will

and `agree` makes one verdict of the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from mitml4.protocols.conversation import Opening, Verdict

__all__ = ["agree", "begun", "behind_starttls", "command", "initials"]

_DELIMITER: Final = re.compile(rb"[ \r\n]")
_FITS: Final = (Verdict.MATCH, Verdict.LIKELY)


def begun(*units: bytes) -> re.Pattern[bytes]:
    """A pattern that fully matches every beginning of what the units (patterns) spell in a row."""
    pattern = b""
    for unit in reversed(units):
        pattern = b"(?:" + unit + pattern + b")?"
    return re.compile(pattern, re.DOTALL)


def command(up: bytes, own: frozenset[bytes], shared: frozenset[bytes] = frozenset()) -> Verdict:
    """The client's first word, in any case: MATCH if it is an `own` one, LIKELY if a `shared` one.

    The word must have ended: `USER` may still become `USERHOST`.
    """
    longest = max(map(len, own | shared))
    head = up[: longest + 1].upper()
    end = _DELIMITER.search(head)
    if end is None:
        possible = any(word.startswith(head) for word in own | shared)
        return Verdict.NEED_MORE if possible else Verdict.REJECT
    word = head[: end.start()]
    if word in own:
        return Verdict.MATCH
    return Verdict.LIKELY if word in shared else Verdict.REJECT


def agree(
    opening: Opening,
    client: Verdict,
    server: Verdict,
    *,
    port: int,
    telltale: re.Pattern[bytes] | None = None,
) -> Verdict:
    """One verdict for a protocol whose server greets: certain, once one side is and the other fits.

    What is not certain is LIKELY if the greeting is, if the flow goes to the protocol's own `port`,
    or if only the client was seen and says a `telltale` thing.
    """
    if Verdict.REJECT in (client, server):
        return Verdict.REJECT
    if not opening.down:
        told = telltale is not None and telltale.search(opening.up) is not None
        return Verdict.LIKELY if told else Verdict.NEED_MORE
    if server not in _FITS:
        return Verdict.NEED_MORE
    if not opening.up:
        if server is Verdict.MATCH:
            return Verdict.MATCH if opening.up_ended else Verdict.LIKELY
    elif client not in _FITS:
        return Verdict.NEED_MORE
    elif Verdict.MATCH in (client, server):
        return Verdict.MATCH
    return Verdict.LIKELY if opening.port == port else Verdict.NEED_MORE


def behind_starttls(within: tuple[str, ...], name: str) -> bool:
    """Whether this is the inside of a protocol's own TLS, where most begin without a greeting."""
    return within[-2:] == (name, "tls")


def initials(words: Iterable[bytes]) -> bytes:
    """Every byte that one of the words can begin with, in either case."""
    letters = b"".join(sorted({word[:1] for word in words}))
    return letters + letters.lower()
