"""SMTP and LMTP up to STARTTLS (RFC 5321, RFC 2033, RFC 3207).

Every command has one reply, in order, whether or not they are pipelined (RFC 2920); so a queue of
the commands under way says which reply is STARTTLS's. The conversation is over, and passes
unseen, as soon as it is clear that it stays plain: a mail transaction or an authentication that
the server accepted, a mail's text, QUIT. So a text never has to be told from commands. A MAIL or
AUTH that is refused (`530 Must issue a STARTTLS command first`) changes nothing.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar, Final

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Opening, Protocol, Verdict
from mitml4.protocols.parts.lines import TEXT, agree, behind_starttls, code, command
from mitml4.protocols.parts.starttls import StartTLS

__all__ = ["PROTOCOL", "Smtp"]

PORTS: Final = (24, 25, 587)
"""LMTP's by custom, SMTP's, and that of submission (RFC 6409)."""

OWN: Final = frozenset(
    b"BDAT DATA EHLO ETRN EXPN HELO LHLO MAIL RCPT RSET VRFY XCLIENT XFORWARD".split()
)
"""What nobody says to another server that greets with 220."""
SHARED: Final = frozenset({b"AUTH", b"HELP", b"NOOP", b"QUIT", b"STARTTLS"})
GREETINGS: Final = frozenset(b"220 421 450 451 452 521 550 552 553 554 571".split())
"""RFC 5321 §3.1, RFC 7504: welcome, or one of the ways to send a client away."""
LONGEST: Final = len(b"STARTTLS ")
"""Bytes of a line that tell its command."""

_NAMED: Final = re.compile(
    rb"\A(?!.*FTP)(?:.*[SL]MTP|220[ -](?:mail|mx)[^ ]*\.|([45])[0-9]{2}[ -]\1\.[0-9]\.[0-9])",
    re.IGNORECASE,
)
"""By name, by a host of that kind, or by an enhanced status code (RFC 3463)."""
_TELLTALE: Final = re.compile(
    rb"\A(?:[EL]HLO|HELO)[ \r\n]|^(?:MAIL FROM|RCPT TO):", re.IGNORECASE | re.MULTILINE
)

PLAIN: Final = frozenset({b"DATA", b"BDAT", b"QUIT"})
"""Nobody asks for TLS behind these."""
PLAIN_IF_ACCEPTED: Final = frozenset({b"MAIL", b"AUTH"})
"""Nor behind these, unless the server refuses them."""
LISTS_MECHANISMS: Final = frozenset({b"EHLO", b"LHLO"})

GREETING: Final = b" "
"""Stands in the queue of commands for what the server says unasked; no verb has a space."""
MAX_UNDER_WAY: Final = 1000
"""Commands that may wait for their replies; a client that pipelines stops at the mail's text."""


def detect(opening: Opening) -> Verdict:
    """The greeting, and a command that fits it; the command alone behind STARTTLS.

    RFC 3207 §4.2: after TLS the client begins anew, and the server does not greet again.
    """
    client = command(opening.up, OWN, SHARED)
    if opening.up and behind_starttls(opening.within, Smtp.name):
        return Verdict.MATCH if client is Verdict.LIKELY else client
    server = _greeting(opening.down)
    return agree(opening, client, server, ports=PORTS, named=_NAMED, telltale=_TELLTALE)


def _greeting(down: bytes) -> Verdict:
    """MATCH: its first line says SMTP or LMTP (and not FTP)."""
    verdict = code(down, GREETINGS)
    line, newline, _ = down.partition(b"\n")
    named = verdict is Verdict.LIKELY and newline and _NAMED.match(line)
    return Verdict.MATCH if named else verdict


@dataclass(slots=True)
class Smtp(StartTLS):
    """Commands and replies, until TLS takes over or it is clear that it will not."""

    name: ClassVar[str] = "smtp"

    _under_way: deque[bytes] = field(default_factory=lambda: deque([GREETING]))
    _challenged: bool = False
    """What the client says next is its response in an AUTH."""

    def __post_init__(self) -> None:
        if behind_starttls(self.context.stack, self.name):
            self._under_way.clear()

    def client_line(self, line: bytes) -> None:
        if self._challenged:
            self._challenged = False
            return
        verb = line[:LONGEST].partition(b" ")[0].upper()
        if len(self._under_way) >= MAX_UNDER_WAY:
            raise ProtocolError("SMTP: too many commands without a reply")
        self._under_way.append(verb)
        if verb == b"STARTTLS":
            self.ask()
        elif verb in PLAIN:
            self.stay_plain()
        elif behind_starttls(self.context.stack, self.name):
            self.details_ready = True

    def server_line(self, line: bytes) -> None:
        code, separator = line[:3], line[3:4]
        if len(code) < 3 or not code.isdigit() or separator not in (b"", b" ", b"-"):
            raise ProtocolError("SMTP: a reply without a code")
        if not self._under_way:
            return  # unasked: `421`, the server is about to leave (RFC 5321 §3.8)
        if self._under_way[0] == GREETING and self.greeting is None:
            self.greeting = line[4:]
        if self._under_way[0] in LISTS_MECHANISMS:
            self.offer(line)
        if separator == b"-":
            return
        self._challenged = code == b"334"  # RFC 4954 §4
        if not self._challenged:
            self._replied(self._under_way.popleft(), code)

    def _replied(self, verb: bytes, code: bytes) -> None:
        """The last line of a command's reply has come."""
        if verb == GREETING and self.context.secure:
            self.details_ready = True  # TLS from the start: it is not offered twice
        elif verb == b"STARTTLS" and code == b"220":  # RFC 3207 §4
            self.accept()
        elif verb == b"STARTTLS":
            self.refuse()
        elif verb in PLAIN_IF_ACCEPTED and code[:1] == b"2":
            self.let_in()


PROTOCOL: Final = Protocol(
    name=Smtp.name,
    detect=detect,
    converse=lambda context: Smtp(context=context),
    client_first=TEXT,
    server_first=b"245",
)
