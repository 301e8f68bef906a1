"""ManageSieve up to STARTTLS (RFC 5804).

The server greets with its capabilities, and again after STARTTLS. On both sides a line may continue
after a literal (`{5+}` from a client, `{5}` from a server), which is skipped by count. So a script
that contains `STARTTLS` is no command, and an `OK` whose text is a literal ends after it.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import Direction, Opening, Protocol, Verdict
from mitml4.protocols.parts.lines import TEXT, agree, command
from mitml4.protocols.parts.login import GREETING, InOrder
from mitml4.regex import regex

__all__ = ["PROTOCOL", "ManageSieve"]

PORTS: Final = (4190,)

COMMANDS: Final = frozenset(
    b"AUTHENTICATE CAPABILITY CHECKSCRIPT DELETESCRIPT GETSCRIPT HAVESPACE LISTSCRIPTS LOGOUT NOOP "
    b"PUTSCRIPT RENAMESCRIPT SETACTIVE STARTTLS UNAUTHENTICATE".split()
)
IMPLEMENTATION: Final = b'"IMPLEMENTATION"'
"""RFC 5804 §1.7 allows any order of capabilities; every known server begins with this one."""
MECHANISMS: Final = b'"SASL"'
UNCHANGED: Final = frozenset({GREETING, b"CAPABILITY", b"LOGOUT", b"NOOP", b"STARTTLS"})
"""Commands that may be granted without a login."""

_NAMED: Final = regex(re.escape(IMPLEMENTATION), re.IGNORECASE)
_LITERAL: Final = regex(rb"\{([0-9]{1,10})\+?\}\Z")
_STATUS: Final = regex(rb"(OK|NO|BYE)(?![^ (\r])", re.IGNORECASE)


def detect(opening: Opening) -> Verdict:
    """The first of the capabilities, and a command that fits."""
    client = command(opening.up, COMMANDS)
    return agree(
        opening, client, _greeting(opening.down), name=ManageSieve.name, ports=PORTS, named=_NAMED
    )


def _greeting(down: bytes) -> Verdict:
    head = down[: len(IMPLEMENTATION)].upper()
    if head == IMPLEMENTATION:
        return Verdict.MATCH
    return Verdict.NEED_MORE if IMPLEMENTATION.startswith(head) else Verdict.REJECT


@dataclass(slots=True)
class ManageSieve(InOrder):
    """Reads commands and replies, until TLS begins or the user is logged in."""

    name: ClassVar[str] = "managesieve"
    greets_again: ClassVar[bool] = True

    _client_line_goes_on: bool = False
    _server_line_goes_on: bool = False
    _status: bytes | None = None
    """Of the reply that is being read."""

    def client_line(self, line: bytes) -> None:
        literal = _LITERAL.search(line)
        if not self._client_line_goes_on:
            self._command(line)
        self._client_line_goes_on = literal is not None
        if literal:
            self.skip(Direction.UP, int(literal[1]))

    def _command(self, line: bytes) -> None:
        if self.is_response(line.strip(b'"')):  # RFC 5804 §2.1: a string
            return
        word, _, argument = line.partition(b" ")
        verb = word[:16].upper()
        if verb == b"AUTHENTICATE":
            self.begin_authentication(argument.replace(b'"', b""))
        else:
            self.sent(verb)
        if verb == b"STARTTLS":
            self.ask()

    def server_line(self, line: bytes) -> None:
        if self.greeting is None and line[: len(IMPLEMENTATION)].upper() == IMPLEMENTATION:
            self.greeting = line[len(IMPLEMENTATION) :].strip(b' "')
        if line[: len(MECHANISMS)].upper() == MECHANISMS:
            self.offer(line)
        status = None if self._server_line_goes_on else _STATUS.match(line)
        if status:
            self._status = status[1].upper()
        literal = _LITERAL.search(line)
        self._server_line_goes_on = literal is not None
        if literal:
            self.skip(Direction.DOWN, int(literal[1]))
        elif self._status:
            status_word, self._status = self._status, None
            self._finish(granted=status_word == b"OK")

    def _finish(self, *, granted: bool) -> None:
        verb = self.replied()
        if verb == b"STARTTLS" and granted:  # RFC 5804 §2.2
            self.accept()
        elif verb == b"STARTTLS":
            self.refuse()
        elif granted and verb not in UNCHANGED:
            self.let_in()


PROTOCOL: Final = Protocol(
    name=ManageSieve.name,
    detect=detect,
    converse=lambda context: ManageSieve(context=context),
    starttls=True,
    client_first=TEXT,
    server_first=b'"',
)
