"""`python -m soaking.launch FILE COMMAND…`: mitml4 with a clock that can be set, and a signal.

The file is a page of memory, shared with every process that is forked from this one, of which the
soak has the other end (`Shared`). SIGUSR2 makes the process take the limit of descriptors that is
there (who changes that of another process needs CAP_SYS_RESOURCE), and tell its number of tasks.
"""

from __future__ import annotations

import mmap
import resource
import runpy
import signal
import struct
import sys
from pathlib import Path
from typing import Final

from soaking import clock

__all__ = ["Shared", "main"]

_CLOCK: Final = struct.Struct("d")
_COUNTS: Final = struct.Struct("3I")


class Shared:
    """Numbers that both ends see."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), _CLOCK.size + _COUNTS.size)

    @staticmethod
    def create(path: Path) -> None:
        path.write_bytes(bytes(_CLOCK.size + _COUNTS.size))

    def set_clock(self, ahead_s: float) -> None:
        _CLOCK.pack_into(self._page, 0, ahead_s)

    def ahead_s(self) -> float:
        """How far the clock is ahead, in seconds."""
        return float(_CLOCK.unpack_from(self._page)[0])

    def counts(self) -> tuple[int, int, int]:
        """The limit of descriptors (0: the highest), how often a signal was answered, and how many
        tasks there were then."""
        limit, answers, tasks = _COUNTS.unpack_from(self._page, _CLOCK.size)
        return limit, answers, tasks

    def set_counts(self, limit: int, answers: int, tasks: int) -> None:
        _COUNTS.pack_into(self._page, _CLOCK.size, limit, answers, tasks)


def main() -> None:
    shared = Shared(Path(sys.argv[1]))
    clock.shift(shared.ahead_s)

    def obey(*_: object) -> None:
        import trio

        limit, answers, _old = shared.counts()
        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit or hard, hard))
        shared.set_counts(limit, answers + 1, trio.lowlevel.current_statistics().tasks_living)

    signal.signal(signal.SIGUSR2, obey)
    sys.argv[:2] = ["mitml4"]
    runpy.run_module("mitml4", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
