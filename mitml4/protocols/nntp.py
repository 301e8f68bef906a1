"""NNTP up to STARTTLS (RFC 3977, RFC 4642, RFC 4643).

Once the server has granted a login, a group or an article, no client asks for TLS, and everything
passes unread. So no list or text of articles is ever read as commands. During an `AUTHINFO SASL`
the client's lines are responses.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Opening, Protocol, Verdict
from mitml4.protocols.parts.lines import TEXT, agree, code, command
from mitml4.protocols.parts.login import AUTHENTICATION, GREETING, InOrder
from mitml4.regex import regex

__all__ = ["PROTOCOL", "Nntp"]

PORTS: Final = (119,)

OWN: Final = frozenset(
    b"ARTICLE AUTHINFO CAPABILITIES CHECK DATE GROUP HDR IHAVE LISTGROUP NEWGROUPS NEWNEWS OVER "
    b"SLAVE STARTTLS TAKETHIS XHDR XOVER XZVER".split()
)
"""Commands that no other protocol has whose server greets with 200 or 201."""
SHARED: Final = frozenset({b"HELP", b"LIST", b"MODE", b"QUIT"})
GREETINGS: Final = frozenset({b"200", b"201", b"400", b"502", b"503"})
"""RFC 3977 §5.1: with and without posting, not now, not allowed; and 503, which Leafnode sends."""
AUTHINFO: Final = b"AUTHINFO"
UNCHANGED: Final = frozenset({GREETING, b"CAPABILITIES", b"DATE", b"HELP", b"MODE", b"STARTTLS"})
"""Commands that may be granted before a request for TLS."""
LONGEST: Final = 16
"""Bytes of a verb that are kept."""

_MODE: Final = regex(rb"MODE +(?:READER|STREAM)\r?\n", re.IGNORECASE)
_NAMED: Final = regex(rb"NNTP|NNRP|\bINN\b|NetNews|\bnews|Usenet|Leafnode", re.IGNORECASE)
_TELLTALE: Final = regex(
    rb"^(?:AUTHINFO (?:USER|SASL)|CAPABILITIES|LISTGROUP|MODE (?:READER|STREAM)|NEWGROUPS|XOVER)\b",
    re.IGNORECASE | re.MULTILINE,
)
_REPLY: Final = regex(rb"([1-5][0-9]{2})(?: (.*))?", re.DOTALL)


def detect(opening: Opening) -> Verdict:
    """`200` or `201`, and a command of NNTP's; after STARTTLS the command alone."""
    client = command(opening.up, OWN, SHARED)
    if client is Verdict.LIKELY and _MODE.match(opening.up):
        client = Verdict.MATCH
    return agree(
        opening,
        client,
        _greeting(opening.down),
        name=Nntp.name,
        ports=PORTS,
        named=_NAMED,
        telltale=_TELLTALE,
    )


def _greeting(down: bytes) -> Verdict:
    """The verdict on a greeting: MATCH if it names NNTP, or a server of it."""
    verdict = code(down, GREETINGS)
    line, newline, _ = down.partition(b"\n")
    named = verdict is Verdict.LIKELY and newline and _NAMED.search(line)
    return Verdict.MATCH if named else verdict


@dataclass(slots=True)
class Nntp(InOrder):
    """Reads commands and replies, until TLS begins or no longer can."""

    name: ClassVar[str] = "nntp"

    _listing: bool = False
    """Lines follow, up to the last one of a reply."""

    def client_line(self, line: bytes) -> None:
        if self.is_response(line):
            return
        verb, kind, argument = (*line.split(b" ", 2), b"", b"")[:3]
        verb, kind = verb.upper(), kind.upper()
        if verb == AUTHINFO and kind == b"USER":
            self.username = argument
        if verb == AUTHINFO and kind == b"SASL":
            self.begin_authentication(argument)
        else:
            self.sent(verb[:LONGEST])
        if verb == b"STARTTLS":
            self.ask()
        elif verb in (b"TAKETHIS", b"QUIT"):
            self.stay_plain()  # an article's text follows, or nothing

    def server_line(self, line: bytes) -> None:
        if self._listing:
            self._listing = line != b"."
            self.offer(line)
            return
        reply = _REPLY.fullmatch(line)
        if reply is None:
            raise ProtocolError("NNTP: a reply without a code")
        code, text = reply.groups()
        verb = self.awaited
        if verb == AUTHENTICATION and code == b"383":  # RFC 4643 §2.4: a challenge
            return
        self.replied()
        if verb == GREETING:
            self.greeting = text or b""
        # RFC 3977 §3.2: these two are followed by lines, up to a lone dot.
        self._listing = (verb, code) in ((b"CAPABILITIES", b"101"), (b"HELP", b"100"))
        if verb == b"STARTTLS":
            self._answered(code)
        elif verb not in UNCHANGED and code != b"381" and code[:1] in (b"2", b"3"):
            self.let_in()  # 381 asks for the password

    def _answered(self, code: bytes) -> None:
        if code == b"382":  # RFC 4642 §2.2
            self.accept()
        else:
            self.refuse()


PROTOCOL: Final = Protocol(
    name=Nntp.name,
    detect=detect,
    converse=lambda context: Nntp(context=context),
    starttls=True,
    client_first=TEXT,
    server_first=b"245",
)
