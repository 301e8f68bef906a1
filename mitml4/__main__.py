"""The command: `mitml4`, and `python -m mitml4`."""

from __future__ import annotations

import gc
import sys
from typing import Final, NoReturn

__all__ = ["main"]

_INTERRUPTED: Final = 130  # 128 + SIGINT, as a shell reports it
_COLLECT_AFTER: Final = 1_000_000
"""gc.set_threshold: imports allocate many objects and leave no garbage. Sessions and `detect` set
other thresholds."""


def main() -> NoReturn:
    """Import the command line and run it. Ctrl-C during the import ends it without a traceback."""
    gc.set_threshold(_COLLECT_AFTER)
    try:
        from mitml4.cli.main import main as run_command_line
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    try:
        run_command_line()
    finally:
        # Python collects garbage several times when it exits, which takes a fifth of the CPU time
        # of a short command. It leaves frozen objects to the end of the process.
        gc.freeze()


if __name__ == "__main__":
    main()
