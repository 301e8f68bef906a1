"""Finding a program as a shell does."""

from __future__ import annotations

from pathlib import Path

import pytest

from mitml4.net.namespace.launch import CommandError, find_program


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
