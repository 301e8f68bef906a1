"""Whether a flow may go on: the policy, asked whenever one more thing is known of where it leads.

Whoever learns a name or an address asks, before the bytes that say it move on: the destination
before there is a connection, SOCKS and CONNECT targets, SNI, Host and :authority. What cannot be
read is asked about as well: while no block could concern it, it is relayed unread, and else it
ends the flow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mitml4.protocols.conversation import End, Target, Unreadable

__all__ = ["Action", "Blocked", "Decide", "Guard", "without_opening"]

Action: TypeAlias = Literal["block", "passthrough", "intercept"]
Decide: TypeAlias = Callable[[Sequence[End]], tuple[Action, str]]
"""The policy: what to do with a connection that is known by these ends (the nearest first), and
why."""


class Blocked(Exception):  # noqa: N818 - a decision, not an error
    """The policy refuses this flow, because of this end."""

    def __init__(self, reason: str, end: End) -> None:
        super().__init__(reason)
        self.end = end


@dataclass(frozen=True, slots=True)
class Guard:
    """The policy for one flow."""

    policy: Decide
    known: tuple[Target, ...]
    """What the flow is known by from the first: its destination, and that one's name in DNS."""

    def decide(self, *ends: Target) -> tuple[Action, str]:
        """What to do with TLS that is known by these too, the nearest first, once checked."""
        return self.policy((*ends, *self.known))

    def check(self, *ends: End) -> None:
        """Raises Blocked if the flow may not go to one of these."""
        for end in ends:
            action, reason = self.policy((end,))
            if action == "block":
                raise Blocked(reason, end)

    def blocks(self, end: End) -> bool:
        return self.policy((end,))[0] == "block"

    @property
    def is_strict(self) -> bool:
        """Whether there is anything that a client may not ask for."""
        return self.blocks(Unreadable())


def without_opening(policy: Decide, reason: str) -> Decide:
    """The same policy, for flows in which no TLS is opened."""

    def blocked_or_not(ends: Sequence[End]) -> tuple[Action, str]:
        action, why = policy(ends)
        return (action, why) if action == "block" else ("passthrough", reason)

    return blocked_or_not
