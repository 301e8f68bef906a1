"""What a process may do, and what the programs may that it executes."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable

import pytest

from mitml4.net.capabilities import Capability, drop_for_good, hand_down, has
from mitml4.net.isolation import enter_user_namespace
from mitml4.net.processes import become_user
from mitml4.net.trial.child import run_in_child

NOBODY = 65534
NET_ADMIN, SYS_ADMIN = 1 << 12, 1 << 21  # linux/capability.h
ALL = sum(1 << each for each in Capability)


def as_nobody(work: Callable[[], object]) -> object:
    """What comes of it in a user namespace: with every capability, and not as root."""

    def inner() -> object:
        if os.geteuid() == 0:
            become_user(NOBODY, NOBODY)
        enter_user_namespace(root=False)
        return work()

    (answer,) = run_in_child(inner, timeout_s=20)
    return answer


def of_a_program(kind: str) -> int:
    """The capabilities of a program that we execute, as /proc names their kind."""
    done = subprocess.run(["cat", "/proc/self/status"], capture_output=True, check=True, text=True)
    found = re.search(rf"^{kind}:\s*([0-9a-f]+)$", done.stdout, re.MULTILINE)
    assert found is not None
    return int(found[1], 16)


def test_a_user_has_none_of_them_and_in_a_namespace_of_theirs_all() -> None:
    def work() -> list[bool]:
        if os.geteuid() == 0:
            become_user(NOBODY, NOBODY)
        before = has(Capability.NET_ADMIN)
        enter_user_namespace(root=False)
        return [before, has(Capability.NET_ADMIN), has(*Capability)]

    assert run_in_child(work, timeout_s=20) == [[False, True, True]]


@pytest.mark.parametrize("handed", [(), (Capability.NET_ADMIN,), tuple(Capability)])
def test_a_program_has_exactly_what_is_handed_down_last(handed: tuple[Capability, ...]) -> None:
    def work() -> tuple[int, bool]:
        hand_down({Capability.SYS_ADMIN})
        hand_down(handed)
        return of_a_program("CapEff"), has(*Capability)

    assert as_nobody(work) == (sum(1 << each for each in handed), True)


def test_what_is_dropped_for_good_is_out_of_reach() -> None:
    def work() -> tuple[int, int]:
        before = of_a_program("CapBnd")
        drop_for_good(Capability)
        drop_for_good(Capability)  # those that are gone are no error
        return before & ~of_a_program("CapBnd"), of_a_program("CapBnd") & ALL

    assert as_nobody(work) == (ALL, 0)
