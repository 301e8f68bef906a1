"""The comparison of other projects' suites tells what differs from what fails now and then."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("foreign_suites")


class Recorded:
    """A suite whose runs are known: plainly and through, in turns."""

    def __init__(self, plain: list[dict[str, str]], through: list[dict[str, str]]) -> None:
        self.runs = {(): iter(plain), ("through",): iter(through)}

    def run(self, prefix, names=()) -> dict[str, str]:
        return next(self.runs[tuple(prefix)])


def test_what_ends_otherwise_twice_differs(tool) -> None:
    plain = [
        {
            "same": "passed",
            "otherwise": "passed",
            "gone": "passed",
            "once": "passed",
            "flaky": "passed",
        },
        {"otherwise": "passed", "gone": "passed", "once": "passed", "flaky": "failure"},
        {"otherwise": "passed", "gone": "passed", "once": "passed", "flaky": "passed"},
    ]
    first = {name: {end} for name, end in plain.pop(0).items()}
    through = [
        {"same": "passed", "otherwise": "failure", "once": "failure", "flaky": "failure"},
        {"otherwise": "passed", "once": "passed", "flaky": "failure"},
        {"otherwise": "failure", "once": "passed", "flaky": "failure"},
    ]
    differing = tool.compare(Recorded(plain, through), first, ["through"])
    assert differing == {"gone": ("passed", "missing"), "otherwise": ("passed", "failure")}


def test_only_the_tests_that_differ_are_run_again(tool, tmp_path) -> None:
    checkout = tool.Checkout("h11", tool.SUITES["h11"], tmp_path)
    source = checkout.directory / "h11-1"
    (source / "tests").mkdir(parents=True)
    (source / "PKG-INFO").touch()
    (source / "tests/test_a.py").touch()
    names = ["tests.test_a.TestB::test_c[d-1]", "tests.test_a.TestB::test_c[d-2]", "tests.test_a"]
    command = checkout.command(names)
    assert command[-2:] == ["tests/test_a.py", "tests/test_a.py::TestB::test_c"]


def test_a_difference_has_a_reason_or_says_that_it_has_none(tool, capsys) -> None:
    known = "aiosmtpd.tests.test_smtps.TestSMTPS::test_smtps"
    assert tool.report("aiosmtpd", "none", {known: ("passed", "failure")})
    assert "names its own CA" in capsys.readouterr().out
    assert not tool.report("h11", "none", {known: ("passed", "failure")})
    assert "NO REASON KNOWN" in capsys.readouterr().out


class Uninstallable:
    def prepare(self) -> None:
        raise subprocess.CalledProcessError(1, ["pip", "download", "h11==0.16.0"])


class Silent:
    """A suite that does not start."""

    def prepare(self) -> None:
        pass

    def run(self, prefix, names=()) -> dict[str, str]:
        return {}


class Sound(Silent):
    def run(self, prefix, names=()) -> dict[str, str]:
        return {"one": "passed", "two": "passed"}


@pytest.mark.parametrize(
    ("checkout", "code", "said"),
    [
        (Uninstallable, 0, "h11: left out, `pip download h11==0.16.0` failed"),
        (Silent, 1, "h11: no test ran"),
        (Sound, 0, "| h11 | 2 | 0 | 0 | 0 |"),
    ],
)
def test_each_suite_ends_in_the_table_or_with_a_reason(
    tool, monkeypatch, capsys, checkout, code, said
) -> None:
    monkeypatch.setattr(sys, "argv", ["foreign_suites.py", "h11"])
    monkeypatch.setattr(tool, "CHECKOUTS", {"h11": lambda *_: checkout()})
    assert tool.main() == code
    assert said in capsys.readouterr().out


def test_the_reasons_are_for_suites_that_there_are(tool) -> None:
    assert {reason.suite for reason in tool.reasons()} <= tool.SUITES.keys()
