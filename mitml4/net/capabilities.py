"""The capabilities of this process, and of the programs that it executes.

capabilities(7). Each function raises the kernel's OSError. Constants: linux/prctl.h,
linux/capability.h.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Final

from mitml4.net.libc import checked, libc, prctl

__all__ = [
    "LIMIT",
    "OVER_MEMORY",
    "Capability",
    "drop_for_good",
    "hand_down",
    "has",
    "keep_only",
    "missing_capability_hint",
    "outliving_root",
]

_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

_PR_SET_KEEPCAPS: Final = 8

LIMIT: Final = 64
"""An upper bound of capability numbers; the kernel has fewer."""

_VERSION_3: Final = 0x20080522


class Capability(IntEnum):
    """The capabilities that mitml4 uses."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    KILL = 5
    NET_ADMIN = 12
    NET_RAW = 13
    SYS_PTRACE = 19
    SYS_ADMIN = 21


OVER_MEMORY: Final = (
    16,  # CAP_SYS_MODULE
    17,  # CAP_SYS_RAWIO
    19,  # CAP_SYS_PTRACE
    38,  # CAP_PERFMON
    39,  # CAP_BPF
)
"""Each of these permits reading or changing the memory of other processes, or the kernel's."""


def has(*capabilities: Capability) -> bool:
    """Whether this process has all of them, over what its user namespace owns."""
    return all(_effective() >> capability & 1 for capability in capabilities)


def missing_capability_hint(
    as_root: str = "run as root: sudo mitml4 …", image: str = "IMAGE"
) -> str:
    """What gives a session its capabilities: `as_root`, unless this is root already, which lacks
    them in a container."""
    if os.geteuid() != 0:
        return as_root
    return f"docker run --cap-add NET_ADMIN --cap-add NET_RAW {image}"


def hand_down(capabilities: Iterable[Capability]) -> None:
    """Pass exactly these capabilities to programs that we execute."""
    wanted = sum(1 << capability for capability in capabilities)
    ours = _effective()
    _capset(effective=ours, permitted=ours, inheritable=wanted)
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in Capability:
        if wanted >> capability & 1:
            prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)


def drop_for_good(capabilities: Iterable[int]) -> None:
    """Remove these capabilities from every program that is executed from here on, whatever its file
    grants."""
    for capability in capabilities:
        try:
            is_there = prctl(_PR_CAPBSET_READ, capability)
        except OSError:  # an older kernel, which has fewer capabilities
            continue
        if is_there:
            prctl(_PR_CAPBSET_DROP, capability)


@contextmanager
def outliving_root() -> Iterator[None]:
    """Keep this thread's permitted capabilities across a change of user inside the block; other
    threads lose theirs."""
    prctl(_PR_SET_KEEPCAPS, 1)
    try:
        yield
    finally:
        prctl(_PR_SET_KEEPCAPS, 0)


def keep_only(capabilities: Iterable[Capability]) -> None:
    """Drop all other capabilities, and pass none to programs. Those that we do not have are
    ignored."""
    kept = _of_status("CapPrm") & sum(1 << capability for capability in set(capabilities))
    _capset(effective=kept, permitted=kept, inheritable=0)


def _effective() -> int:
    return _of_status("CapEff")


def _of_status(name: str) -> int:
    """A capability set of this thread: one bit for each capability."""
    status = Path("/proc/thread-self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(name))
    return int(line.split()[1], 16)


def _capset(*, effective: int, permitted: int, inheritable: int) -> None:
    header = struct.pack("=Ii", _VERSION_3, 0)
    halves = [
        word & 0xFFFFFFFF
        for shift in (0, 32)
        for word in (effective >> shift, permitted >> shift, inheritable >> shift)
    ]
    checked(libc.capset(header, struct.pack("=6I", *halves)))
