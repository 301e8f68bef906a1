"""What the layers of a flow share: one `LayerContext` for each depth, made from the one outside it.

A layer asks it where the flow is bound for, what it runs inside of, what time it is, and whether
the flow may go where the client asks. A conversation sees the same object. It holds no socket and
needs no trio, so a capture's layers have one too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Final

from mitml4.dataclass import dataclass, replace
from mitml4.protocols.expected import Announcement
from mitml4.protocols.payload import Shown
from mitml4.protocols.policy import FlowPolicy, Target

__all__ = ["MAX_DEPTH", "LayerContext"]

MAX_DEPTH: Final = 16
"""Layers deeper than this are relayed unseen."""


def _never() -> float:
    return 0.0


def _ignore(_offered: bool) -> None:
    """Channel binding matters only inside a TLS that was intercepted."""


def _nobody(_announcement: Announcement) -> None:
    """Nobody waits for connections that are announced."""


def _nothing(_target: Target) -> None:
    """Nothing is announced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerContext:
    """What one layer may know of the world outside it."""

    clock: Callable[[], float] = _never
    """Seconds, monotonic: the event loop's clock live, the packet's time offline."""
    stack: tuple[str, ...] = ()
    """The protocols outside this layer, outermost first."""
    target: Target | None = None
    """The logical target that an outer layer has named, else the original destination."""
    secure: bool = False
    """Whether it runs inside TLS (the scheme of a URL)."""
    policy: FlowPolicy = field(default_factory=FlowPolicy)
    """Whether the flow may go where the client asks."""
    shown: Shown = field(default_factory=Shown)
    """What events show of what is said."""
    hold_s: float = 0.0
    """For how long a part of a message may be held back while nothing more comes."""
    expected: str | None = None
    """The protocol that the outer layer has negotiated (websocket), where it has."""
    negotiated: bytes = b""
    """What the outer layer has negotiated for it: the extensions of a WebSocket."""
    passthrough_reason: str | None = None
    """Why TLS cannot be intercepted here, where the outer layer knows."""
    on_channel_binding: Callable[[bool], None] = _ignore
    """Told what is said inside intercepted TLS of binding logins to it: True, the server offers
    that; False, it has let the client in without."""

    announced: str | None = None
    """What the flow is, according to another one that has announced it: the name of what is not
    known by its bytes."""
    announced_for: Callable[[Target], str | None] = _nothing
    """The same for what a client asks for in a tunnel."""
    on_announced: Callable[[Announcement], None] = _nobody
    """Told of the connections that a conversation announces."""

    @property
    def depth(self) -> int:
        return len(self.stack)

    @property
    def port(self) -> int | None:
        """The port that the flow is bound for here."""
        return self.target.port if self.target else None

    def inside(
        self,
        protocol: str,
        *,
        target: Target | None = None,
        expected: str | None = None,
        negotiated: bytes = b"",
        passthrough_reason: str | None = None,
    ) -> LayerContext:
        """The context of what this protocol carries. `target`: the client has named it here."""
        return replace(
            self,
            stack=(*self.stack, protocol),
            target=target or self.target,
            policy=self._policy_inside(target),
            expected=expected,
            negotiated=negotiated,
            passthrough_reason=passthrough_reason,
            announced=self._announced_inside(target),
        )

    def announce(self, announcement: Announcement) -> None:
        """Tell of a connection that a conversation announces. The server of what is in a tunnel is
        the one that the client has named there."""
        if announcement.host is None and not announcement.of_client and self.target:
            announcement = replace(announcement, host=self.target.host)
        self.on_announced(announcement)

    def _announced_inside(self, target: Target | None) -> str | None:
        if target is None or target == self.target:
            return self.announced
        return self.announced_for(target)

    def _policy_inside(self, target: Target | None) -> FlowPolicy:
        if target is None or target == self.target:
            return self.policy
        return self.policy.inside(target.host)

    def answering_denied(self) -> LayerContext:
        """The same for who reads requests, where what is not allowed is answered behind it."""
        return replace(self, policy=replace(self.policy, answers_denied=True))

    def inside_tls(
        self,
        on_channel_binding: Callable[[bool], None] = _ignore,
        *,
        names: Sequence[str] = (),
    ) -> LayerContext:
        """The context of the plaintext of a TLS layer; `names`: its SNI."""
        return replace(
            self.inside("tls"),
            secure=True,
            on_channel_binding=on_channel_binding,
            policy=self.policy.inside(*names),
        )
