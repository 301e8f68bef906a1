"""Where a client's bytes ask to go that no conversation has read.

Some bytes move before it is certain whose they are, or because nobody may be kept waiting for
ever. Where a policy refuses hosts, these are read here first, by the conversation that they are
likely to belong to. And what no detector takes may still be understood by a server which is less
exact: its shape is enough then to say that it asks for a host which cannot be read.

    TOKEN … HTTP/                    a request line in any case, with any blanks and any version
    TOKEN http://… · CONNECT …       the same without a version
    04 01|02 port address …00        SOCKS4
    05 N methods, 05 or 01           SOCKS5
    PROXY … · its second signature   the PROXY protocol
    16 03 .. .. .. 01                a ClientHello in a record of any version (RFC 8446 §5.1)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    MAX_LOOK,
    Direction,
    End,
    Opening,
    Surroundings,
    Target,
    Unreadable,
    Verdict,
)
from mitml4.protocols.http.asked import is_elsewhere
from mitml4.protocols.http.http2 import PREFACE
from mitml4.protocols.proxy_protocol import V1_PREFIX, V2_SIGNATURE
from mitml4.protocols.registry import detect

__all__ = ["asked_by"]

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}"
_LINE_BEGUN: Final = re.compile(_TOKEN + rb"(?:[ \t\v\f][^\r\n]*)?")
_ASKS: Final = re.compile(
    _TOKEN + rb"[ \t\v\f]+(?:[^\r\n]*[ \t\v\f])?HTTP/"
    rb"|" + _TOKEN + rb"[ \t\v\f]+(?:https?|wss?|ftp):"
    rb"|CONNECT[ \t\v\f]+[^ \t\v\f{]",
    re.IGNORECASE,
)
_LINE_END: Final = re.compile(rb"[\r\n]")
_SOCKS4: Final = re.compile(rb"\x04[\x01\x02](?!\0\0)..(?:\0\0\0[^\0][^\0]*\0|....)[^\0]*\0", re.S)
_SOCKS4_MOST: Final = 2048
_TLS: Final = 0x16


def asked_by(opening: Opening, target: Target) -> Sequence[End] | None:
    """Where the client's bytes of an opening ask to go, bound for `target` as they are.

    None as long as more bytes have to tell.
    """
    detection = detect(opening)
    row = detection.match or detection.likely
    if row and row.converse:
        conversation = row.converse(Surroundings(target=target, within=opening.within))
        try:
            taken = conversation.feed(Direction.UP, opening.up)
        except ProtocolError as error:
            return [Unreadable(error.message, None if conversation.elsewhere else target.port)]
        if conversation.named or (detection.match and taken):
            return conversation.named
    if detection.match and not opening.up_ended:
        return []  # not whole yet
    verdict = _shape(opening)
    if verdict is Verdict.REJECT:
        return []
    if verdict is Verdict.NEED_MORE and len(opening.up) < MAX_LOOK:
        return [] if opening.up_ended else None
    elsewhere = opening.up[0] != _TLS and is_elsewhere(opening.up)
    return [Unreadable("a request that cannot be read", None if elsewhere else target.port)]


def _shape(opening: Opening) -> Verdict:
    """MATCH: these bytes may ask for a host."""
    data = opening.up
    if V2_SIGNATURE.startswith(data[: len(V2_SIGNATURE)]):
        return _once(len(data) >= len(V2_SIGNATURE))
    match data[0]:
        case 4:
            begun = data[1:2] in (b"", b"\x01", b"\x02") and data[2:4] != b"\0\0"
            may_come = begun and len(data) < _SOCKS4_MOST
            return Verdict.MATCH if _SOCKS4.match(data) else _as_long_as(may_come)
        case 5:
            following = data[2 + data[1] :][:1] if len(data) > 1 else b""
            return _once(bool(following)) if following in (b"", b"\1", b"\5") else Verdict.REJECT
        case 0x16:  # TLS
            begun = data[1:2] in (b"", b"\x03") and data[5:6] in (b"", b"\x01")
            return _once(len(data) > 5) if begun else Verdict.REJECT
    return _text_shape(data.lstrip(b"\r\n\t "), ended=opening.up_ended)


def _text_shape(data: bytes, *, ended: bool) -> Verdict:
    if PREFACE.startswith(data[: len(PREFACE)]):
        return Verdict.NEED_MORE
    end = _LINE_END.search(data)
    if end is None and not ended:
        return _as_long_as(_LINE_BEGUN.fullmatch(data) is not None)
    line = data[: end.start()] if end else data
    return Verdict.MATCH if _ASKS.match(line) or line.startswith(V1_PREFIX) else Verdict.REJECT


def _once(certain: bool) -> Verdict:
    return Verdict.MATCH if certain else Verdict.NEED_MORE


def _as_long_as(may_come: bool) -> Verdict:
    return Verdict.NEED_MORE if may_come else Verdict.REJECT
