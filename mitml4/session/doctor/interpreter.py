"""The Python that mitml4 runs on: how it was built decides how fast it is."""

from __future__ import annotations

import platform
import sys
import sysconfig
from typing import Final

from mitml4.session.doctor.check import Check

__all__ = ["check_interpreter", "is_optimized"]

_OPTION: Final = "--enable-optimizations"
_DISTRIBUTION: Final = "/usr"


def is_optimized() -> bool:
    """Whether this Python was built with profile-guided optimization.

    CPython's configure does so only if asked. Distributions ask for it, some of them by other means
    than this option (Debian). pyenv and a build by hand do not.
    """
    configured = sysconfig.get_config_var("CONFIG_ARGS") or ""
    return sys.base_prefix == _DISTRIBUTION or _OPTION in configured


def check_interpreter() -> Check:
    """Never a failure: mitml4 works on any, and is slower on some."""
    version = f"{platform.python_implementation()} {platform.python_version()}"
    if is_optimized():
        return Check(
            group="tools", name="python", state="ok", found=f"{version} ({sys.base_prefix})"
        )
    return Check(
        group="tools",
        name="python",
        state="skip",
        found=f"{version} ({sys.base_prefix}) was built without {_OPTION}: mitml4 is slower on it",
        remedy=_remedy(),
    )


def _remedy() -> tuple[str, ...]:
    if "pyenv" not in sys.base_prefix:
        return ()
    options = f"PYTHON_CONFIGURE_OPTS='{_OPTION} --with-lto'"
    return (f"{options} pyenv install --force {platform.python_version()}",)
