"""IRC up to STARTTLS (RFC 1459, RFC 2812, and the `tls` extension of IRCv3).

FTP and POP3 clients begin with the same lines (`USER`, `PASS`), so only the server's answer makes
it certain. Replies have numbers, and their order does not matter: 670 grants STARTTLS; 001 says
that the client is registered, and after that no client asks for TLS.
"""

from __future__ import annotations

import re
from dataclasses import field
from ipaddress import ip_address
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import PAUSE, Direction, Opening, Protocol, Verdict
from mitml4.protocols.expected import Announcement
from mitml4.protocols.parts.lines import (
    TEXT,
    begins,
    behind_starttls,
    command,
    in_lines,
    initials,
)
from mitml4.protocols.parts.login import Login, LoginDetails
from mitml4.protocols.parts.tail import COPIED, Tail
from mitml4.regex import regex

__all__ = ["PROTOCOL", "Irc", "IrcDetails"]

PORT: Final = 6667

COMMANDS: Final = frozenset(
    b"AUTHENTICATE CAP JOIN LIST MODE NICK NOTICE PASS PING PONG PRIVMSG PROTOCTL QUIT SERVER "
    b"STARTTLS USER WEBIRC".split()
)
"""What a client, or another server, may begin with."""

_WORDS: Final = rb"AUTHENTICATE|CAP|ERROR(?= :)|MODE|NOTICE|PASS|PING|PRIVMSG|SERVER"
_PREFIX: Final = rb":[^ \r\n]{1,255}"
_BARE: Final = (
    rb"AUTHENTICATE [^ \r\n]+\r?\n|CAP [^ \r\n]+ [A-Z]+ |ERROR :|MODE [^ \r\n]+ :?[-+]"
    rb"|(?:NOTICE|PRIVMSG) [^ \r\n]+ :|PASS [^ \r\n]+ (?:[0-9]{4}|:?TS)"
    rb"|PING (?::|[0-9A-F]{4,}\r?\n)|SERVER [^ \r\n]+ [0-9]+ "
)
"""Messages without a prefix. Their parameters tell them from words of a text (RFC 2812 §3)."""
_ANSWER: Final = regex(_PREFIX + rb" +(?:[0-9]{3}|" + _WORDS + rb") |" + _BARE, re.IGNORECASE)
_ANSWER_BEGUN: Final = regex(
    rb":|" + _PREFIX + rb"(?: +(?:[0-9]{0,3}|[A-Z]{0,12} ?))?"
    rb"|[A-Z]{0,12}|(?:" + _WORDS.replace(b"(?= :)", b"") + rb") [^\n]{0,511}",
    re.IGNORECASE,
)
_TELLTALE_ANSWER: Final = regex(
    _PREFIX
    + rb" +(?:[0-9]{3} [^ \r\n]+ |CAP \S+ LS |NOTICE \S+ :)|NOTICE AUTH :|ERROR :Closing Link"
)
"""Answers that only servers of IRC give."""
_TELLTALE: Final = regex(
    rb"(?:(?:PASS|USER|WEBIRC)[^\n]*\n)*(?:CAP (?:LS|REQ|END|LIST)|NICK)[^\n]*\n"
    rb" *(?:CAP|JOIN|NICK|PASS|USER)[ \r\n]"
    rb"|(?:PRIVMSG|NOTICE) [^ \r\n]+ :",
    re.IGNORECASE,
)
"""A second line that only IRC has after such a first line; or a message."""
_IN_THE_MIDDLE: Final = regex(
    rb":[^\0- !@\x7f-\xff]{1,64}![^\0- !@\x7f-\xff]{1,64}@[!-~]{1,255} "
    rb"(?:JOIN|KICK|MODE|NICK|NOTICE|PART|PRIVMSG|QUIT)[ \r]"
    rb"|:[!-~]{1,255} [0-9]{3} [!-~]+ [\t\r -~]*\n:"
)
"""Messages that a server relays, and its numeric replies: a capture that begins midway may take the
server for the client."""
_DCC: Final = regex(
    rb"\x01DCC (?:SEND|CHAT|RESUME|TSEND) (?:\"[^\"]*\"|[^ ]+) ([0-9]{1,10}|[0-9A-Fa-f:.]{2,45})"
    rb" ([1-9][0-9]{0,4})(?: [0-9]+)*\x01",
    re.IGNORECASE,
)
_LINE: Final = regex(rb"(?::([^ ]*) +)?([^ ]+)(?: +(.*))?", re.DOTALL)


