"""IMAP up to STARTTLS (RFC 9051, RFC 3501).

A client's command has a tag, and the line that completes it has the same tag. So the tag says which
command an `OK` belongs to. A line may continue after a literal, which is skipped by count. A client
that sends `{5}` waits for the server's go-ahead (`+`), and sends nothing if it is refused. After
`{5+}`, and after a server's literal, the bytes follow at once. The conversation is over once the
user is logged in.

    a1 LOGIN {5}          ───────►               the client's side waits
                          ◄───────  + go ahead   5 bytes pass, and the line continues
    alice secret          ───────►
                          ◄───────  a1 OK        everything passes unread
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import PAUSE, Direction, Opening, Protocol, Verdict
from mitml4.protocols.parts.lines import TEXT, agree, prefix_pattern
from mitml4.protocols.parts.login import MAX_UNDER_WAY, Login
from mitml4.regex import regex

__all__ = ["PROTOCOL", "Imap"]

PORTS: Final = (143,)
MAX_TAG: Final = 64
"""Bytes. Clients count, or use a few random letters."""

# RFC 9051 §9: "tag = 1*<any ASTRING-CHAR except "+">"
_TAG: Final = rb"[^\x00-\x20\x7f-\xff(){%*\"\\+]" + b"{1,%d}" % MAX_TAG
COMMANDS: Final = (
    b"APPEND AUTHENTICATE CAPABILITY CHECK CLOSE COMPRESS COPY CREATE DELETE ENABLE EXAMINE EXPUNGE"
    b" FETCH GETMETADATA GETQUOTA GETQUOTAROOT ID IDLE LIST LOGIN LOGOUT LSUB MOVE NAMESPACE NOOP"
    b" RENAME SEARCH SELECT SORT STARTTLS STATUS STORE SUBSCRIBE THREAD UID UNSELECT UNSUBSCRIBE"
    b" XLIST"
).split()
GREETINGS: Final = (b"* OK ", b"* PREAUTH ", b"* BYE ")
LONGEST_GREETING: Final = max(map(len, GREETINGS))
UNCHANGED: Final = frozenset({b"CAPABILITY", b"ID", b"LOGOUT", b"NOOP", b"STARTTLS"})
"""Commands that may be granted without a login."""

_COMMAND: Final = regex(_TAG + rb" (?:" + rb"|".join(COMMANDS) + rb")(?=[ \r\n])", re.IGNORECASE)
_COMMAND_BEGUN: Final = regex(
    prefix_pattern(_TAG, rb" (?P<word>[A-Za-z]{0,%d})" % max(map(len, COMMANDS))).pattern
)
_NAMED: Final = regex(rb"IMAP", re.IGNORECASE)
_TELLTALE: Final = regex(
    rb"\A(?=[^ ]{0,8}[0-9.])" + _TAG + rb" (?:CAPABILITY|LOGIN \S+ \S|AUTHENTICATE|STARTTLS)\b",
    re.IGNORECASE,
)
_CLIENT_LINE: Final = regex(rb"(" + _TAG + rb") ([A-Za-z]{1,16})(?: (.*))?", re.DOTALL)
_COMPLETION: Final = regex(rb"(" + _TAG + rb") (OK|NO|BAD)(?: .*)?", re.DOTALL | re.IGNORECASE)
_LITERAL: Final = regex(rb"\{([0-9]{1,10})(\+?)\}\Z")
_PROSE: Final = regex(rb"\+|[^ ]+ (?:OK|NO|BAD|BYE|PREAUTH)\b", re.IGNORECASE)
"""Server lines that end in text for people, in which braces mean nothing."""
_CAPABILITIES: Final = regex(
    rb"\* CAPABILITY |[^ ]+ (?:OK|PREAUTH|NO|BAD) \[CAPABILITY ", re.IGNORECASE
)
_USERNAME: Final = regex(rb'"((?:[^"\\]|\\.)*)"|([^ "{]+)')


def detect(opening: Opening) -> Verdict:
    """A greeting, and a command with a tag; after STARTTLS the command alone."""
    return agree(
        opening,
        _command(opening.up),
        _greeting(opening.down),
        name=Imap.name,
        ports=PORTS,
        named=_NAMED,
        telltale=_TELLTALE,
    )


def _command(up: bytes) -> Verdict:
    if _COMMAND.match(up):
        return Verdict.MATCH
    beginning = _COMMAND_BEGUN.fullmatch(up)
    if beginning is None:
        return Verdict.REJECT
    word = (beginning["word"] or b"").upper()
    possible = any(command.startswith(word) for command in COMMANDS)
    return Verdict.NEED_MORE if possible else Verdict.REJECT


def _greeting(down: bytes) -> Verdict:
    head = down[:LONGEST_GREETING].upper()
    if head.startswith(GREETINGS):
        return Verdict.MATCH
    possible = any(greeting.startswith(head) for greeting in GREETINGS)
    return Verdict.NEED_MORE if possible else Verdict.REJECT


@dataclass(slots=True)
class Imap(Login):
    """Reads commands and replies, until TLS begins or the user is logged in."""

    name: ClassVar[str] = "imap"

    _under_way: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Tags and verbs of the commands that are not completed, oldest first."""
    _tag: bytes | None = None
    """The tag of the command whose line continues after a literal."""
    _literal: int = 0
    """The length of the literal that the client sends after the go-ahead."""
    _server_line_goes_on: bool = False

    def client_line(self, line: bytes) -> None:
        if self._tag is None:
            self._command(line)
        self._literal_behind(line)

    def _command(self, line: bytes) -> None:
        """A line with a tag is a command. Others are responses in an AUTHENTICATE, or `DONE`."""
        command = _CLIENT_LINE.fullmatch(line)
        if command is None:
            self.respond(line)
            return
        if len(self._under_way) >= MAX_UNDER_WAY:
            raise ProtocolError("imap: too many commands without a reply")
        self._tag, verb, argument = command[1], command[2].upper(), command[3] or b""
        if verb == b"AUTHENTICATE":
            self.authenticate(argument)
        elif verb == b"LOGIN":
            name = _USERNAME.match(argument)
            self.username = (name[1] or name[2]) if name else None
        elif verb == b"STARTTLS" and not argument:
            self.ask()
        elif verb == b"STARTTLS":
            verb = b"NOOP"  # not valid, so no server grants it
        self._under_way.append((self._tag, verb))

    def _literal_behind(self, line: bytes) -> None:
        literal = _LITERAL.search(line)
        if literal is None or self._tag is None:
            self._tag = None
        elif literal[2]:
            self.skip(Direction.UP, int(literal[1]))
        else:
            self._literal = int(literal[1])
            self.ask()

    def server_line(self, line: bytes) -> None:
        if _CAPABILITIES.match(line):
            self.offer(line)
        prose = not self._server_line_goes_on and _PROSE.match(line) is not None
        if prose:
            self._prose(line)
        literal = None if prose else _LITERAL.search(line)
        self._server_line_goes_on = literal is not None
        if literal:
            self.skip(Direction.DOWN, int(literal[1]))

    def _prose(self, line: bytes) -> None:
        """A status, or a go-ahead."""
        if self.greeting is None and line.upper().startswith(GREETINGS):
            self._greeted(line)
        elif line.startswith(b"+"):
            self._go_ahead()
        elif completion := _COMPLETION.fullmatch(line):
            self._completed(completion[1], granted=completion[2].upper() == b"OK")

    def _greeted(self, line: bytes) -> None:
        _, status, text = line.split(b" ", 2)
        self.greeting = text
        if status.upper() == b"PREAUTH":
            self.stay_plain()  # RFC 9051 §7.1.4: no STARTTLS in the authenticated state

    def _go_ahead(self) -> None:
        if self._tag is not None and self.up is PAUSE:
            self.answered()
            self.skip(Direction.UP, self._literal)

    def _completed(self, tag: bytes, *, granted: bool) -> None:
        at = next((i for i, (known, _) in enumerate(self._under_way) if known == tag), None)
        if at is None:
            return
        verb = self._under_way.pop(at)[1]
        if verb == b"STARTTLS" and granted:
            self.accept()
        elif verb == b"STARTTLS":
            self.refuse()
        elif granted and verb not in UNCHANGED:
            self.let_in()
        if tag == self._tag and self.up is PAUSE:
            self._tag = None  # the literal is no longer wanted
            self.answered()


PROTOCOL: Final = Protocol(
    name=Imap.name,
    detect=detect,
    converse=lambda context: Imap(context=context),
    starttls=True,
    client_first=TEXT,
    server_first=b"*",
)
