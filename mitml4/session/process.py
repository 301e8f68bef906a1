"""Settings of a process that carries many flows."""

from __future__ import annotations

import gc
import resource
import sys
from typing import Final

from mitml4.net import urgent

__all__ = ["prepare_process"]

_SWITCH_S: Final = 0.0005
"""How long a thread that writes events may keep the interpreter lock each time that a flow releases
it for a system call. Python's default is ten times that, and a response takes about ten calls.
"""
_COLLECT: Final = (5_000, 5, 1_000)
"""gc.set_threshold: collect the young generation often and the old one rarely, since that takes
160 ms with 3,000 open flows. A closed flow leaves no reference cycles."""
_MAX_DESCRIPTORS: Final = 1 << 20


def prepare_process() -> None:
    """Set the limit of descriptors, the interpreter's switch interval and garbage collection."""
    _allow_descriptors()
    urgent.listen_for_it()
    sys.setswitchinterval(_SWITCH_S)
    gc.set_threshold(*_COLLECT)
    gc.freeze()  # modules stay: collections need not traverse them


def _allow_descriptors() -> None:
    """Raise the limit as far as allowed: a flow takes two, and two pipes while it is busy."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (_MAX_DESCRIPTORS, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
        except (ValueError, OSError):
            continue
        return
