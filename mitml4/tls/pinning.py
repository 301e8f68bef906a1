"""Who does not take our certificates: learned from refusals, kept for a while, then tried again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

__all__ = ["REFUSALS", "Bypasses"]

REFUSALS: Final = {
    42: "bad_certificate",
    43: "unsupported_certificate",
    44: "certificate_revoked",
    45: "certificate_expired",
    46: "certificate_unknown",
    48: "unknown_ca",
}
"""The alerts by which a client says that it does not trust a certificate (RFC 8446 §6.2)."""

_KEPT_S: Final = 300.0
_MOST: Final = 4096

Key = tuple[str, str | None]


class Bypasses:
    """(logical target, SNI) pairs that are passed through for five minutes, and why."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: OrderedDict[Key, tuple[float, str]] = OrderedDict()

    def learn(self, target: str, sni: str | None, reason: str) -> None:
        """Pass this one through from the next connection on."""
        self._until.pop((target, sni), None)
        self._until[target, sni] = (self._clock() + _KEPT_S, reason)
        if len(self._until) > _MOST:
            self._until.popitem(last=False)

    def reason(self, target: str, sni: str | None) -> str | None:
        """Why this one is passed through; None when it is not."""
        until, reason = self._until.get((target, sni), (0.0, ""))
        if until <= self._clock():
            self._until.pop((target, sni), None)
            return None
        return reason
