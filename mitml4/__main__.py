"""The command: `mitml4`, and `python -m mitml4`."""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["main"]

_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it


def main() -> NoReturn:
    """Import the command line and run it. Ctrl-C during the import ends it without a traceback."""
    try:
        from mitml4.cli.main import main as run_command_line
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    run_command_line()


if __name__ == "__main__":
    main()
