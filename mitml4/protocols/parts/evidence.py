"""From rules to detectors: how many messages it takes to be certain.

A rule is a parser of a protocol's first unit (see fields.py). How specific it is decides which
function makes the detector:

    single_message     the unit has a magic number, or fields that constrain each other: it is
    enough request_response   too few bits are fixed: the server's answer, or a second unit, must
    fit too either_side        both sides begin in the same way

A capture may begin in the middle, or show only replies. Whichever side speaks first is then taken
for the client, so a rule may read replies as well as requests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.parts.fields import Reader, Short, evaluate

__all__ = ["Detector", "Rule", "either", "either_side", "request_response", "single_message"]

Rule: TypeAlias = Callable[[Reader], object]
Detector: TypeAlias = Callable[[Opening], Verdict]


def single_message(client: Rule, server: Rule | None = None) -> Detector:
    """A detector for a rule that is enough alone.

    `server` reads what a server sends before its client (None: it always waits). That is LIKELY
    until the client has spoken; then the client's bytes decide alone.
    """

    def detect(opening: Opening) -> Verdict:
        if opening.up or opening.up_ended:
            verdict = evaluate(client, opening.up) if opening.up else Verdict.NEED_MORE
            if verdict is not Verdict.NEED_MORE or not opening.up_ended:
                return verdict
            return (
                Verdict.REJECT if opening.up or server is None else evaluate(server, opening.down)
            )
        if server is None:
            return Verdict.REJECT if opening.down else Verdict.NEED_MORE
        verdict = evaluate(server, opening.down)
        return Verdict.LIKELY if verdict is Verdict.MATCH else verdict

    return detect


def either_side(examine: Callable[[bytes], Verdict]) -> Detector:
    """A detector for protocols whose two sides begin alike.

    The client's bytes decide. As long as there are none, the server's are LIKELY at most.
    """

    def detect(opening: Opening) -> Verdict:
        if opening.up:
            return examine(opening.up)
        verdict = examine(opening.down)
        if verdict is Verdict.MATCH and not opening.up_ended:
            return Verdict.LIKELY
        return verdict

    return detect


def request_response(request: Rule, reply: Callable[[bytes], Rule]) -> Detector:
    """A detector for a rule that is weak alone: LIKELY until an answer or a second request fits.

    `request` must read the whole unit. `reply` gets the client's bytes, which hold a whole request,
    and returns the server's rule.
    """

    def detect(opening: Opening) -> Verdict:
        if opening.down and not opening.up:
            return Verdict.REJECT
        first = evaluate(request, opening.up)
        if first is not Verdict.MATCH:
            return Verdict.REJECT if opening.up_ended else first
        evidence = (
            evaluate(_twice(request), opening.up),
            evaluate(reply(opening.up), opening.down),
        )
        if Verdict.MATCH in evidence:
            return Verdict.MATCH
        if Verdict.REJECT not in evidence:
            return Verdict.LIKELY
        return Verdict.NEED_MORE if Verdict.NEED_MORE in evidence else Verdict.REJECT

    return detect


def either(*rules: Rule) -> Rule:
    """A rule that accepts what any of these rules accepts."""

    def read(reader: Reader) -> None:
        possible = False
        for rule in rules:
            attempt = Reader(reader.data, reader.at, reader.end)
            try:
                rule(attempt)
            except Short:
                possible = True
            except ProtocolError:
                continue
            else:
                reader.at = attempt.at
                return
        raise Short if possible else ProtocolError("none of the possible beginnings")

    return read


def _twice(rule: Rule) -> Rule:
    def both(reader: Reader) -> None:
        rule(reader)
        rule(reader)

    return both
