"""SMTP and LMTP up to STARTTLS (RFC 5321, RFC 2033, RFC 3207).

Every command has one reply, in order, whether or not they are pipelined (RFC 2920); so a queue of
the commands under way says which reply is STARTTLS's. The conversation is over, and passes
unseen, as soon as it is clear that it stays plain: a mail transaction or an authentication that
the server accepted, a mail's text, QUIT. So a text never has to be told from commands. A MAIL or
AUTH that is refused (`530 Must issue a STARTTLS command first`) changes nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar, Final

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Opening, Protocol, Verdict
from mitml4.protocols.starttls import StartTLS

__all__ = ["PROTOCOL", "Smtp"]

HELLOS: Final = frozenset({b"EHLO", b"HELO", b"LHLO"})
"""What nobody but a client of SMTP or LMTP says."""
COMMANDS: Final = HELLOS | {b"AUTH", b"HELP", b"MAIL", b"NOOP", b"QUIT", b"RSET", b"STARTTLS"}
"""What a client may begin with, if the greeting says whose it is."""
LONGEST: Final = len(b"STARTTLS ")
"""Bytes of a line that tell its command."""

PLAIN: Final = frozenset({b"DATA", b"BDAT", b"QUIT"})
"""Nobody asks for TLS behind these."""
PLAIN_IF_ACCEPTED: Final = frozenset({b"MAIL", b"AUTH"})
"""Nor behind these, unless the server refuses them."""

GREETING: Final = b" "
"""Stands in the queue of commands for what the server says unasked; no verb has a space."""
MAX_UNDER_WAY: Final = 1000
"""Commands that may wait for their replies; a client that pipelines stops at the mail's text."""


def detect(opening: Opening) -> Verdict:
    """The greeting, and a command that fits it; the command alone behind STARTTLS."""
    client = _command(opening.up)
    if client is not Verdict.NEED_MORE and _behind_starttls(opening.within):
        return client if client is Verdict.REJECT else Verdict.MATCH
    server = _greeting(opening.down)
    if Verdict.REJECT in (client, server):
        return Verdict.REJECT
    if client is Verdict.MATCH:
        return Verdict.MATCH if len(opening.down) > len(b"220") else Verdict.LIKELY
    if server is not Verdict.MATCH:
        anonymous = client is Verdict.LIKELY and b"\n" in opening.down
        return Verdict.REJECT if anonymous else Verdict.NEED_MORE
    return Verdict.MATCH if client is Verdict.LIKELY or opening.up_ended else Verdict.LIKELY


def _command(up: bytes) -> Verdict:
    """MATCH: a hello; LIKELY: a command that other protocols know too."""
    word = up[:LONGEST].upper().replace(b"\r", b" ").replace(b"\n", b" ")
    verb, delimiter, _ = word.partition(b" ")
    if not delimiter:
        known = any(command.startswith(verb) for command in COMMANDS)
        return Verdict.NEED_MORE if known else Verdict.REJECT
    if verb in HELLOS:
        return Verdict.MATCH
    return Verdict.LIKELY if verb in COMMANDS else Verdict.REJECT


def _greeting(down: bytes) -> Verdict:
    """MATCH: its first line says SMTP or LMTP (and not FTP); NEED_MORE: it may be anyone's."""
    if not (down.startswith((b"220 ", b"220-")) or b"220".startswith(down)):
        return Verdict.REJECT
    line, newline, _ = down.upper().partition(b"\n")
    named = (b"SMTP" in line or b"LMTP" in line) and b"FTP" not in line
    return Verdict.MATCH if newline and named else Verdict.NEED_MORE


def _behind_starttls(within: tuple[str, ...]) -> bool:
    """RFC 3207 §4.2: after TLS the client begins anew, and the server does not greet again."""
    return within[-2:] == ("smtp", "tls")


@dataclass(slots=True)
class Smtp(StartTLS):
    """Commands and replies, until TLS takes over or it is clear that it will not."""

    name: ClassVar[str] = "smtp"

    _under_way: deque[bytes] = field(default_factory=lambda: deque([GREETING]))

    def __post_init__(self) -> None:
        if _behind_starttls(self.around.within):
            self._under_way.clear()

    def client_line(self, line: bytes) -> None:
        verb = line[:LONGEST].partition(b" ")[0].upper()
        if len(self._under_way) >= MAX_UNDER_WAY:
            raise ProtocolError("SMTP: too many commands without a reply")
        self._under_way.append(verb)
        if verb == b"STARTTLS":
            self.ask()
        elif verb in PLAIN or _behind_starttls(self.around.within):
            self.stay_plain()

    def server_line(self, line: bytes) -> None:
        code, separator = line[:3], line[3:4]
        if len(code) < 3 or not code.isdigit() or separator not in (b"", b" ", b"-"):
            raise ProtocolError("SMTP: a reply without a code")
        if not self._under_way:
            return  # unasked: `421`, the server is about to leave (RFC 5321 §3.8)
        if self._under_way[0] == GREETING and self.greeting is None:
            self.greeting = line[4:]
        if separator != b"-":
            self._replied(self._under_way.popleft(), code)

    def _replied(self, verb: bytes, code: bytes) -> None:
        """The last line of a command's reply has come."""
        if verb == GREETING and self.around.secure:
            self.stay_plain()  # TLS from the start: it is not offered twice
        elif verb == b"STARTTLS" and code == b"220":  # RFC 3207 §4
            self.accept()
        elif verb == b"STARTTLS":
            self.refuse()
        elif verb in PLAIN_IF_ACCEPTED and code[:1] in (b"2", b"3"):
            self.stay_plain()


def _initials() -> bytes:
    initials = b"".join(command[:1] for command in sorted(COMMANDS))
    return initials + initials.lower()


PROTOCOL: Final = Protocol(
    name=Smtp.name,
    detect=detect,
    converse=lambda around: Smtp(around=around),
    client_first=_initials(),
    server_first=b"2",
)
