"""Which signals ask mitml4 to end."""

from __future__ import annotations

import signal

__all__ = ["ending_signals"]


def ending_signals() -> tuple[signal.Signals, ...]:
    """SIGINT and SIGTERM; SIGHUP too, unless we were started with it ignored, as nohup does.

    Ask before a handler is set. SIGINT counts even if it was ignored, as it is for what a script
    starts in the background: `kill -INT` is how such a script ends it, tcpdump likewise.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return signal.SIGINT, signal.SIGTERM
    return signal.SIGINT, signal.SIGTERM, signal.SIGHUP
