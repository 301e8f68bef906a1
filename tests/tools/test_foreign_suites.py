"""The comparison of other projects' suites tells what differs from what fails now and then."""

from __future__ import annotations

import importlib
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
    through = [
        {"same": "passed", "otherwise": "failure", "once": "failure", "flaky": "failure"},
        {"otherwise": "passed", "once": "passed", "flaky": "failure"},
        {"otherwise": "failure", "once": "passed", "flaky": "failure"},
    ]
    count, differing = tool.compare(Recorded(plain, through), ["through"])
    assert count == 5
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
    assert tool.report("aiosmtpd", 2, {known: ("passed", "failure")})
    assert "names its own CA" in capsys.readouterr().out
    assert not tool.report("h11", 2, {known: ("passed", "failure")})
    assert "NO REASON KNOWN" in capsys.readouterr().out
    assert not tool.report("h11", 0, {}), "a suite that does not start"


def test_the_reasons_are_for_suites_that_there_are(tool) -> None:
    assert {reason.suite for reason in tool.reasons()} <= tool.SUITES.keys()
