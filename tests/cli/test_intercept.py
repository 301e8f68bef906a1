"""The command is thin: options go in, the session's exit code comes out."""

from __future__ import annotations

import os
import pty
import sys
import termios
from types import SimpleNamespace

import pytest

from mitml4.cli.main import run
from mitml4.errors import ExitCode, MachineError
from tests import programs


@pytest.fixture
def session(monkeypatch):
    """A session that ends at once, and remembers what it was told."""
    fake = SimpleNamespace(config=None, outcome=ExitCode.DONE)

    async def intercept(config, say, complain):
        fake.config = config
        say("rules removed")
        if isinstance(fake.outcome, Exception):
            raise fake.outcome
        return fake.outcome

    fake.intercept = intercept
    monkeypatch.setitem(sys.modules, "mitml4.session.intercept", fake)
    return fake


def test_options_reach_the_session(session) -> None:
    assert run(["--color", "never", "-v", "intercept", "--iface", "lo", "--headers"]) == 0
    assert session.config.scope.interfaces == ("lo",)
    assert session.config.shown.headers
    assert (session.config.color, session.config.verbosity) == ("never", 1)


@pytest.mark.parametrize("code", ExitCode)
def test_the_sessions_exit_code_is_the_commands(session, code: ExitCode) -> None:
    session.outcome = code
    assert run(["intercept", "--iface", "lo"]) == code


def test_what_the_session_says_goes_to_standard_error_unless_quiet(session, capsys) -> None:
    run(["intercept", "--iface", "lo"])
    assert capsys.readouterr() == ("", "rules removed\n")
    run(["-q", "intercept", "--iface", "lo"])
    assert capsys.readouterr() == ("", "")


def test_a_machine_that_cannot_is_told_so(session, capsys) -> None:
    session.outcome = MachineError("no nft", hint="sudo apt install nftables")
    assert run(["-q", "intercept", "--iface", "lo"]) == 3
    assert capsys.readouterr().err == "error: no nft\nhint: sudo apt install nftables\n"


def test_a_standard_output_that_is_closed_is_no_terminal(session, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    run(["intercept", "--iface", "lo"])
    assert session.config.output == "json"


def test_options_come_from_the_environment(session, monkeypatch) -> None:
    monkeypatch.setenv("MITML4_INTERCEPT_IFACE", "lo")
    monkeypatch.setenv("MITML4_INTERCEPT_FROM", "10.0.0.0/8 192.0.2.1")
    monkeypatch.setenv("MITML4_INTERCEPT_DRAIN", "1s")
    assert run(["intercept"]) == 0
    assert len(session.config.scope.from_) == 2
    assert session.config.drain_s == 1


ON_A_TERMINAL = """
import sys, termios, types

async def intercept(config, say, complain):
    shown = "shown" if termios.tcgetattr(0)[3] & termios.ECHO else "hidden"
    say(f"{config.output}: what is typed is {shown}")

sys.modules["mitml4.session.intercept"] = types.SimpleNamespace(intercept=intercept)
from mitml4.cli.main import run
sys.exit(run(["intercept", "--iface", "lo", *sys.argv[1:]]))
"""


@pytest.mark.parametrize(
    ("options", "said"),
    [([], "table: what is typed is hidden"), (["--json"], "json: what is typed is shown")],
)
def test_what_is_typed_before_the_table_is_drawn_is_not_shown(options, said) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    outcome = programs.run(
        ["-c", ON_A_TERMINAL, *options],
        stdin=theirs,
        stdout=theirs,
        text=True,
        start_new_session=True,
        env=os.environ | {"TERM": "xterm"},
    )
    assert outcome.stderr.strip() == said
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)
