"""FTP's control connection up to AUTH TLS (RFC 959, RFC 2228, RFC 4217).

SMTP greets with `220` too, so nothing is certain before the whole first line has arrived: a line
that names SMTP and not FTP is SMTP's, whatever the client says. After a login no client asks for
TLS, and everything passes; copies are read for the connections of data that they announce.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import field
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Direction, Opening, Protocol, Verdict
from mitml4.protocols.expected import Announcement
from mitml4.protocols.parts.lines import TEXT, agree, code, command
from mitml4.protocols.parts.login import GREETING, InOrder
from mitml4.protocols.parts.tail import COPIED, Tail
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
_SIX: Final = rb"([0-9]{1,3}),([0-9]{1,3}),([0-9]{1,3}),([0-9]{1,3}),([0-9]{1,3}),([0-9]{1,3})"
_ACTIVE: Final = regex(rb"PORT +" + _SIX + rb" *", re.IGNORECASE)
_PASSIVE: Final = regex(rb"227[ -].*?" + _SIX, re.DOTALL)
_EXTENDED_ACTIVE: Final = regex(
    rb"EPRT +\|[12]\|([0-9a-f:.]{2,45})\|([0-9]{1,5})\| *", re.IGNORECASE
)
_EXTENDED_PASSIVE: Final = regex(rb"229[ -].*?\((.)\1\1([0-9]{1,5})\1\)", re.DOTALL)
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


def announced_by(direction: Direction, line: bytes) -> list[Announcement]:
    """The connection of data that a line announces: its address, and for PASV the server's too,
    since a server behind NAT may name an address that its clients ignore."""
    if direction is Direction.UP:
        if six := _ACTIVE.fullmatch(line):
            return [_data(*_address(six.groups()))]
        if found := _EXTENDED_ACTIVE.fullmatch(line):
            return [_data(found[1].decode(), int(found[2]))]
    elif six := _PASSIVE.match(line):
        host, port = _address(six.groups())
        return [_data(host, port), _data(None, port)]
    elif found := _EXTENDED_PASSIVE.match(line):
        return [_data(None, int(found[2]))]
    return []


def _address(six: Sequence[bytes]) -> tuple[str, int]:
    """RFC 959 §3.3: the bytes of an address and of a port, in decimal."""
    numbers = [int(each) for each in six]
    return ".".join(map(str, numbers[:4])), numbers[4] << 8 | numbers[5]


def _data(host: str | None, port: int) -> Announcement:
    return Announcement(protocol="ftp-data", transport="tcp", host=host, port=port)


@dataclass(slots=True)
class Ftp(InOrder):
    """Reads commands and replies, until TLS begins or the user is logged in."""

    name: ClassVar[str] = "ftp"
    repeatable: ClassVar[frozenset[bytes]] = frozenset(
        b"AUTH CLNT FEAT HELP HOST LANG NOOP OPTS SYST".split()
    )

    _tails: dict[Direction, Tail] = field(
        default_factory=lambda: {direction: Tail() for direction in Direction}
    )
    _several_lines: bytes = b""
    """The code of a reply of several lines, until its last line."""

    def stay_plain(self) -> None:
        """Nothing is held back any more, and copies are read."""
        self.details_ready = True
        self.up = self.down = COPIED

    def copied(self, direction: Direction, data: bytes) -> None:
        """Commands and replies that have moved."""
        for line in self._tails[direction].lines(data):
            self.announced += announced_by(direction, line)

    def client_line(self, line: bytes) -> None:
        self.announced += announced_by(Direction.UP, line)
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
        self.announced += announced_by(Direction.DOWN, line)
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
