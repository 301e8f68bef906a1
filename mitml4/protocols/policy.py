"""Where a flow is bound for, and whether it may go there.

Whichever layer learns a name or an address asks, before the bytes that say it move on: the
destination before there is a connection, SOCKS and CONNECT targets, SNI, Host and :authority. What
cannot be read is asked about as well: it is relayed unread as long as no block could match it, and
ends the flow otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Final, Literal, NamedTuple, TypeAlias

from mitml4.dataclass import dataclass

__all__ = [
    "ANYTHING",
    "NOT_ALLOWED",
    "Blocked",
    "Closed",
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
        is_bare_ipv6 = ":" in self.host and not self.host.startswith("[")
        return f"[{self.host}]:{self.port}" if is_bare_ipv6 else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Somewhere that a client may have asked for in a way that cannot be read: it can be any."""

    why: str = ""
    port: int | None = None
    """The only port that it can be at, where that is known."""


@dataclass(frozen=True, slots=True)
class Closed:
    """TLS that is not opened, or that disagrees with DNS: it may lead anywhere. Only where all but
    some hosts are refused does that matter."""

    why: str


End: TypeAlias = Target | Unreadable | Closed

NOT_ALLOWED: Final = "not in --allow"
"""The reason of a decision to block what no `--allow` names."""


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
        self.reason = reason
        self.end = end

    @property
    def is_denied(self) -> bool:
        """Nothing allows it. Otherwise, something blocks it."""
        return self.reason == NOT_ALLOWED

    def __str__(self) -> str:
        """What is refused, and why."""
        end = self.end
        if isinstance(end, Target):
            return f"{end} is {self.reason}"
        return end.why or "a host that cannot be read"


_INTERCEPT: Final = PolicyDecision("intercept")


def intercept_all(_ends: Sequence[End]) -> PolicyDecision:
    """The policy where nothing was asked for."""
    return _INTERCEPT


@dataclass(frozen=True, slots=True)
class FlowPolicy:
    """The policy for one flow."""

    policy: Decide = intercept_all
    known: tuple[Target, ...] = ()
    """What the flow is known by from the start: its destination, and the destination's DNS name."""
    also_known: tuple[Target, ...] = ()
    """The other names that DNS has given for the destination."""
    is_default_deny: bool = False
    """Whether everything but some hosts is refused."""
    meant: tuple[str, ...] | None = None
    """The hosts of which SNI and Host have to name one; None: any."""
    answers_denied: bool = False
    """Whether requests for hosts that are not allowed are answered behind who reads them."""
    refuses_nothing: bool = False
    """Whether nobody has to find the hosts that a client asks for, as in a capture."""

    def decide(self, *ends: Target) -> PolicyDecision:
        """What to do with TLS that is known by these too, the nearest first, once checked."""
        return self.policy((*ends, *self.known))

    def check(self, *ends: End) -> None:
        """Raises Blocked if the flow may not go to one of these."""
        for end in ends:
            action, reason = self.policy((end,))
            if action == "block":
                raise Blocked(reason, end)

    def refusal(self, *ends: End) -> Blocked | None:
        """What `check` raises."""
        try:
            self.check(*ends)
        except Blocked as blocked:
            return blocked
        return None

    def is_answered(self, end: End) -> bool:
        """Whether a request for this is not allowed, and is answered behind who asks."""
        if not self.answers_denied:
            return False
        refusal = self.refusal(end)
        return refusal is not None and refusal.is_denied

    def check_destination(self) -> None:
        """Raises Blocked if the flow may not go to its destination. It may if any of its names is
        allowed, and none is blocked."""
        action, reason = self.policy(self.known)
        if (action, reason) == ("block", NOT_ALLOWED) and self.also_known:
            action, reason = self.policy((self.known[0], *self.also_known))
        if action == "block":
            names = (*self.known[1:], *self.also_known)
            is_named = reason == NOT_ALLOWED and not all(map(self.blocks, names))
            # Where a name is allowed, its address is what has to be named: a private one.
            raise Blocked(reason, self.known[0] if is_named else self.known[-1])

    def check_block(self) -> None:
        """Raises Blocked if something blocks the destination; whether it is allowed does not
        matter."""
        refusal = self.refusal(*self.known)
        if refusal and not refusal.is_denied:
            raise refusal

    @property
    def needs_name(self) -> bool:
        """Whether the destination is refused as long as no name of it is known that is allowed."""
        refusal = self.refusal(self.known[0])
        return len(self.known) == 1 and refusal is not None and refusal.is_denied

    def check_closed(self, names: Sequence[str], why: str, *, is_asked_for: bool) -> None:
        """Raises Blocked if TLS that names these hosts may not stay closed: where all but some
        hosts are refused, only the user may ask for that, and DNS must have given the address for
        the name."""
        if self.meant is None or (is_asked_for and names and self.means(*names)):
            return
        self.check(Closed(why))

    def means(self, *hosts: str) -> bool:
        """Whether all of these are who the flow is for, as far as that is known."""
        return self.meant is None or all(_bare(each) in self.meant for each in hosts)

    def inside(self, *hosts: str) -> FlowPolicy:
        """The policy inside of what leads to these hosts. An address may be called by any allowed
        name, since it is allowed itself."""
        if not self.is_default_deny or not hosts:
            return self
        meant = None if all(map(_is_address, hosts)) else tuple(map(_bare, hosts))
        return replace(self, meant=meant)

    @classmethod
    def of_flow(cls, policy: Decide, destination: Target, names: Sequence[Target]) -> FlowPolicy:
        """The policy of a flow to a destination, by the names that DNS has given for it; what the
        flow is known by comes first."""
        whole = cls(policy, (destination, *names[:1]), tuple(names[1:]))
        if not whole.blocks(Closed("")):
            return whole
        whole = replace(whole, is_default_deny=True)
        hosts = [each.host for each in names] if whole.blocks(destination) else [destination.host]
        return whole.inside(*hosts)

    def blocks(self, end: End) -> bool:
        action, _ = self.policy((end,))
        return action == "block"

    @property
    def is_strict(self) -> bool:
        """Whether there is anything that a client may not ask for."""
        return not self.refuses_nothing and self.blocks(Unreadable())


ANYTHING: Final = FlowPolicy(refuses_nothing=True)
"""The policy of flows in a capture."""


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _bare(host: str) -> str:
    return host.lower().rstrip(".")


def without_interception(policy: Decide, reason: str) -> Decide:
    """The same policy, for flows in which no TLS is intercepted."""

    def blocked_or_not(ends: Sequence[End]) -> PolicyDecision:
        decision = policy(ends)
        action, _ = decision
        return decision if action == "block" else PolicyDecision("passthrough", reason)

    return blocked_or_not
