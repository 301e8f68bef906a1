"""POP3 up to STLS (RFC 1939, RFC 2449, RFC 2595, RFC 5034).

A client may ask for TLS only in the AUTHORIZATION state. Whatever else the server grants ends that
state, and everything passes unread. During an AUTH the client's lines are responses (`STLS` would
be valid base64).
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Opening, Protocol, Verdict
from mitml4.protocols.parts.lines import TEXT, agree, command
from mitml4.protocols.parts.login import GREETING, InOrder
from mitml4.regex import regex

__all__ = ["PROTOCOL", "Pop3"]

PORTS: Final = (110,)

OWN: Final = frozenset({b"APOP", b"CAPA", b"STLS", b"UIDL", b"USER"})
"""Commands that no other protocol has whose server answers `+OK`."""
SHARED: Final = frozenset(
    {b"AUTH", b"DELE", b"LIST", b"NOOP", b"PASS", b"QUIT", b"RETR", b"RPOP", b"STAT", b"TOP"}
    | {b"XTND"}
)
UNCHANGED: Final = frozenset({b"USER", b"CAPA", b"NOOP", b"LANG", b"UTF8", GREETING})
"""Commands that may be granted without a login."""
LISTS_MECHANISMS: Final = b"AUTH"
SEVERAL_LINES: Final = frozenset({b"CAPA", LISTS_MECHANISMS})
"""Commands that need no login, whose positive reply ends with a line of one dot."""
LONGEST: Final = 8
"""Bytes of a verb that are kept."""

_STATUS: Final = regex(rb"(?:\+OK|-ERR)(?=[ \r\n])")
_NAMED: Final = regex(rb"POP|<[^<> ]+@[^<> ]+>| ready", re.IGNORECASE)
"""The name of the protocol, or the time stamp of APOP (RFC 1939 §7)."""
_TELLTALE: Final = regex(rb"^(?:APOP|CAPA|STLS|UIDL)\b", re.IGNORECASE | re.MULTILINE)


def detect(opening: Opening) -> Verdict:
    """`+OK`, and a command of POP3's; after STLS the command alone."""
    return agree(
        opening,
        command(opening.up, OWN, SHARED),
        _greeting(opening.down),
        name=Pop3.name,
        ports=PORTS,
        named=_NAMED,
        telltale=_TELLTALE,
    )


def _greeting(down: bytes) -> Verdict:
    """The verdict on a greeting: MATCH for `+OK` with a text. Redis says `+OK` and `-ERR`, too."""
    status = _STATUS.match(down)
    if status is None:
        possible = b"+OK".startswith(down) or b"-ERR".startswith(down)
        return Verdict.NEED_MORE if possible else Verdict.REJECT
    welcome = status[0] == b"+OK" and down[4:].strip()
    return Verdict.MATCH if welcome else Verdict.LIKELY


@dataclass(slots=True)
class Pop3(InOrder):
    """Reads commands and replies, until TLS begins or the user is logged in."""

    name: ClassVar[str] = "pop3"

    _listing: bool = False
    """Lines follow, up to one with a dot."""

    def client_line(self, line: bytes) -> None:
        if self.is_response(line):
            return
        word, _, argument = line.partition(b" ")
        verb = word.upper()
        if verb == b"USER":
            self.username = argument
        elif verb == b"APOP":
            self.username = argument.partition(b" ")[0]
        if verb == b"AUTH" and argument:
            self.begin_authentication(argument)
        else:
            self.sent(verb[:LONGEST])
        if verb == b"STLS":
            self.ask()
        elif verb == b"QUIT":
            self.stay_plain()

    def server_line(self, line: bytes) -> None:
        if self._listing:
            self._listing = line != b"."
            self.offer(line)
        elif line.startswith(b"+OK"):
            self._granted(line[4:])
        elif line.startswith(b"-ERR"):
            if self.replied() == b"STLS":
                self.refuse()
        elif not line.startswith(b"+ ") and line != b"+":  # RFC 5034 §4: a challenge
            raise ProtocolError("POP3: a reply without a status")

    def _granted(self, text: bytes) -> None:
        verb = self.replied()
        if verb == GREETING:
            self.greeting = text
        self._listing = verb in SEVERAL_LINES
        if verb == b"STLS":
            self.accept()
        elif verb not in UNCHANGED | SEVERAL_LINES:
            self.let_in()


PROTOCOL: Final = Protocol(
    name=Pop3.name,
    detect=detect,
    converse=lambda context: Pop3(context=context),
    starttls=True,
    client_first=TEXT,
    server_first=b"+-",
)
