"""FTP's control connection up to AUTH TLS (RFC 959, RFC 2228, RFC 4217).

SMTP greets with `220` too, so nothing is certain before the whole first line has arrived: a line
that names SMTP and not FTP is SMTP's, whatever the client says. After a login no client asks for
TLS, and everything passes unread.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Opening, Protocol, Verdict
from mitml4.protocols.parts.lines import TEXT, agree, code, command
from mitml4.protocols.parts.login import GREETING, InOrder
from mitml4.regex import regex

__all__ = ["PROTOCOL", "Ftp"]

PORTS: Final = (21,)

OWN: Final = frozenset(
    b"ACCT ADAT ALLO APPE CCC CDUP CLNT CWD DELE EPRT EPSV FEAT HOST LANG MDTM MKD MLSD MLST NLST "
    b"OPTS PASS PASV PBSZ PORT PROT PWD REIN RETR RMD SITE SIZE STOR SYST TYPE USER XPWD".split()
)
"""Commands that SMTP does not have."""
AUTH: Final = b"AUTH"
SHARED: Final = frozenset({AUTH, b"HELP", b"LIST", b"NOOP", b"QUIT", b"STAT"})
GREETINGS: Final = frozenset({b"120", b"220", b"421", b"530"})
"""RFC 959 §5.4: soon, welcome, or not now; and 530, by which servers refuse a client."""
TLS: Final = frozenset({b"TLS", b"TLS-C", b"TLS-P", b"SSL"})
"""RFC 4217 §2, §16: names of this mechanism; SASL has none of them."""

_ASKS_FOR_TLS: Final = regex(rb"AUTH +(?:TLS|SSL)(?:-[CP])?\r?\n", re.IGNORECASE)
_NAMED: Final = regex(rb"FTP|FileZilla", re.IGNORECASE)
_MAIL: Final = regex(rb"[SL]MTP", re.IGNORECASE)
_TELLTALE: Final = regex(
    rb"^(?:AUTH (?:TLS|SSL)|CWD|EPSV|FEAT|MDTM|MLSD|NLST|PASV|PBSZ|PROT [CP]|SYST|TYPE [AI])\b",
    re.IGNORECASE | re.MULTILINE,
)
_REPLY: Final = regex(rb"([1-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)


def detect(opening: Opening) -> Verdict:
    """A `220` that is not SMTP's, and a command of FTP's; after AUTH TLS the command alone."""
    client = command(opening.up, OWN, SHARED)
    if client is Verdict.LIKELY and _ASKS_FOR_TLS.match(opening.up):
        client = Verdict.MATCH
    return agree(
        opening,
        client,
        _greeting(opening.down),
        name=Ftp.name,
        ports=PORTS,
        named=_NAMED,
        telltale=_TELLTALE,
    )


def _greeting(down: bytes) -> Verdict:
    """The verdict on a greeting: MATCH if it names FTP."""
    verdict = code(down, GREETINGS)
    if verdict is not Verdict.LIKELY:
        return verdict
    first, newline, _ = down.partition(b"\n")
    if not newline:
        return Verdict.NEED_MORE
    if _MAIL.search(first) and not _NAMED.search(first):
        return Verdict.REJECT
    return Verdict.MATCH if _NAMED.search(down) else Verdict.LIKELY


@dataclass(slots=True)
class Ftp(InOrder):
    """Reads commands and replies, until TLS begins or the user is logged in."""

    name: ClassVar[str] = "ftp"
    repeatable: ClassVar[frozenset[bytes]] = frozenset(
        b"AUTH CLNT FEAT HELP HOST LANG NOOP OPTS SYST".split()
    )

    _several_lines: bytes = b""
    """The code of a reply of several lines, until its last line."""

    def client_line(self, line: bytes) -> None:
        word, _, argument = line.partition(b" ")
        verb = word.upper()
        if verb == b"USER":
            self.username = argument
        asks = verb == AUTH and argument.strip().upper() in TLS
        self.sent(b"TLS" if asks else verb[:4])
        if asks:
            self.ask()
        elif verb == b"QUIT":
            self.stay_plain()

    def server_line(self, line: bytes) -> None:
        """RFC 959 §4.2: `123-first`, any lines, and `123 last` make one reply."""
        if self._several_lines:
            if line[:3] == self._several_lines and line[3:4] in (b" ", b""):
                self._finish(self._several_lines)
            return
        reply = _REPLY.fullmatch(line)
        if reply is None:
            raise ProtocolError("FTP: a reply without a code")
        code, separator, text = reply.groups()
        if self.awaited == GREETING and self.greeting is None:
            self.greeting = text or b""
        if separator == b"-":
            self._several_lines = code
        else:
            self._finish(code)

    def _finish(self, code: bytes) -> None:
        self._several_lines = b""
        if code.startswith(b"1"):
            return  # "requested action is being initiated; expect another reply"
        verb = self.replied()
        if verb == b"TLS" and code == b"234":  # RFC 4217 §4
            self.accept()
        elif verb == b"TLS":
            self.refuse()
        elif verb == AUTH and code[:1] in (b"2", b"3"):
            self.stay_plain()  # GSSAPI and similar mechanisms wrap everything after this
        elif verb in (b"USER", b"PASS", b"ACCT") and code.startswith(b"2"):
            self.stay_plain()


PROTOCOL: Final = Protocol(
    name=Ftp.name,
    detect=detect,
    converse=lambda context: Ftp(context=context),
    starttls=True,
    client_first=TEXT,
    server_first=b"1245",
)
