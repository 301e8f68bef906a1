"""Telnet, by its negotiation of options (RFC 854, RFC 855, RFC 1143).

    FF (FB WILL · FC WON'T · FD DO · FE DON'T) option          FF FA option … FF F0

Either side may begin with text, and without a negotiation telnet looks like any other text. So it
is recognised by three such commands of known options, at the very start.
"""

from __future__ import annotations

from typing import Final

from mitml4.protocols.conversation import Opening, Protocol, Verdict
from mitml4.regex import regex

__all__ = ["PROTOCOL"]

ENOUGH: Final = 3
"""Commands of both sides together."""

# IANA's registry "Telnet Options": 0-49, 138-140; and 80-93 of MUDs.
_OPTION: Final = rb"[\x00-\x31\x46\x50-\x5d\x85-\x8c\xc8\xc9]"
_COMMAND: Final = regex(
    rb"\xff(?:[\xfb-\xfe]" + _OPTION + rb"|\xfa" + _OPTION + rb"[^\xff]{0,512}\xff\xf0)"
)
_BEGUN: Final = regex(rb"\xff(?:[\xfb-\xfe]|\xfa(?:" + _OPTION + rb"(?:[^\xff]{0,512}\xff?))?)?")


def detect(opening: Opening) -> Verdict:
    """Commands at the start of both sides, or enough of them on the client's."""
    up, possible = _commands(opening.up)
    if not possible and not up:
        return Verdict.REJECT
    down, _ = _commands(opening.down)
    if not opening.up:
        return _by_server(opening, down)
    if up >= ENOUGH or (up and up + min(down, ENOUGH) >= ENOUGH):
        return Verdict.MATCH
    return Verdict.NEED_MORE


def _by_server(opening: Opening, commands: int) -> Verdict:
    """The verdict on the server's commands while the client is silent."""
    if commands >= ENOUGH:
        return Verdict.MATCH if opening.up_ended else Verdict.LIKELY
    possible = commands or _commands(opening.down)[1]
    return Verdict.NEED_MORE if possible else Verdict.REJECT


def _commands(data: bytes) -> tuple[int, bool]:
    """How many whole commands are at the start (at most ENOUGH), and whether more may follow."""
    count = at = 0
    while count < ENOUGH and (command := _COMMAND.match(data, at)):
        count, at = count + 1, command.end()
    return count, count == ENOUGH or at == len(data) or bool(_BEGUN.fullmatch(data, at))


PROTOCOL: Final = Protocol(
    name="telnet",
    detect=detect,
    client_first=b"\xff",
    server_first=b"\xff",
)
