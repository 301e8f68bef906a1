"""What this process may do that is root's, and what the programs may that it executes.

capabilities(7). Each raises OSError as the kernel gives it. Constants: linux/prctl.h,
linux/capability.h.
"""

from __future__ import annotations

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
    "outliving_root",
]

_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

_PR_SET_KEEPCAPS: Final = 8

LIMIT: Final = 64
"""Of the numbers of capabilities; the kernel knows fewer."""

_VERSION_3: Final = 0x20080522


class Capability(IntEnum):
    """The capabilities that are spoken of here."""

    KILL = 5
    NET_ADMIN = 12
    NET_RAW = 13
    SYS_ADMIN = 21


OVER_MEMORY: Final = (
    16,  # CAP_SYS_MODULE
    17,  # CAP_SYS_RAWIO
    19,  # CAP_SYS_PTRACE
    38,  # CAP_PERFMON
    39,  # CAP_BPF
)
"""With these the memory of other processes, or the kernel's, can be read or changed."""


def has(*capabilities: Capability) -> bool:
    """Whether this process has them all, over what its user namespace owns."""
    return all(_effective() >> capability & 1 for capability in capabilities)


def hand_down(capabilities: Iterable[Capability]) -> None:
    """Let exactly these of ours be had by programs that we execute; by none, if none are given."""
    wanted = sum(1 << capability for capability in capabilities)
    ours = _effective()
    _capset(effective=ours, permitted=ours, inheritable=wanted)
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in Capability:
        if wanted >> capability & 1:
            prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)


def drop_for_good(capabilities: Iterable[int]) -> None:
    """Let no program that is executed from here on have these, whatever its file says."""
    for capability in capabilities:
        try:
            is_there = prctl(_PR_CAPBSET_READ, capability)
        except OSError:  # an older kernel, which has fewer of them
            continue
        if is_there:
            prctl(_PR_CAPBSET_DROP, capability)


@contextmanager
def outliving_root() -> Iterator[None]:
    """Whoever becomes another user in here keeps what this thread is permitted; no other thread
    does."""
    prctl(_PR_SET_KEEPCAPS, 1)
    try:
        yield
    finally:
        prctl(_PR_SET_KEEPCAPS, 0)


def keep_only(capabilities: Iterable[Capability]) -> None:
    """Let go of all others, and hand down none. What we do not have is not kept either."""
    kept = _of_status("CapPrm") & sum(1 << capability for capability in set(capabilities))
    _capset(effective=kept, permitted=kept, inheritable=0)


def _effective() -> int:
    return _of_status("CapEff")


def _of_status(name: str) -> int:
    """A set of this thread's, with a bit for each capability."""
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
