"""The protocol of the rsync daemon up to the module (rsync's own csprotocol.txt).

client                              server
                    ◄───────    @RSYNCD: 31.0 sha512 md5\\n
@RSYNCD: 31.0\\n     ───────►                            either may be first
module\\n            ───────►
                    ◄───────    its motto, and @RSYNCD: OK, AUTHREQD or EXIT
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
    Protocol,
)
from mitml4.protocols.parts.evidence import either_side
from mitml4.protocols.parts.lines import begins, prefix_pattern
from mitml4.regex import regex

__all__ = ["PROTOCOL", "Rsync", "RsyncDetails"]

MAX_LINE: Final = 1024
_GREETING: Final = b"@RSYNCD: "
_VERSION: Final = regex(re.escape(_GREETING) + rb"([0-9]{1,3}(?:\.[0-9]{1,3})?)[^\n]*")
_BEGUN: Final = prefix_pattern(*(re.escape(_GREETING[at : at + 1]) for at in range(len(_GREETING))))


detect = either_side(lambda data: begins(data, _VERSION, _BEGUN))
"""The client's version is certain; the server's is LIKELY while the client is silent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RsyncDetails(Details):
    """The protocol versions, and the module that the client asks for (empty: the list of
    modules)."""

    client_version: bytes | None = None
    server_version: bytes | None = None
    module: bytes | None = None


@dataclass(slots=True)
class Rsync(Conversation):
    """Reads two lines of the client and one of the server; the rest passes."""

    name: ClassVar[str] = "rsync"

    client_version: bytes | None = None
    server_version: bytes | None = None
    module: bytes | None = None

    def feed(self, direction: Direction, data: bytes) -> int:
        end = data.find(b"\n") + 1
        if (end or len(data)) > MAX_LINE:
            raise ProtocolError("rsync: a line that does not end")
        if end:
            self._line(direction, data[: end - 1].removesuffix(b"\r"))
        return end

    def _line(self, direction: Direction, line: bytes) -> None:
        if direction is Direction.UP and self.client_version is not None:
            self.module = line
            self.up = FORWARD_ALL
        else:
            version = _VERSION.fullmatch(line)
            if version is None:
                raise ProtocolError("rsync: not a version")
            if direction is Direction.UP:
                self.client_version = version[1]
            else:
                self.server_version = version[1]
                self.down = FORWARD_ALL
        self.details_ready = self.up == self.down == FORWARD_ALL

    def details(self) -> RsyncDetails:
        return RsyncDetails(
            client_version=self.client_version,
            server_version=self.server_version,
            module=self.module,
        )


PROTOCOL: Final = Protocol(
    name=Rsync.name,
    detect=detect,
    converse=lambda context: Rsync(context=context),
    client_first=b"@",
    server_first=b"@",
)