def detect(opening: Opening) -> Verdict:
    """A command, and an answer that fits; from one side alone, only what is IRC's alone."""
    if opening.up.startswith(b":"):
        return _in_the_middle(opening.up)
    client = command(opening.up, COMMANDS)
    if opening.up and behind_starttls(opening.stack, Irc.name):
        return client
    server = _answer(opening.down)
    if server is Verdict.REJECT or (client is Verdict.REJECT and not in_lines(opening.up)):
        return Verdict.REJECT
    if client is server is Verdict.MATCH:
        return Verdict.MATCH
    usual = client is Verdict.MATCH and opening.port == PORT
    told = usual or _TELLTALE.match(opening.up) or _TELLTALE_ANSWER.match(opening.down)
    return Verdict.LIKELY if told else Verdict.NEED_MORE


def _in_the_middle(up: bytes) -> Verdict:
    """A message with its sender, which only servers pass on."""
    if _IN_THE_MIDDLE.match(up):
        return Verdict.MATCH
    return Verdict.NEED_MORE if in_lines(up) else Verdict.REJECT


def _answer(down: bytes) -> Verdict:
    return begins(down, _ANSWER, _ANSWER_BEGUN)


def _offered(address: bytes) -> str | None:
    """An address of version 4 is one number; None: none that can be connected to."""
    try:
        return str(ip_address(int(address) if address.isdigit() else address.decode()))
    except ValueError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class IrcDetails(LoginDetails):
    """Names of the client and of the server."""

    nick: bytes | None = None
    server: bytes | None = None


@dataclass(slots=True)
class Irc(Login):
    """Reads the registration, until TLS begins or the server welcomes the client."""

    name: ClassVar[str] = "irc"

    nick: bytes | None = None
    server: bytes | None = None
    _tails: dict[Direction, Tail] = field(
        default_factory=lambda: {direction: Tail() for direction in Direction}
    )

    def stay_plain(self) -> None:
        """Nothing is held back any more, and copies are read."""
        self.details_ready = True
        self.up = self.down = COPIED

    def copied(self, direction: Direction, data: bytes) -> None:
        """Messages that have moved; either side's may offer a connection."""
        for line in self._tails[direction].lines(data):
            if offer := _DCC.search(line):
                self.announced.append(
                    Announcement(
                        protocol="irc-dcc",
                        transport="tcp",
                        host=_offered(offer[1]),
                        port=int(offer[2]),
                    )
                )

    def client_line(self, line: bytes) -> None:
        message = _LINE.fullmatch(line.strip(b" "))
        if message is None:
            return
        parameter = (message[3] or b"").partition(b" ")[0].removeprefix(b":")
        match message[2].upper():
            case b"NICK":
                self.nick = parameter
            case b"USER":
                self.username = parameter
            case b"STARTTLS":
                self.ask()
            case b"QUIT":
                self.stay_plain()

    def server_line(self, line: bytes) -> None:
        message = _LINE.fullmatch(line)
        if message is None:
            return
        prefix, word, parameters = message[1], message[2].upper(), message[3] or b""
        if self.greeting is None:
            self.greeting = parameters.partition(b":")[2] or parameters
        match word:
            case b"670" if self.up is PAUSE:
                self.accept()
            case b"691" | b"421" | b"451" if self.up is PAUSE:
                self.refuse()  # STARTTLS failed, is unknown, or must come later
            case b"CAP" | b"908":  # RPL_SASLMECHS
                self.offer(parameters)
            case b"001":
                self.server = prefix
                self.let_in()

    def details(self) -> IrcDetails:
        return IrcDetails(
            greeting=self.greeting,
            upgraded=self.upgraded,
            nick=self.nick,
            username=self.username,
            server=self.server,
        )


PROTOCOL: Final = Protocol(
    name=Irc.name,
    detect=detect,
    converse=lambda context: Irc(context=context),
    starttls=True,
    client_first=TEXT,
    server_first=b":" + initials(_WORDS.split(b"|")),
)
