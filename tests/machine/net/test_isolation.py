"""Namespaces of a process's own, with power over the host's and without."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from mitml4.net import capabilities, isolation
from mitml4.net.isolation import (
    CLONE_NEWNET,
    enter_network,
    enter_user_namespace,
    unshare_with_power,
    unshare_without_power,
)
from mitml4.net.trial.child import run_in_child

TIMEOUT_S = 20.0


def network() -> int:
    return os.stat("/proc/self/ns/net").st_ino


def test_a_new_network_has_nothing_but_a_loopback() -> None:
    def look() -> list[str]:
        enter_network()
        return [name for _, name in socket.if_nameindex() if not name.startswith("ifb")]

    assert run_in_child(look, timeout_s=TIMEOUT_S) == [["lo"]]


@pytest.mark.parametrize("root", [True, False])
def test_in_a_user_namespace_one_is_root_or_oneself(root: bool) -> None:
    def look() -> int:
        enter_user_namespace(root=root)
        return os.geteuid()

    assert run_in_child(look, timeout_s=TIMEOUT_S) == [0 if root else os.geteuid()]


def test_without_power_a_network_comes_in_a_user_namespace() -> None:
    def look() -> tuple[bool, bool]:
        users, before = os.stat("/proc/self/ns/user").st_ino, network()
        unshare_without_power(CLONE_NEWNET, root=True)
        return os.stat("/proc/self/ns/user").st_ino != users, network() != before

    assert run_in_child(look, timeout_s=TIMEOUT_S) == [(True, True)]


def test_who_has_no_power_is_told_so_and_stays(monkeypatch) -> None:
    monkeypatch.setattr(capabilities, "has", lambda *_: False)
    before = network()
    assert not unshare_with_power(CLONE_NEWNET)
    assert network() == before


def test_power_that_a_filter_takes_is_none(monkeypatch) -> None:
    monkeypatch.setattr(capabilities, "has", lambda *_: True)
    monkeypatch.setattr(isolation, "unshare", refusing(errno.EPERM))
    assert not unshare_with_power(CLONE_NEWNET)


def test_any_other_refusal_is_raised(monkeypatch) -> None:
    monkeypatch.setattr(capabilities, "has", lambda *_: True)
    monkeypatch.setattr(isolation, "unshare", refusing(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        unshare_with_power(CLONE_NEWNET)


def refusing(code: int):
    def unshare(_: int) -> None:
        raise OSError(code, os.strerror(code))

    return unshare
