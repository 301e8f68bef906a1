"""The frame around every command: what is imported, how errors are told, how the process ends."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import click
import pytest

from mitml4.cli.main import COMMANDS, cli, run
from mitml4.errors import MachineError, MitmError, UsageError
from tests import programs


@dataclass
class Fake:
    """A command that raises or returns what a test wants."""

    outcome: object
    summary: str = "Do as the test says."

    def load(self) -> click.Command:
        @click.command()
        def fake() -> object:
            if isinstance(self.outcome, BaseException):
                raise self.outcome
            return self.outcome

        return fake


@pytest.fixture
def ending(monkeypatch, capsys):
    """Run a command that ends so; the exit code, and what stood on standard error."""

    def run_one(outcome: object, *options: str) -> tuple[int, str]:
        monkeypatch.setitem(COMMANDS, "fake", Fake(outcome))
        code = run([*options, "fake"])
        return code, capsys.readouterr().err

    return run_one


def python(code: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], text=True, check=False, **options)


def test_help_imports_nothing_but_the_frame() -> None:
    result = python(
        "import sys; from mitml4.cli.main import run; run(['--help']);"
        "print(*sorted(sys.modules), sep='\\n')",
        capture_output=True,
    )
    modules = set(result.stdout.splitlines())
    assert "mitml4.cli.main" in modules
    assert not modules & {"trio", "OpenSSL", "cryptography", "rich", "ssl", "json", "socket"}
    ours = {name for name in modules if name.startswith("mitml4.")}
    assert not ours & {"mitml4.session", "mitml4.net", "mitml4.tls", "mitml4.protocols"}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_summary_is_the_first_line_of_its_commands_help(name: str) -> None:
    command = COMMANDS[name].load()
    assert command.name == name
    assert command.help is not None
    assert command.help.partition("\n\n")[0] == COMMANDS[name].summary


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)])
def test_every_help_ends_in_lines_to_paste(arguments: list[str]) -> None:
    """In a separate process: click remembers the help options of a command's first run."""
    helps = {
        programs.run(["-m", "mitml4", *arguments, option], check=True, text=True).stdout
        for option in ("-h", "--help")
    }
    assert len(helps) == 1
    examples = helps.pop().partition("Examples:\n")[2].splitlines()
    assert 2 <= len(examples) <= 3
    assert all("mitml4" in line for line in examples)


def test_no_command_shows_the_help_as_an_error(capsys) -> None:
    assert run([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Usage: mitml4")


def test_a_mistyped_command_is_answered_with_the_nearest(capsys) -> None:
    assert run(["intercpt"]) == 2
    assert capsys.readouterr().err == (
        "error: no such command: intercpt; is it intercept?\nhint: mitml4 --help\n"
    )


def test_an_unknown_option_is_a_usage_error_with_the_commands_help_as_hint(capsys) -> None:
    assert run(["schema", "--colour"]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: no such option")
    assert hint == "hint: mitml4 schema --help"


def test_quiet_and_verbose_contradict_each_other(capsys) -> None:
    assert run(["-q", "-v", "schema"]) == 2
    assert "contradict each other\nhint: leave out -q" in capsys.readouterr().err


@pytest.mark.parametrize(("outcome", "code"), [(None, 0), (0, 0), (1, 1), (3, 3)])
def test_what_a_command_returns_is_the_exit_code(ending, outcome: object, code: int) -> None:
    assert ending(outcome) == (code, "")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MitmError("it failed", hint="try again"), 1),
        (UsageError("it failed", hint="try again"), 2),
        (MachineError("it failed", hint="try again"), 3),
    ],
)
def test_an_error_is_one_line_and_a_hint(ending, error: MitmError, code: int) -> None:
    assert ending(error) == (code, "error: it failed\nhint: try again\n")


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "sysctl fs.file-nr"),
        (errno.EAGAIN, "ulimit -u"),
        (errno.ENOMEM, "free -m"),
        (errno.ENOBUFS, "free -m"),
        (errno.EADDRINUSE, "ss -s"),
    ],
)
def test_what_the_machine_lacks_is_told_as_such(ending, number: int, hint: str) -> None:
    code, said = ending(OSError(number, os.strerror(number), "library.py"))
    assert code == 3
    assert said == f"error: cannot get what is needed: {os.strerror(number)}\nhint: {hint}\n"


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_a_refused_system_call_is_told_as_such(ending, number: int) -> None:
    code, said = ending(OSError(number, os.strerror(number)))
    assert code == 3
    assert said == (
        f"error: the machine refuses what is needed: {os.strerror(number)}\nhint: mitml4 doctor\n"
    )


