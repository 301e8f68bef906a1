"""How much it takes to believe a binary protocol that is only named.

Such a protocol is one rule: a parser of its first unit (see fields.py). What the rule is worth
decides how it becomes a detector:

    proof       a magic number, or fields that hold each other in place: the unit is enough
    answered    too few fixed bits for that: the far side's answer, or a second unit, must fit too

A capture may begin in the middle, or show the replies only; then whoever speaks first is taken for
the client. So a rule may read replies as well as requests.
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

    `server` is what a server says that does not wait for its client (None: it always waits). It
    is LIKELY until the client has spoken, whose bytes then decide alone.
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
    """A detector for what both sides say. A silent client leaves it to the server, which is LIKELY
    until nothing can come from the client."""

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

    `request` must read the whole unit; `reply` makes the server's rule out of the client's bytes,
    of which a whole request has then come.
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
    """A rule for what begins in one of several ways."""

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
        raise Short if possible else ProtocolError("none of the ways in which this begins")

    return read


def _twice(rule: Rule) -> Rule:
    def both(reader: Reader) -> None:
        rule(reader)
        rule(reader)

    return both
