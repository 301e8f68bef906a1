"""The programs that run containers, asked for one by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from mitml4.errors import MachineError, MitmError, UsageError
from mitml4.session.attach.containers import Container, find_container, running_containers

INSPECT = '[{"Name": "%s", "State": {"Pid": %d, "Status": "%s"}}]'


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs a program: a shell script."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SUDO_USER", raising=False)

    def install(name: str, script: str) -> None:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return install


def test_the_first_program_that_knows_the_name_answers(program) -> None:
    program("docker", "echo 'no such container' >&2; exit 1")
    program("podman", f"echo '{INSPECT % ('web', 4711, 'running')}'")
    program("nerdctl", "exit 1")
    assert find_container("web") == Container("web", 4711)


def test_docker_names_it_with_a_slash(program) -> None:
    program("docker", f"echo '{INSPECT % ('/web', 1, 'running')}'")
    assert find_container("0123456789ab").name == "web"


def test_crictl_is_asked_by_name_and_by_id(program) -> None:
    described = '{"status": {"metadata": {"name": "app"}}, "info": {"pid": 17}}'
    program("crictl", f'[ "$1" = ps ] && exit; [ "$2" = 0123 ] && echo \'{described}\'')
    assert find_container("0123") == Container("app", 17)


def test_a_name_that_containers_of_several_pods_have_is_ambiguous(program) -> None:
    program("crictl", f"echo {'a' * 64}; echo {'b' * 64}")
    with pytest.raises(UsageError, match="several containers are called app") as caught:
        find_container("app")
    assert f"{'a' * 13}, {'b' * 13}" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("scripts", "error", "said"),
    [
        ({}, MachineError, "--pid PID"),
        ({"docker": "echo 'no daemon' >&2; exit 1"}, UsageError, "asked: docker (no daemon)"),
        ({"docker": "echo '{}'"}, UsageError, "an answer that is not understood"),
        ({"podman": f"echo '{INSPECT % ('web', 0, 'exited')}'"}, UsageError, "podman: start web"),
    ],
)
def test_what_nobody_knows_or_does_not_run_is_an_error(program, scripts, error, said) -> None:
    for name, script in scripts.items():
        program(name, script)
    with pytest.raises(MitmError) as caught:
        find_container("web")
    assert isinstance(caught.value, error)
    assert said in (caught.value.hint or "")


def test_the_shell_completes_the_running_ones(program) -> None:
    program("docker", "echo web; echo db")
    program("podman", "exit 1")
    assert running_containers() == ["db", "web"]