def test_a_lack_of_memory_or_threads_is_told_as_such(ending) -> None:
    none_more = RuntimeError("can't start new thread")
    assert ending(none_more) == (3, "error: cannot start a thread\nhint: ulimit -u\n")
    assert ending(MemoryError()) == (3, "error: cannot get what is needed: memory\nhint: free -m\n")


def test_an_error_without_a_hint_is_one_line(ending) -> None:
    assert ending(MitmError("it failed")) == (1, "error: it failed\n")


def test_what_an_error_quotes_cannot_command_the_terminal(ending) -> None:
    _, said = ending(MitmError("no \x1b[2J\r\n\u202e such"))
    assert said == "error: no \\x1b[2J\\r\\n\\u202e such\n"


def test_a_bug_is_told_in_one_line_without_a_traceback(ending) -> None:
    code, said = ending(RuntimeError("oh"))
    assert code == 1
    assert said.startswith("error: internal error: RuntimeError: oh\nhint: ")
    assert "Traceback" not in said


def test_a_traceback_comes_with_vv_only(ending) -> None:
    assert "Traceback" not in ending(RuntimeError("oh"), "-v")[1]
    assert "Traceback" in ending(RuntimeError("oh"), "-vv")[1]
    assert "Traceback" in ending(MitmError("oh"), "-vv")[1]


def test_a_traceback_comes_beside_the_quiet_of_a_command(capsys) -> None:
    run(["-vv", "run", "-q", "--payload-limit", "1MB", "--", "no-such-command"])
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert "error: " in said


def test_quiet_still_tells_errors(ending) -> None:
    assert ending(MitmError("it failed"), "-q") == (1, "error: it failed\n")


@pytest.mark.parametrize(
    ("errors", "code", "said"),
    [
        ([MachineError("no nft")], 3, "error: no nft\n"),
        ([BrokenPipeError(), MachineError("no nft")], 3, "error: no nft\n"),
        ([MachineError("no nft"), KeyboardInterrupt()], 3, "error: no nft\n"),
        ([ExceptionGroup("inner", [UsageError("a"), UsageError("b")])], 2, "error: a\n"),
        ([KeyboardInterrupt()], 130, ""),
    ],
)
def test_a_group_ends_as_its_worst_error(ending, errors, code: int, said: str) -> None:
    assert ending(BaseExceptionGroup("nursery", errors)) == (code, said)


def test_a_bug_in_a_group_is_not_hidden_by_an_error(ending) -> None:
    code, said = ending(ExceptionGroup("nursery", [MachineError("no nft"), KeyError("x")]))
    assert code == 1
    assert "internal error: KeyError" in said


def test_an_interrupt_ends_quietly(ending) -> None:
    assert ending(KeyboardInterrupt()) == (130, "")


def test_sys_exit_is_passed_on(ending) -> None:
    assert ending(SystemExit(3)) == (3, "")
    assert ending(SystemExit()) == (0, "")


def test_colour_is_used_when_asked_for_or_on_a_terminal(ending) -> None:
    assert ending(MitmError("x"), "--color", "always")[1] == "\x1b[1;31merror:\x1b[0m x\n"
    assert ending(MitmError("x"), "--color", "auto")[1] == "error: x\n"
    assert ending(MitmError("x"), "--color", "never")[1] == "error: x\n"


def test_a_reader_that_has_gone_ends_it_quietly() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    result = subprocess.run(
        [sys.executable, "-m", "mitml4", "schema"],
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write_end)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("command", ["schema", "--help", "--version"])
def test_a_full_disk_under_standard_output_is_an_error(command: str) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "mitml4", command],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr == (
        "error: cannot write to standard output: No space left on device\nhint: df .\n"
    )


def test_a_full_disk_under_standard_output_is_no_error_where_nothing_is_written() -> None:
    """As by `run`, whose command has it. The kernel refuses a write of no bytes, too."""
    script = "from mitml4.cli.console import Console; Console().data('')"
    with open("/dev/full", "w") as full:
        subprocess.run([sys.executable, "-c", script], stdout=full, check=True)


def test_what_standard_output_cannot_encode_is_escaped() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "mitml4", "schema"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert r"\u203a" in result.stdout


def test_at_its_end_nothing_is_left_to_collect() -> None:
    script = "import atexit, gc; atexit.register(lambda: print(len(gc.get_objects()) < 1000)); "
    script += "import sys; sys.argv[1:] = ['--version']; from mitml4.__main__ import main; main()"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert said.stdout.splitlines()[-1] == "True"


def test_completion_offers_the_commands_without_importing_them() -> None:
    environment = os.environ | {
        "_MITML4_COMPLETE": "bash_complete",
        "COMP_WORDS": "mitml4 inte",
        "COMP_CWORD": "1",
    }
    result = python(
        "import sys; from mitml4.cli.main import run; run([]);"
        "print('mitml4.cli.intercept' in sys.modules)",
        capture_output=True,
        env=environment,
    )
    assert result.stdout.splitlines() == ["plain,intercept", "False"]


