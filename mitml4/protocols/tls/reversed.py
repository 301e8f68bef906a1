"""TLS after text, with the ClientHello from the side that accepted the connection.

The connecting side sends a line or two, or receives some, and then the other side begins TLS. No
upgrade that is followed here announces this, so only the text and the hello show it. Without the
text it is the row of protocol.py. It is named, and never intercepted.
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import Direction, LayerContext, Opening, Protocol, Verdict
from mitml4.protocols.parts.lines import TEXT
from mitml4.protocols.tls.protocol import TlsConversation
from mitml4.protocols.tls.records import HandshakeType
from mitml4.regex import regex

__all__ = ["PROTOCOL"]

_TEXT: Final = bytes({*TEXT, *range(0xC2, 0xF5)})
_BEFORE: Final = rb"((?:[\t\r\n\x20-\x7e]|[\xc2-\xf4][\x80-\xbf]{0,3}){0,4096})"
"""ASCII and UTF-8, of which the last character may be incomplete."""
_HANDSHAKE: Final = b"\x16"
"""The type of a record, which is in no text."""


def _side(hello: HandshakeType) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Patterns of text and the record of a hello (RFC 8446 §5.1): the certain part, and
    beginnings."""
    kind = re.escape(bytes([hello]))
    beginning = rb"(?:\x16(?:\x03(?:[\0-\4](?:.(?:.(?:" + kind + rb".*)?)?)?)?)?)?"
    return (
        regex(_BEFORE + rb"\x16\x03[\0-\4].." + kind, re.DOTALL),
        regex(_BEFORE + beginning, re.DOTALL),
    )


_ASKED, _ASKED_BEGUN = _side(HandshakeType.CLIENT_HELLO)
_, _ANSWERED_BEGUN = _side(HandshakeType.SERVER_HELLO)


def detect(opening: Opening) -> Verdict:
    """A ClientHello of the accepting side, after text from either side."""
    up = _ANSWERED_BEGUN.fullmatch(opening.up)
    if up is None or _ASKED_BEGUN.fullmatch(opening.down) is None:
        return Verdict.REJECT
    asked = _ASKED.match(opening.down)
    if asked and (up[1] or asked[1]):
        return Verdict.MATCH
    bare = opening.up[:1] == opening.down[:1] == _HANDSHAKE
    return Verdict.REJECT if bare else Verdict.NEED_MORE


@dataclass(slots=True)
class _BehindText(TlsConversation):
    """The same conversation, after each side's text."""

    _begun: set[Direction] = field(default_factory=set)

    def feed(self, direction: Direction, data: bytes) -> int:
        start = 0 if direction in self._begun else data.find(_HANDSHAKE)
        if start >= 0:
            self._begun.add(direction)
            TlsConversation.feed(self, direction, data[start:])
        return len(data)


def _converse(context: LayerContext) -> TlsConversation:
    return _BehindText(context=context, passthrough="roles reversed")


PROTOCOL: Final = Protocol(
    name=TlsConversation.name,
    detect=detect,
    converse=_converse,
    client_first=_TEXT + _HANDSHAKE,
    server_first=_TEXT + _HANDSHAKE,
)
