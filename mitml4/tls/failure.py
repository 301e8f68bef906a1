"""How TLS breaks, whichever library does it."""

from __future__ import annotations

from mitml4.net.stream import StreamTruncated

__all__ = ["TlsFailure"]


class TlsFailure(StreamTruncated):
    """TLS broke: the far side sent a fatal alert, or records that do not decrypt."""

    def __init__(self, reason: str, alert: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.alert = alert
        """The far side's fatal alert (RFC 8446 §6); None if it sent none."""
