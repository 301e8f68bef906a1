"""Pythons that were built in different ways."""

from __future__ import annotations

import platform
import sys
import sysconfig

import pytest

from mitml4.session.doctor.interpreter import check_interpreter

OPTIMIZED = "'--prefix=/opt/python' '--enable-optimizations' '--with-lto'"
PLAIN = "'--prefix=/opt/python' '--enable-shared'"


@pytest.mark.parametrize(
    ("prefix", "configured", "state"),
    [
        ("/opt/python", OPTIMIZED, "ok"),
        ("/opt/python", PLAIN, "skip"),
        ("/usr", PLAIN, "ok"),  # Debian's says nothing, and is optimized
        ("/opt/python", None, "skip"),
    ],
)
def test_a_python_that_is_slower_than_it_could_be_is_named(
    prefix: str, configured: str | None, state: str, monkeypatch
) -> None:
    monkeypatch.setattr(sys, "base_prefix", prefix)
    monkeypatch.setattr(sysconfig, "get_config_var", {"CONFIG_ARGS": configured}.get)
    check = check_interpreter()
    assert check.state == state
    assert check.found.startswith(
        f"{platform.python_implementation()} {platform.python_version()} ({prefix})"
    )
    assert ("slower" in check.found) == (state == "skip")
    assert check.remedy == ()


def test_pyenv_is_told_to_optimize(monkeypatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", "/home/me/.pyenv/versions/3.11.7")
    monkeypatch.setattr(sysconfig, "get_config_var", {"CONFIG_ARGS": PLAIN}.get)
    [remedy] = check_interpreter().remedy
    assert "--enable-optimizations" in remedy
    assert remedy.endswith(f"pyenv install --force {platform.python_version()}")
