"""How long a session and its parts last."""

from __future__ import annotations

from typing import Final

import click

from mitml4.cli.options.sections import DURATION, option
from mitml4.cli.values import Parsed, parse_lifetime

__all__ = ["COMMAND_LIFE", "DETECTION", "DRY_RUN", "LIFE", "WORKERS", "WORKERS_BESIDE_A_COMMAND"]

LIFE: Final = (
    option(
        "Session",
        "--duration",
        type=Parsed("duration", parse_lifetime),
        help="End the session after this time, such as 30s or 5m.",
    ),
    option(
        "Session",
        "--max-flows",
        type=click.IntRange(min=1),
        metavar="N",
        help="End the session after this number of connections. Those that come at the same time "
        "beyond it pass unrecorded.",
    ),
)
DETECTION: Final = (
    option(
        "Session",
        "--detect-timeout",
        type=DURATION,
        default="500ms",
        show_default=True,
        help="Maximum time to hold back bytes that may become TLS.",
    ),
    option(
        "Session",
        "--drain",
        type=DURATION,
        default="5s",
        show_default=True,
        help="Maximum time for open connections to finish after the session has ended.",
    ),
)
DRY_RUN: Final = (
    option(
        "Session",
        "--dry-run",
        is_flag=True,
        help="Print the rules and how they are undone; change nothing.",
    ),
)
_PROCESSES: Final = click.IntRange(min=1, max=64)
WORKERS: Final = (
    option(
        "Session",
        "--workers",
        type=_PROCESSES,
        metavar="N",
        help="Carry connections in N processes. Default: once more than 8 are open, one for each "
        "processor, up to 4.",
    ),
)
WORKERS_BESIDE_A_COMMAND: Final = (
    option(
        "Session",
        "--workers",
        type=_PROCESSES,
        default=1,
        show_default=True,
        metavar="N",
        help="Carry connections in N processes.",
    ),
)
COMMAND_LIFE: Final = (
    option(
        "Session",
        "--wait/--no-wait",
        default=True,
        show_default=True,
        help="After the command has ended, wait for all processes that it has started.",
    ),
)
