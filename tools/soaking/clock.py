"""A clock of the calendar that is ahead of the machine's, for one process and those forked from it.

Namespaces do not set this clock apart, and to set the machine's would disturb everybody else. A
module apart from `launch`, so that times can be pickled by its name.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable

__all__ = ["ShiftedDatetime", "shift"]


class ShiftedDatetime(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> ShiftedDatetime:
        return cls.fromtimestamp(time.time(), tz)


def shift(ahead_s: Callable[[], float]) -> None:
    """Before anything else takes these functions from their modules."""
    time_of, time_ns_of = time.time, time.time_ns
    time.time = lambda: time_of() + ahead_s()
    time.time_ns = lambda: time_ns_of() + int(ahead_s() * 1e9)
    datetime.datetime = ShiftedDatetime  # type: ignore[misc]
