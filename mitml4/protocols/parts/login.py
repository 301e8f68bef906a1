"""Protocols with STARTTLS whose users log in by name: FTP, IMAP, POP3, NNTP, SMTP, ManageSieve.

After a login no client asks for TLS, and the user's name is known. So the details are ready with
the login, and not where the server refuses TLS.
"""

from __future__ import annotations

from binascii import Error as BinasciiError
from binascii import a2b_base64
from collections import deque
from dataclasses import field
from functools import partial
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Prelude
from mitml4.protocols.parts.lines import behind_starttls
from mitml4.protocols.parts.starttls import StartTLS, StartTLSDetails

__all__ = ["AUTHENTICATION", "GREETING", "MAX_UNDER_WAY", "InOrder", "Login", "LoginDetails"]

GREETING: Final = b" "
"""The entry in the queue of commands for the server's greeting; no verb has a space."""
AUTHENTICATION: Final = b" SASL"
"""The entry for a command that begins a SASL authentication."""
MAX_UNDER_WAY: Final = 1000
"""Commands that may wait for their replies."""
_MAX_SAID: Final = 16
"""Commands before TLS that are kept; there are three, as a rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginDetails(StartTLSDetails):
    """The user's name, if it was sent in plain text. The password is never kept."""

    username: bytes | None = None


@dataclass(slots=True)
class Login(StartTLS):
    """Reads lines until TLS begins or the user is logged in. For subclassing."""

    username: bytes | None = None
    _mechanism: bytes = b""
    """The SASL mechanism, until its first response has arrived."""

    def authenticate(self, argument: bytes) -> None:
        """The client names a SASL mechanism, with or without a first response (RFC 4954 §4)."""
        mechanism, _, response = argument.partition(b" ")
        self._mechanism = mechanism.upper()
        if response:
            self.respond(response)

    def respond(self, response: bytes) -> None:
        """The client responds to a challenge. The first response may hold the user's name."""
        mechanism, self._mechanism = self._mechanism, b""
        if mechanism in (b"PLAIN", b"LOGIN"):
            self.username = _username(mechanism, response)

    def refuse(self) -> None:
        """The server declines TLS: the client may go on, and log in."""
        self.answered()

    def details(self) -> LoginDetails:
        return LoginDetails(greeting=self.greeting, upgraded=self.upgraded, username=self.username)


@dataclass(slots=True)
class InOrder(Login):
    """For protocols in which each command has one reply, in order, pipelined or not.

    A queue of the commands under way says which command a reply belongs to. The greeting is an
    entry of the queue, too.
    """

    greets: ClassVar[bool] = True
    """Whether the server speaks first."""
    greets_again: ClassVar[bool] = False
    """Whether the server greets once more after STARTTLS."""
    repeatable: ClassVar[frozenset[bytes]] = frozenset()
    """Commands that may be sent again on another connection, to come to the same point."""

    _under_way: deque[bytes] = field(default_factory=lambda: deque([GREETING]))
    _authenticating: bool = False
    """The client's lines are responses, until the authentication has its reply."""
    _said: list[bytes] | None = field(default_factory=list)
    """All that the client has said; None if it may not be said again."""

    def __post_init__(self) -> None:
        again = behind_starttls(self.context.stack, self.name)
        if not (self.greets_again if again else self.greets):
            self._under_way.clear()

    def sent(self, verb: bytes) -> None:
        """The client has sent a command. `verb` is kept until its reply: pass a short one."""
        if len(self._under_way) >= MAX_UNDER_WAY:
            raise ProtocolError(f"{self.name}: too many commands without a reply")
        self._under_way.append(verb)

    def note_said(self, line: bytes) -> None:
        verb = line.split(None, 1)[0].upper() if line.strip() else b""
        if verb in self.repeatable and self._said is not None and len(self._said) < _MAX_SAID:
            self._said.append(line)
        else:
            self._said = None

    def accept(self) -> None:
        if self._said is not None:
            self.prelude = Prelude(tuple(self._said), partial(type(self), context=self.context))
        StartTLS.accept(self)

    def begin_authentication(self, argument: bytes) -> None:
        """The client has sent the command that names a SASL mechanism."""
        self.authenticate(argument)
        self.sent(AUTHENTICATION)
        self._authenticating = True

    def is_response(self, line: bytes) -> bool:
        """Whether a client's line is a response in an authentication. If so, reads it."""
        if self._authenticating:
            self.respond(line)
        return self._authenticating

    @property
    def awaited(self) -> bytes | None:
        """The command that the next reply belongs to; None if the server speaks unasked."""
        return self._under_way[0] if self._under_way else None

    @property
    def awaits_answer(self) -> bool:
        return self.awaited is not None

    def replied(self) -> bytes | None:
        """The reply is complete: remove its command from the queue and return it."""
        verb = self._under_way.popleft() if self._under_way else None
        self._authenticating = self._authenticating and verb != AUTHENTICATION
        return verb


def _username(mechanism: bytes, response: bytes) -> bytes | None:
    """The name in a response: PLAIN's is `[authzid] NUL authcid NUL passwd` (RFC 4616 §2), LOGIN's
    is the name alone."""
    try:
        decoded = a2b_base64(response)
    except BinasciiError:
        return None
    if mechanism == b"LOGIN":
        return decoded
    parts = decoded.split(b"\0")
    return parts[1] if len(parts) == 3 else None
