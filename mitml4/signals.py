"""The signals that end mitml4."""

from __future__ import annotations

import signal

__all__ = ["ending_signals"]


def ending_signals() -> tuple[signal.Signals, ...]:
    """SIGINT and SIGTERM; SIGHUP too, unless it was ignored at the start, as with nohup.

    Call it before a handler is set. SIGINT counts even if it was ignored, as it is for a script's
    background processes: such a script ends them with `kill -INT`, for example tcpdump.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return signal.SIGINT, signal.SIGTERM
    return signal.SIGINT, signal.SIGTERM, signal.SIGHUP