def test_completion_goes_on_behind_an_option_that_is_given_twice() -> None:
    environment = os.environ | {
        "_MITML4_COMPLETE": "bash_complete",
        "COMP_WORDS": "mitml4 run --filter a --filter b --upstream-",
        "COMP_CWORD": "6",
    }
    result = python(
        "from mitml4.cli.main import run; run([])", capture_output=True, env=environment
    )
    assert (result.stdout, result.stderr) == ("plain,--upstream-ca\n", "")


def test_options_come_from_the_environment(monkeypatch, capsys) -> None:
    monkeypatch.setenv("MITML4_QUIET", "1")
    monkeypatch.setenv("MITML4_VERBOSE", "1")
    assert run(["schema"]) == 2
    assert "contradict" in capsys.readouterr().err


def test_a_variable_is_named_as_its_option() -> None:
    def names(command: click.Command) -> Iterator[tuple[str, str]]:
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                yield max(parameter.opts, key=len).lstrip("-"), parameter.name or ""
        for each in command.commands.values() if isinstance(command, click.Group) else ():
            yield from names(each)

    for command in (cli, *(entry.load() for entry in COMMANDS.values())):
        for option, variable in names(command):
            assert variable == option.replace("-", "_")


def test_a_file_that_cannot_be_opened_is_told_as_such(ending) -> None:
    code, said = ending(click.FileError("/no/where.pem", "No such file or directory"))
    assert code == 1
    assert said == "error: cannot open /no/where.pem: No such file or directory\nhint: ls -ld /no\n"


def test_a_closed_standard_output_is_told_in_one_line() -> None:
    command = 'exec "$0" -m mitml4 schema >&-'
    ended = subprocess.run(["sh", "-c", command, sys.executable], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: standard output is closed\nhint: ")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MITML4_RUN_UDP", "some"),
        ("MITML4_RUN_DRAIN", "soon"),
        ("MITML4_RUN_BLOCK", "http://x/"),
        ("MITML4_RUN_TRUST", "perhaps"),
        ("MITML4_COLOR", "blue"),
    ],
)
def test_a_wrong_variable_is_named_and_not_its_option(
    variable: str, value: str, monkeypatch, capsys
) -> None:
    monkeypatch.setenv(variable, value)
    assert run(["run", "true"]) == 2
    message = capsys.readouterr().err
    assert variable in message
    assert "--" not in message.partition("\n")[0]


@pytest.mark.parametrize(
    ("environ", "arguments", "said"),
    [
        ({"MITML4_RUN_WAIT": "maybe"}, ["run", "--", "true"], "'maybe' is neither yes nor no"),
        ({"MITML4_QUIET": "2"}, ["schema"], "'2' is neither yes nor no"),
        ({"MITML4_VERBOSE": "much"}, ["schema"], "'much' is no whole number"),
        ({}, ["intercept", "--iface", "lo", "--max-flows", "1.5"], "'1.5' is no whole number"),
        ({}, ["intercept", "--iface", "lo", "--max-flows", "0"], "0 is less than 1"),
        ({}, ["ca", "generate", "--days", "soon"], "'soon' is no whole number"),
        ({}, ["ca", "generate", "--days", "-1"], "-1 is less than 1"),
    ],
)
def test_an_error_in_a_value_is_in_plain_words(
    environ, arguments, said: str, monkeypatch, capsys
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert run(arguments) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.endswith(f": {said}")
    assert hint.startswith("hint: mitml4 ")


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["intercept", "--container", "web", "--container", "db"], "--container"),
        (["intercept", "--netns", "a", "--iface", "lo", "--netns", "a"], "--netns"),
        (["intercept", "--pid", "1", "--pid", "2"], "--pid"),
        (["proxy", "--filter", "port:80", "--filter", "port:443"], "--filter"),
    ],
)
def test_what_only_one_can_be_used_of_is_not_replaced_by_the_last(
    capsys: pytest.CaptureFixture[str], arguments: list[str], option: str
) -> None:
    assert run(arguments) == 2
    assert capsys.readouterr().err == (
        f"error: {option} is given 2 times\nhint: leave out all but one of them\n"
    )


def test_of_files_numbers_and_choices_the_last_counts() -> None:
    arguments = ["-o", "a", "--drain", "5s", "--quic", "block"]
    arguments += ["--output", "b", "--drain", "1s", "--quic", "allow"]
    given = COMMANDS["intercept"].load().make_context("intercept", arguments).params
    assert (str(given["output"]), given["drain"], given["quic"]) == ("b", 1.0, "allow")
