"""The part of the STARTTLS family whose users log in by name (FTP, IMAP, POP3, NNTP, ManageSieve).

A login ends the question of TLS, and brings the last of the facts: so a refusal of TLS settles
nothing here, and the login does.
"""

from __future__ import annotations

from binascii import Error as BinasciiError
from binascii import a2b_base64
from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar, Final

from mitml4.errors import ProtocolError
from mitml4.protocols.parts.lines import behind_starttls
from mitml4.protocols.parts.starttls import StartTLS, StartTLSDetails

__all__ = ["AUTHENTICATION", "GREETING", "MAX_UNDER_WAY", "InOrder", "Login", "LoginDetails"]

GREETING: Final = b" "
"""Stands in the queue of commands for what the server says unasked; no verb has a space."""
AUTHENTICATION: Final = b" SASL"
"""Stands there for a command that begins a SASL authentication."""
MAX_UNDER_WAY: Final = 1000
"""Commands that may wait for their replies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginDetails(StartTLSDetails):
    """The user's name, if it was sent in plain text. The password is never kept."""

    username: bytes | None = None


@dataclass(slots=True)
class Login(StartTLS):
    """A conversation in lines, until TLS takes over or somebody is logged in. To be subclassed."""

    username: bytes | None = None
    _mechanism: bytes = b""
    """Of SASL, as long as its first response has not come."""

    def authenticate(self, argument: bytes) -> None:
        """The client names a SASL mechanism, and may respond in the same line (RFC 4954 §4)."""
        mechanism, _, response = argument.partition(b" ")
        self._mechanism = mechanism.upper()
        if response:
            self.respond(response)

    def respond(self, response: bytes) -> None:
        """The client's response to a challenge; the first one may hold the user's name."""
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
    """Where every command has one reply, in order, whether or not they are pipelined.

    So a queue of the commands under way says whose a reply is; the server's greeting is the reply
    to none of them.
    """

    greets: ClassVar[bool] = True
    """Whether the server speaks first."""
    greets_again: ClassVar[bool] = False
    """Whether the server greets once more behind STARTTLS."""

    _under_way: deque[bytes] = field(default_factory=lambda: deque([GREETING]))
    _authenticating: bool = False
    """What the client says are responses to challenges, until the authentication is replied to."""

    def __post_init__(self) -> None:
        again = behind_starttls(self.context.stack, self.name)
        if not (self.greets_again if again else self.greets):
            self._under_way.clear()

    def sent(self, verb: bytes) -> None:
        """The client has sent a command. `verb` is what its reply will be known by: a short one."""
        if len(self._under_way) >= MAX_UNDER_WAY:
            raise ProtocolError(f"{self.name}: too many commands without a reply")
        self._under_way.append(verb)

    def begin_authentication(self, argument: bytes) -> None:
        """The client has sent the command that names a mechanism."""
        self.authenticate(argument)
        self.sent(AUTHENTICATION)
        self._authenticating = True

    def is_response(self, line: bytes) -> bool:
        """Whether a client's line is a response in an authentication, and no command. Reads it."""
        if self._authenticating:
            self.respond(line)
        return self._authenticating

    @property
    def awaited(self) -> bytes | None:
        """The command whose reply comes next; None if what comes is unasked."""
        return self._under_way[0] if self._under_way else None

    def replied(self) -> bytes | None:
        """The reply to that command, which is returned, is complete."""
        verb = self._under_way.popleft() if self._under_way else None
        self._authenticating = self._authenticating and verb != AUTHENTICATION
        return verb


def _username(mechanism: bytes, response: bytes) -> bytes | None:
    """PLAIN's is `[authzid] NUL authcid NUL passwd` (RFC 4616 §2), LOGIN's the name and no more."""
    try:
        decoded = a2b_base64(response)
    except BinasciiError:
        return None
    if mechanism == b"LOGIN":
        return decoded
    parts = decoded.split(b"\0")
    return parts[1] if len(parts) == 3 else None
