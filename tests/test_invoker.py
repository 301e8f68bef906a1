"""Who called sudo."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from mitml4.invoker import give_to_invoker, sudo_user


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def test_it_is_who_sudo_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "nobody")
    assert sudo_user() == pwd.getpwnam("nobody")


@pytest.mark.parametrize("name", ["", "no such user"])
def test_a_name_that_is_nobodys_is_none(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("SUDO_USER", name)
    assert sudo_user() is None


def test_without_sudo_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    assert sudo_user() is None


def test_an_ordinary_user_has_called_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("SUDO_USER", "nobody")
    assert sudo_user() is None


@pytest.mark.parametrize("name", ["nobody", None])
def test_a_file_is_given_to_them_and_else_to_no_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str | None
) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda _, uid, gid: given.append((uid, gid)))
    monkeypatch.delenv("SUDO_USER", raising=False)
    if name:
        monkeypatch.setenv("SUDO_USER", name)
    with (tmp_path / "file").open("w") as file:
        give_to_invoker(file.fileno())
    nobody = pwd.getpwnam("nobody")
    assert given == ([(nobody.pw_uid, nobody.pw_gid)] if name else [])
