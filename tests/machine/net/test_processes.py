"""Root can become another user."""

from __future__ import annotations

import os
from pathlib import Path

from mitml4.net.processes import become_user
from mitml4.net.trial.child import run_in_child


def test_who_becomes_a_user_owns_what_the_kernel_shows_of_it() -> None:
    def work() -> tuple[int, int, list[int], int]:
        become_user(65534, 65533)
        return os.getuid(), os.getgid(), os.getgroups(), Path("/proc/self/status").stat().st_uid

    assert run_in_child(work, timeout_s=20) == [(65534, 65533, [], 65534)]
