"""Finding a program as a shell does, and saying why it does not run."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from mitml4.net.namespace.launch import CommandError, Launch, _explained, find_program


@pytest.fixture
def path(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "program").write_text("#!/bin/sh\n")
    (tmp_path / "program").chmod(0o755)
    (tmp_path / "text").write_text("words\n")
    (tmp_path / "some text").touch()
    (tmp_path / "directory").mkdir()
    return {"PATH": str(tmp_path)}


def test_a_program_is_found_in_the_path_and_by_its_own(path) -> None:
    expected = f"{path['PATH']}/program"
    assert find_program("program", path) == expected
    assert find_program(expected, {}) == expected


@pytest.mark.parametrize(
    ("name", "status"),
    [("missing", 127), ("", 127), ("/missing/program", 127), ("text", 126), ("directory", 126)],
)
def test_what_cannot_run_has_a_shells_exit_code(path, name: str, status: int) -> None:
    with pytest.raises(CommandError) as raised:
        find_program(name, path)
    assert raised.value.exit_code == status


def test_what_is_not_there_is_told_with_what_to_try_instead(path) -> None:
    hints = {
        "progam": "is it program? mitml4 run -- program …",
        "nosuchthing": "an alias or a function: mitml4 run -- bash -ic nosuchthing",
        "program --all": "its words one by one, or: mitml4 run -- sh -c 'program --all'",
        "/missing/program": "ls -l /missing",
        "": "mitml4 run --help",
        "text": f"chmod +x {path['PATH']}/text",
        "some text": f"chmod +x '{path['PATH']}/some text'",
    }
    for name, hint in hints.items():
        with pytest.raises(CommandError) as raised:
            find_program(name, path)
        assert (raised.value.hint or "").endswith(hint)


@pytest.mark.parametrize(
    ("number", "status", "hint"),
    [
        (errno.ENOMEM, 126, "free -m"),
        (errno.EACCES, 126, "ls -l /bin/sh"),
        (errno.ENOENT, 126, "head -n 1 /bin/sh"),
    ],
)
def test_why_a_program_is_not_executed_comes_with_a_hint(
    number: int, status: int, hint: str
) -> None:
    message, found, given = _explained("/bin/sh", OSError(number, os.strerror(number)))
    assert message.startswith("/bin/sh: ")
    assert (found, given) == (status, hint)
    missing = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    assert _explained("/no/sh", missing)[1:] == (127, "ls -l /no/sh")


def test_a_child_that_cannot_move_into_the_namespace_is_no_program_that_fails() -> None:
    class Closed:
        def enter(self) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    namespace: Any = Closed()
    launch = Launch.prepare("/bin/true", ["true"], namespace)
    with pytest.raises(CommandError) as raised:
        launch.go({})
    os.waitpid(launch.pid, 0)
    assert raised.value.message == "cannot start the command: Operation not permitted"
    assert (raised.value.exit_code, raised.value.hint) == (3, "mitml4 doctor")
