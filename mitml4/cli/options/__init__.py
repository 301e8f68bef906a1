"""The options of a session: names, values, defaults and help, in sections."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from mitml4.cli.options.life import (
    COMMAND_LIFE,
    DETECTION,
    DRY_RUN,
    LIFE,
    WORKERS,
    WORKERS_BESIDE_A_COMMAND,
)
from mitml4.cli.options.output import COMMAND_DISPLAY, DISPLAY, FILES, HAR, PLAIN, SHOWN
from mitml4.cli.options.scope import CA_DIR, COMMAND_SCOPE, PROXY_SCOPE, SCOPE
from mitml4.cli.options.sections import Command, F, SectionOption, section_of
from mitml4.cli.options.traffic import ALLOW, EDITING, POLICY, VIA

__all__ = [
    "Command",
    "SectionOption",
    "capture_files_options",
    "intercept_options",
    "proxy_options",
    "run_options",
    "section_of",
    "shown_options",
]

_INTERCEPT_OPTIONS: Final = (
    *SCOPE, *CA_DIR, *POLICY, *ALLOW, *VIA, *EDITING, *DISPLAY, *FILES,
    *LIFE, *WORKERS, *DETECTION, *DRY_RUN,
)  # fmt: skip
_RUN_OPTIONS: Final = (
    *COMMAND_SCOPE, *POLICY, *ALLOW, *VIA, *EDITING, *COMMAND_DISPLAY, *FILES,
    *COMMAND_LIFE, *WORKERS_BESIDE_A_COMMAND, *DETECTION,
)  # fmt: skip

_PROXY_OPTIONS: Final = (
    *PROXY_SCOPE, *CA_DIR, *POLICY, *ALLOW, *VIA, *EDITING, *DISPLAY, *FILES,
    *LIFE, *WORKERS, *DETECTION,
)  # fmt: skip


def intercept_options(function: F) -> F:
    """Add the options of `intercept`; `intercept_config` takes their values."""
    return _with(_INTERCEPT_OPTIONS, function)


def proxy_options(function: F) -> F:
    """Add the options of `proxy`; `proxy_config` takes their values."""
    return _with(_PROXY_OPTIONS, function)


def run_options(function: F) -> F:
    """Add the options of `run`; `run_config` takes their values."""
    return _with(_RUN_OPTIONS, function)


def shown_options(function: F) -> F:
    """Add the options of what events show; `shown` takes their values."""
    return _with(SHOWN, function)


def capture_files_options(function: F) -> F:
    """Add the options for the files that `detect` writes too."""
    return _with((HAR, PLAIN), function)


def _with(options: Iterable[Callable[[F], F]], function: F) -> F:
    for option in reversed(list(options)):
        function = option(function)
    return function
