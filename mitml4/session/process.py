"""What a process that carries many flows does first."""

from __future__ import annotations

import gc
import resource
import sys
from typing import Final

from mitml4.net import urgent

__all__ = ["prepare_process"]

_SWITCH_S: Final = 0.0005
"""How long a thread that writes events may keep the interpreter, each time that a flow has let go
of it for a system call. Python's own is ten times that, and an answer takes some ten calls.
"""
_COLLECT: Final = (5_000, 5, 1_000)
"""gc.set_threshold: often among what is young, hardly ever among all: with 3,000 flows open that
took 160 ms. A flow that is over leaves no cycle behind."""
_MOST_DESCRIPTORS: Final = 1 << 20


def prepare_process() -> None:
    """Settings of the whole process: descriptors, threads, garbage collection."""
    _allow_descriptors()
    urgent.listen_for_it()
    sys.setswitchinterval(_SWITCH_S)
    gc.set_threshold(*_COLLECT)
    gc.freeze()  # modules are here to stay: no collection need look at them again


def _allow_descriptors() -> None:
    """As many descriptors as we may have: a flow takes two, and two pipes while it is busy."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (_MOST_DESCRIPTORS, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
        except (ValueError, OSError):
            continue
        return
