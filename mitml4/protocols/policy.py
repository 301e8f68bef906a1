"""Where a flow is bound for, and whether it may go there.

Whichever layer learns a name or an address asks, before the bytes that say it move on: the
destination before there is a connection, SOCKS and CONNECT targets, SNI, Host and :authority. What
cannot be read is asked about as well: it is relayed unread as long as no block could match it, and
ends the flow otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias

from mitml4.dataclass import dataclass

__all__ = [
    "Blocked",
    "Decide",
    "End",
    "FlowPolicy",
    "PolicyDecision",
    "Target",
    "Unreadable",
    "intercept_all",
    "without_interception",
]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a SOCKS or CONNECT request wants to go: a host name or address literal, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Somewhere that a client may have asked for in a way that cannot be read: it can be any."""

    why: str = ""
    port: int | None = None
    """The only port that it can be at, where that is known."""


End: TypeAlias = Target | Unreadable


class PolicyDecision(NamedTuple):
    """What to do with a connection; `reason` is the option that decided it, empty for none."""

    action: Literal["block", "passthrough", "intercept"]
    reason: str = ""


Decide: TypeAlias = Callable[[Sequence[End]], PolicyDecision]
"""The policy: what to do with a connection that is known by these ends, the nearest first."""


class Blocked(Exception):  # noqa: N818 - a decision, not an error
    """The policy refuses this flow, because of this end."""

    def __init__(self, reason: str, end: End) -> None:
        super().__init__(reason)
        self.end = end


def intercept_all(_ends: Sequence[End]) -> PolicyDecision:
    """The policy where nothing was asked for."""
    return PolicyDecision("intercept")


@dataclass(frozen=True, slots=True)
class FlowPolicy:
    """The policy for one flow."""

    policy: Decide = intercept_all
    known: tuple[Target, ...] = ()
    """What the flow is known by from the start: its destination, and the destination's DNS name."""

    def decide(self, *ends: Target) -> PolicyDecision:
        """What to do with TLS that is known by these too, the nearest first, once checked."""
        return self.policy((*ends, *self.known))

    def check(self, *ends: End) -> None:
        """Raises Blocked if the flow may not go to one of these."""
        for end in ends:
            action, reason = self.policy((end,))
            if action == "block":
                raise Blocked(reason, end)

    def blocks(self, end: End) -> bool:
        action, _ = self.policy((end,))
        return action == "block"

    @property
    def is_strict(self) -> bool:
        """Whether there is anything that a client may not ask for."""
        return self.blocks(Unreadable())


def without_interception(policy: Decide, reason: str) -> Decide:
    """The same policy, for flows in which no TLS is intercepted."""

    def blocked_or_not(ends: Sequence[End]) -> PolicyDecision:
        decision = policy(ends)
        action, _ = decision
        return decision if action == "block" else PolicyDecision("passthrough", reason)

    return blocked_or_not
