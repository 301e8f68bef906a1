"""The machine and the programs of a run."""

from __future__ import annotations

import os
import platform
import re
import ssl
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mitml4.session.doctor.interpreter import is_optimized

__all__ = ["details"]


def details() -> dict[str, Any]:
    """What a reader needs to interpret the figures; nothing that identifies the machine."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "kernel": platform.release(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB",
        "load average at start": _load(),
        "Python": f"{platform.python_version()}{_build()} ({ssl.OPENSSL_VERSION})",
        "mitml4 commit": _commit(),
        "server": _first_line("nginx", "-v"),
        "client": " ".join(_first_line("curl", "--version").split()[:2]),
    }


def _build() -> str:
    return "" if is_optimized() else ", built without optimization: it is slower"


def _load() -> str:
    load = os.getloadavg()[0]
    return f"{load:.2f}" + (" (the machine was not idle: read with care)" if load > 0.5 else "")


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _commit() -> str:
    return _first_line("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")


def _first_line(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return f"{argv[0]} is not there"
    return next(iter((done.stdout or done.stderr).splitlines()), "unknown")
