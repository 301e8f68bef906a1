"""What may be named, and what is said of what may not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mitml4.errors import MachineError, UsageError
from mitml4.net.attach.target import Target


def test_a_process_is_in_a_network() -> None:
    target = Target.of_process(os.getpid())
    assert target.what == f"process {os.getpid()}"
    assert target.is_ours
    assert target.is_of(os.getpid())
    assert target.user is None
    assert not target.has_ended
    target.close()


def test_a_path_below_proc_names_its_process() -> None:
    target = Target.of_name(f"/proc/{os.getpid()}/ns/net")
    assert target.pid == os.getpid()
    target.close()


def test_a_path_that_leads_elsewhere_has_ended(tmp_path: Path) -> None:
    link = tmp_path / "network"
    link.symlink_to("/proc/self/ns/net")
    target = Target.of_name(str(link))
    assert not target.has_ended
    link.unlink()
    assert target.has_ended
    target.close()


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    for name, said in (("no-such-name", "no network namespace no-such-name"), (str(file), "is no")):
        with pytest.raises(UsageError, match=said) as caught:
            Target.of_name(name)
        assert caught.value.hint
    for pid in (ended.pid, 1 << 40):
        with pytest.raises(UsageError, match=f"no process {pid}"):
            Target.of_process(pid)


@pytest.mark.parametrize(("user", "hint"), [(1000, "sudo"), (0, "CAP_SYS_PTRACE")])
def test_root_is_not_told_to_become_root(user: int, hint: str, monkeypatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(MachineError, match="may not be entered") as caught:
        Target.of_process(os.getpid())
    assert caught.value.hint
    assert hint in caught.value.hint
