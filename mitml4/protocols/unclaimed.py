"""Where a client's bytes ask to go, in bytes that no conversation has read.

Bytes cannot be held back until it is certain which protocol they belong to: some are forwarded
before. Where a policy refuses hosts, these bytes are read here first, by the conversation of the
likely protocol. Servers that are not strict also understand bytes that no detector accepts. So
bytes of the following shapes count as a request for a host that cannot be read:

    ANY … HTTP/                      a request line in any case, with any blanks and any version
    ANY http://… · CONNECT …         the same without a version
    WORD … and a Host field          the same for servers that need no version
    04 01|02 port address …00        SOCKS4
    05 … 05 . 00 01|03|04            SOCKS5
    PROXY … · its second signature   the PROXY protocol
    16 03 .. .. .. 01                a ClientHello in a record of any version (RFC 8446 §5.1)
"""

from __future__ import annotations

import re
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    MAX_PEEK,
    Direction,
    End,
    LayerContext,
    Opening,
    Target,
    Unreadable,
)
from mitml4.protocols.http.asked import is_elsewhere, of_fields
from mitml4.protocols.http.http2_wire import PREFACE
from mitml4.protocols.proxy_protocol import V1_PREFIX, V2_SIGNATURE
from mitml4.protocols.registry import detect
from mitml4.regex import regex

__all__ = ["Asked", "asked_by"]

# What some parsers take for a blank (Python's str.split accepts most of them).
_BLANK: Final = rb"[\x00\t\v\f\r\x1c-\x20\x85\xa0]"
_BLANKS: Final = b"\n\0\t\v\f\r\x1c\x1d\x1e\x1f \x85\xa0"
_METHOD: Final = rb"[^\x00\t-\r\x1c-\x20\x85\xa0]{1,256}"  # as wsgiref reads it
_WORD: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_LINE: Final = regex(_WORD + _BLANK + rb"[^\n]*")
_LINE_BEGUN: Final = regex(_METHOD + rb"(?:" + _BLANK + rb"[^\n]*)?")
_ASKS: Final = regex(
    _METHOD + _BLANK + rb"+(?:[^\n]*" + _BLANK + rb")?HTTP/"
    rb"|" + _METHOD + _BLANK + rb"+(?:https?|wss?|ftp):"
    rb"|CONNECT" + _BLANK + rb"+[^{\n]"
    rb"|" + V1_PREFIX,
    re.IGNORECASE,
)
_HEAD_END: Final = regex(rb"^\r?\n", re.MULTILINE)
_FIELDS: Final = regex(rb"(?:[^:\n]+:[^\n]*\n|[ \t][^\n]*\n)*[^\n]*")
_SOCKS4: Final = regex(rb"\x04[\x01\x02](?!\0\0)..(?:\0\0\0[^\0][^\0]*\0|....)[^\0]*\0", re.S)
_SOCKS5: Final = regex(rb"\x05.\x00[\x01\x03\x04]", re.DOTALL)
_SOCKS_MOST: Final = 2048
_WHY: Final = "a request that cannot be read"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client's bytes ask for, and whether more bytes may add to it."""

    ends: tuple[End, ...] = ()
    more: bool = False


_NOTHING: Final = Asked()
_MORE: Final = Asked(more=True)
_ANYWHERE: Final = Asked((Unreadable(_WHY),))


def asked_by(opening: Opening, target: Target | None) -> Asked:
    """Where the client's first bytes ask to go; `target` is where the connection goes."""
    detection = detect(opening)
    row = detection.match or detection.likely
    if row and row.converse:
        conversation = row.converse(LayerContext(target=target, stack=opening.stack))
        try:
            decision = conversation.receive(Direction.UP, opening.up)
        except ProtocolError as error:
            broken = conversation.finish()
            port = None if broken.elsewhere or not target else target.port
            return Asked((*broken.named, Unreadable(error.message, port)))
        if decision.named or (detection.match and decision.taken):
            return Asked(tuple(decision.named))
    if detection.match and not opening.up_ended:
        return _NOTHING  # not whole yet
    return _by_shape(opening, target)


def _by_shape(opening: Opening, target: Target | None) -> Asked:
    data = opening.up
    if V2_SIGNATURE.startswith(data[: len(V2_SIGNATURE)]):
        return _ANYWHERE if len(data) >= len(V2_SIGNATURE) else _MORE
    match data[0]:
        case 4:
            if _SOCKS4.match(data):
                return _ANYWHERE
            beginning = data[1:2] in (b"", b"\x01", b"\x02") and data[2:4] != b"\0\0"
            return _MORE if beginning and len(data) < _SOCKS_MOST else _NOTHING
        case 5:
            if _SOCKS5.search(data, 2):  # microsocks answers a list of methods that is not whole
                return _ANYWHERE
            return _MORE if len(data) < _SOCKS_MOST else _NOTHING
        case 0x16:  # TLS
            if data[1:2] not in (b"", b"\x03") or data[5:6] not in (b"", b"\x01"):
                return _NOTHING
            return (
                Asked((Unreadable(_WHY, target.port if target else None),))
                if len(data) > 5
                else _MORE
            )
    return _by_lines(data, target, ended=opening.up_ended)


def _by_lines(data: bytes, target: Target | None, *, ended: bool) -> Asked:
    """What a request line that no detector accepts asks for, and the fields after it."""
    request = data.lstrip(_BLANKS)
    full = len(data) >= MAX_PEEK
    if PREFACE.startswith(request[: len(PREFACE)]):
        return Asked((Unreadable(_WHY),)) if full else _MORE
    line, newline, rest = request.partition(b"\n")
    if not newline and not ended:
        return _MORE if _LINE_BEGUN.fullmatch(line) and not full else _NOTHING
    asks = _ASKS.match(line)
    if not asks and not _LINE.fullmatch(line):
        return _NOTHING
    end = _HEAD_END.search(rest)
    section = rest[: end.start()] if end else rest
    hosts = of_fields(section, LayerContext(target=target))
    more = end is None and not ended and _FIELDS.fullmatch(section) is not None
    if asks or hosts or (more and full):
        port = None if is_elsewhere(line) or not target else target.port
        return Asked((*hosts, Unreadable(_WHY, port)), more and not full)
    return _MORE if more else _NOTHING
