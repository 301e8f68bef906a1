"""SMTP and LMTP up to STARTTLS (RFC 5321, RFC 2033, RFC 3207).

Every command has one reply, in order, pipelined or not (RFC 2920). So a queue of the commands under
way says which reply belongs to STARTTLS. The conversation is over, and the rest passes unread, once
no request for TLS can come: after a mail transaction or a login that the server accepted, before a
mail's text, after QUIT. So no text is ever read as commands. A MAIL or AUTH that is refused (`530
Must issue a STARTTLS command first`) changes nothing.
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

__all__ = ["PROTOCOL", "Smtp"]

PORTS: Final = (24, 25, 587)
"""By custom LMTP's, SMTP's, and that of submission (RFC 6409)."""

OWN: Final = frozenset(
    b"BDAT DATA EHLO ETRN EXPN HELO LHLO MAIL RCPT RSET VRFY XCLIENT XFORWARD".split()
)
"""Commands that no other protocol has whose server greets with 220."""
SHARED: Final = frozenset({b"AUTH", b"HELP", b"NOOP", b"QUIT", b"STARTTLS"})
GREETINGS: Final = frozenset(b"220 421 450 451 452 521 550 552 553 554 571".split())
"""RFC 5321 §3.1, RFC 7504: welcome, or one of several refusals."""
LONGEST: Final = len(b"STARTTLS")
"""Bytes of a verb that are kept."""

_NAMED: Final = regex(
    rb"\A(?!.*FTP)(?:.*[SL]MTP|220[ -](?:mail|mx)[^ ]*\.|([45])[0-9]{2}[ -]\1\.[0-9]\.[0-9])",
    re.IGNORECASE,
)
"""The name of the protocol, a host name such as `mail.`, or an enhanced status code (RFC 3463)."""
_TELLTALE: Final = regex(
    rb"\A(?:[EL]HLO|HELO)[ \r\n]|^(?:MAIL FROM|RCPT TO):", re.IGNORECASE | re.MULTILINE
)

PLAIN: Final = frozenset({b"DATA", b"BDAT", b"QUIT"})
"""After these no client asks for TLS."""
PLAIN_IF_ACCEPTED: Final = frozenset({b"MAIL", AUTHENTICATION})
"""Nor after these, unless the server refuses them."""
LISTS_MECHANISMS: Final = frozenset({b"EHLO", b"LHLO"})


def detect(opening: Opening) -> Verdict:
    """The greeting, and a command that fits; after STARTTLS the command alone."""
    return agree(
        opening,
        command(opening.up, OWN, SHARED),
        _greeting(opening.down),
        name=Smtp.name,
        ports=PORTS,
        named=_NAMED,
        telltale=_TELLTALE,
    )


def _greeting(down: bytes) -> Verdict:
    """The verdict on a greeting: MATCH if its first line names SMTP or LMTP (and not FTP)."""
    verdict = code(down, GREETINGS)
    line, newline, _ = down.partition(b"\n")
    named = verdict is Verdict.LIKELY and newline and _NAMED.match(line)
    return Verdict.MATCH if named else verdict


@dataclass(slots=True)
class Smtp(InOrder):
    """Reads commands and replies, until TLS begins or no longer can."""

    name: ClassVar[str] = "smtp"
    repeatable: ClassVar[frozenset[bytes]] = frozenset(b"EHLO HELP LHLO NOOP STARTTLS".split())

    def client_line(self, line: bytes) -> None:
        if self.is_response(line):
            return
        word, _, argument = line.partition(b" ")
        verb = word[:LONGEST].upper()
        if verb == b"AUTH":
            self.begin_authentication(argument)
        else:
            self.sent(verb)
        if verb == b"STARTTLS":
            self.ask()
        elif verb in PLAIN:
            self.stay_plain()

    def server_line(self, line: bytes) -> None:
        code, separator = line[:3], line[3:4]
        if len(code) < 3 or not code.isdigit() or separator not in (b"", b" ", b"-"):
            raise ProtocolError("SMTP: a reply without a code")
        verb = self.awaited
        if verb is None:
            return  # unasked: `421`, the server closes the connection (RFC 5321 §3.8)
        if verb == GREETING and self.greeting is None:
            self.greeting = line[4:]
        if verb in LISTS_MECHANISMS:
            self.offer(line)
        if separator == b"-" or code == b"334":  # RFC 4954 §4: 334 is a challenge
            return
        self.replied()
        if verb == b"STARTTLS" and code == b"220":  # RFC 3207 §4
            self.accept()
        elif verb == b"STARTTLS":
            self.refuse()
        elif verb in PLAIN_IF_ACCEPTED and code[:1] == b"2":
            self.let_in()


PROTOCOL: Final = Protocol(
    name=Smtp.name,
    detect=detect,
    converse=lambda context: Smtp(context=context),
    starttls=True,
    client_first=TEXT,
    server_first=b"245",
)
