"""Git's own transport (git-daemon), by its one request (gitprotocol-pack, "Git Transport").

    0033git-upload-pack /project.git\\0host=example.com\\0\\0version=2\\0
    └─┬┘└──────┬──────┘ └────┬─────┘  └──────┬───────┘   └────┬───┘
    length  command        path            host         parameters

The length counts itself, in four hexadecimal digits. All bytes after the request pass unread.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    Conversation,
    Details,
    Direction,
    Opening,
    Protocol,
    Verdict,
)
from mitml4.regex import regex

__all__ = ["PROTOCOL", "Git", "GitDetails"]

LENGTH_DIGITS: Final = 4
COMMANDS: Final = (b"git-upload-pack ", b"git-receive-pack ", b"git-upload-archive ")

_LENGTH: Final = regex(rb"0(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{0,2}\Z)")
"""A length, or the beginning of one."""
_REQUEST: Final = regex(rb"(git-[a-z-]+) ([^\0]*)(?:\0host=([^\0]*))?(?:\0|\Z)", re.DOTALL)


def detect(opening: Opening) -> Verdict:
    """A length below 4096, and a command; the server never speaks first."""
    if not opening.up:
        return Verdict.REJECT if opening.up_ended else Verdict.NEED_MORE
    if _LENGTH.match(opening.up) is None:
        return Verdict.REJECT
    rest = opening.up[LENGTH_DIGITS:]
    if rest.startswith(COMMANDS):
        return Verdict.MATCH
    possible = any(command.startswith(rest) for command in COMMANDS)
    return Verdict.NEED_MORE if possible else Verdict.REJECT


@dataclass(frozen=True, slots=True, kw_only=True)
class GitDetails(Details):
    """The client's command, `git-upload-pack` (fetch) or `git-receive-pack` (push), and its
    repository."""

    command: bytes | None = None
    path: bytes | None = None
    host: bytes | None = None


@dataclass(slots=True)
class Git(Conversation):
    """The request; nothing else is read."""

    name: ClassVar[str] = "git"

    request: GitDetails = GitDetails()

    def feed(self, direction: Direction, data: bytes) -> int:
        """Only the client's side is read: `down` passes from the start."""
        if len(data) < LENGTH_DIGITS:
            return 0
        if _LENGTH.match(data) is None:
            raise ProtocolError("git: a request without its length")
        end = int(data[:LENGTH_DIGITS], 16)
        if len(data) < end:
            return 0
        if request := _REQUEST.match(data[LENGTH_DIGITS:end]):
            command, path, host = request.groups()
            self.request = GitDetails(command=command, path=path.rstrip(b"\n"), host=host)
        self.details_ready = True
        self.up = FORWARD_ALL
        return end

    def details(self) -> GitDetails:
        return self.request


PROTOCOL: Final = Protocol(
    name=Git.name,
    detect=detect,
    converse=lambda context: Git(context=context, down=FORWARD_ALL),
    client_first=b"0",
    server_first=b"",
)
