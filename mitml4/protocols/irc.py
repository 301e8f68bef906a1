"""IRC up to STARTTLS (RFC 1459, RFC 2812, and the `tls` extension of IRCv3).

A client's first lines are FTP's and POP3's too (`USER`, `PASS`), so it takes the server's answer
to be certain. Replies are numbers, and in no order that matters: 670 says yes to STARTTLS, 001 that
the client is registered, behind which nobody asks any more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Final

from mitml4.protocols.conversation import HOLD, Opening, Protocol, Verdict
from mitml4.protocols.lines import behind_starttls, command, initials
from mitml4.protocols.login import Login, LoginFacts

__all__ = ["PROTOCOL", "Irc", "IrcFacts"]

COMMANDS: Final = frozenset(
    b"AUTHENTICATE CAP NICK PASS PONG PROTOCTL QUIT SERVER STARTTLS USER WEBIRC".split()
)
"""What a client, or another server, may begin with."""

_WORDS: Final = rb"AUTHENTICATE|CAP|ERROR|MODE|NOTICE|PASS|PING|SERVER"
_PREFIX: Final = rb":[^ \r\n]{1,255}"
_ANSWER: Final = re.compile(
    _PREFIX + rb" +(?:[0-9]{3}|" + _WORDS + rb") |(?:" + _WORDS + rb") ", re.IGNORECASE
)
_ANSWER_BEGUN: Final = re.compile(
    rb":|" + _PREFIX + rb"(?: +(?:[0-9]{0,3}|[A-Z]{0,12}))?|[A-Z]{0,12}", re.IGNORECASE
)
_WELCOME: Final = re.compile(_PREFIX + rb" +00[1-5] [^\n]*\n")
_TWO_LINES: Final = re.compile(
    rb"(?:(?:PASS|USER|WEBIRC)[^\n]*\n)*(?:CAP (?:LS|REQ|END|LIST)|NICK)[^\n]*\n"
    rb" *(?:CAP|JOIN|NICK|PASS|USER)[ \r\n]",
    re.IGNORECASE,
)
"""Among what IRC alone begins with, a second line that goes with it."""
_LINE: Final = re.compile(rb"(?::([^ ]*) +)?([^ ]+)(?: +(.*))?", re.DOTALL)


def detect(opening: Opening) -> Verdict:
    """A command, and an answer that fits; from one side alone, two lines or a welcome."""
    client = command(opening.up, COMMANDS)
    if opening.up and behind_starttls(opening.within, Irc.name):
        return client
    server = _answer(opening.down)
    if Verdict.REJECT in (client, server):
        return Verdict.REJECT
    if not opening.up:
        return Verdict.LIKELY if _WELCOME.match(opening.down) else Verdict.NEED_MORE
    if client is server is Verdict.MATCH:
        return Verdict.MATCH
    return Verdict.LIKELY if _TWO_LINES.match(opening.up) else Verdict.NEED_MORE


def _answer(down: bytes) -> Verdict:
    if _ANSWER.match(down):
        return Verdict.MATCH
    return Verdict.NEED_MORE if _ANSWER_BEGUN.fullmatch(down) else Verdict.REJECT


@dataclass(frozen=True, slots=True, kw_only=True)
class IrcFacts(LoginFacts):
    """What the client calls itself, and the server."""

    nick: bytes | None = None
    server: bytes | None = None


@dataclass(slots=True)
class Irc(Login):
    """The registration, until TLS takes over or the server says welcome."""

    name: ClassVar[str] = "irc"

    nick: bytes | None = None
    server: bytes | None = None

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
            case b"670" if self.up is HOLD:
                self.accept()
            case b"691" | b"421" | b"451" if self.up is HOLD:
                self.refuse()  # it failed, is no command here, or must come later
            case b"001":
                self.server = prefix
                self.stay_plain()

    def facts(self) -> IrcFacts:
        return IrcFacts(
            greeting=self.greeting,
            upgraded=self.upgraded,
            nick=self.nick,
            username=self.username,
            server=self.server,
        )


PROTOCOL: Final = Protocol(
    name=Irc.name,
    detect=detect,
    converse=lambda around: Irc(around=around),
    client_first=initials(COMMANDS),
    server_first=b":" + initials(_WORDS.split(b"|")),
)
