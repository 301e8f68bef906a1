"""Programs that are run: what they print, and what becomes of their complaints."""

from __future__ import annotations

import errno
import resource

import pytest
import trio

from mitml4.errors import MachineError
from mitml4.net.tools import Ended, attempt, check_tools, complaint, run, run_ip
from mitml4.net.trial.child import run_in_child

NOBODY = "mitml4-no-such-thing"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("RTNETLINK answers: File exists\nCommand failed -:1\n", "RTNETLINK answers: File exists"),
        ("Error: syntax error, unexpected junk\njunk\n^^^^\n", "syntax error, unexpected junk"),
        ("/dev/stdin:2:3-9: Error: syntax error\n", "syntax error"),
        ("\nError: No such file or directory\n", "No such file or directory"),
        ("", "exit status 3"),
        ("\n", "exit status 3"),
    ],
)
def test_a_complaint_is_the_first_line_in_plain_words(said: str, expected: str) -> None:
    assert complaint(Ended((), 3, "", said)) == expected


def test_what_is_printed_comes_back_and_what_is_given_goes_in() -> None:
    assert run("cat", given="one\ntwo\n") == "one\ntwo\n"
    assert run("cat") == ""


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert run("printf", r"\377") == "\N{REPLACEMENT CHARACTER}"


def test_a_program_that_fails_is_an_answer_or_an_error() -> None:
    assert attempt("sh", "-c", "exit 4").returncode == 4
    with pytest.raises(MachineError, match=r"^sh: exit status 4$"):
        run("sh", "-c", "exit 4")
    with pytest.raises(MachineError, match=r"^sh: it is late$"):
        run("sh", "-c", "echo Error: it is late >&2; exit 1")


def test_programs_speak_english_and_know_no_home() -> None:
    assert run("sh", "-c", "echo $LC_ALL $HOME") == "C /dev/null\n"


def test_a_program_that_is_not_there_is_an_error(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")  # a directory that is closed to us is another error
    with pytest.raises(MachineError, match=rf"^{NOBODY}: No such file or directory$"):
        attempt(NOBODY)


def test_a_program_that_does_not_end_is_an_error() -> None:
    with pytest.raises(MachineError, match=r"^sleep does not come to an end within 0\.1 s$"):
        attempt("sleep", "600", timeout_s=0.1)


def test_a_limit_that_is_in_the_way_is_the_hint() -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        attempt("true")

    with pytest.raises(MachineError, match=r"^true: Too many open files$") as caught:
        run_in_child(limited, timeout_s=20)
    assert caught.value.hint == "ulimit -n"


async def test_so_it_is_where_trio_waits_for_the_program(monkeypatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(trio, "run_process", refuse)
    with pytest.raises(MachineError, match=r"^ip: Resource temporarily unavailable$") as caught:
        await run_ip("link")
    assert caught.value.hint == "ulimit -u"


def test_tools_that_are_missing_are_named_with_their_package(monkeypatch, tmp_path) -> None:
    check_tools()
    monkeypatch.setattr("mitml4.net.tools.environment", lambda: {"PATH": str(tmp_path)})
    with pytest.raises(MachineError, match="nft is not installed") as caught:
        check_tools()
    assert caught.value.hint == "apt install nftables"


async def test_ip_answers_for_each_command_of_a_batch() -> None:
    assert "lo" in await run_ip("link", "show", "lo")
    with pytest.raises(MachineError, match=rf'^ip: Cannot find device "{NOBODY[:15]}"$'):
        await run_ip(batch=f"link show lo\nlink set {NOBODY[:15]} up\n")


async def test_ip_that_is_told_to_go_on_does_not_complain() -> None:
    batch = f"link set {NOBODY[:15]} up\nlink show lo\n"
    assert "lo" in await run_ip("-force", batch=batch)
