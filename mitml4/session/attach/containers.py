"""The process of a container, as the program that runs containers knows it.

The programs are asked one after the other, each for a limited time; none is required.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any, Final

from mitml4.dataclass import dataclass
from mitml4.errors import MachineError, UsageError
from mitml4.invoker import sudo_user

__all__ = ["Container", "find_container", "running_containers"]

_TIMEOUT_S: Final = 5.0
_COMPLETION_TIMEOUT_S: Final = 1.0
_LIKE_DOCKER: Final = ("docker", "podman", "nerdctl")
_CRI: Final = "crictl"
_REASON_BYTES: Final = 120
_ID_DIGITS: Final = 13
"""Of those that crictl shows."""


@dataclass(frozen=True, slots=True)
class Container:
    """A running container: its name, and its first process."""

    name: str
    pid: int


@dataclass(frozen=True, slots=True)
class _Program:
    """A program that is installed; `user` is who runs it, if it is not us."""

    name: str
    user: str | None = None

    @property
    def said(self) -> str:
        return f"{self.name} as {self.user}" if self.user else self.name

    def run(self, *arguments: str, timeout_s: float) -> str:
        """Its output. Raises _NoAnswerError."""
        settings: dict[str, Any] = {}
        environ: Mapping[str, str] = os.environ
        caller = sudo_user() if self.user else None
        if caller:
            own = {"HOME": caller.pw_dir, "XDG_RUNTIME_DIR": f"/run/user/{caller.pw_uid}"}
            kept = ("PATH", "LANG")
            environ = {each: os.environ[each] for each in kept if each in os.environ} | own
            settings = {"user": caller.pw_uid, "group": caller.pw_gid, "extra_groups": []}
            settings["cwd"] = "/"
        try:
            ended: subprocess.CompletedProcess[str] = subprocess.run(
                [self.name, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                env=environ,
                **settings,
            )
        except subprocess.TimeoutExpired:
            raise _NoAnswerError(f"no answer within {timeout_s:g} s") from None
        except OSError as error:
            raise _NoAnswerError(error.strerror or str(error)) from None
        if ended.returncode:
            lines = ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"]
            raise _NoAnswerError(lines[-1][:_REASON_BYTES])
        return ended.stdout


class _NoAnswerError(Exception):
    """A program does not know the container, or cannot say so."""


def find_container(name: str) -> Container:
    """A running container, by the name or id that its program knows. Raises UsageError,
    MachineError."""
    programs = list(_programs())
    if not programs:
        asked = ", ".join((*_LIKE_DOCKER, _CRI))
        raise MachineError(
            f"no program that runs containers is installed: {asked}",
            hint="name one of its processes instead: --pid PID",
        )
    answers = []
    for program in programs:
        try:
            return _ask(program, name)
        except _NoAnswerError as error:
            answers.append(f"{program.said} ({error})")
    if os.geteuid() != 0:
        answers.append("for root's containers: sudo mitml4 …")
    raise UsageError(f"there is no container {name!r}", hint=f"asked: {'; '.join(answers)}")


def running_containers() -> list[str]:
    """The names of the running containers, for completion; empty if nobody answers at once."""
    names: list[str] = []
    for program in _programs():
        if program.name == _CRI:
            continue
        try:
            listed = program.run("ps", "--format", "{{.Names}}", timeout_s=_COMPLETION_TIMEOUT_S)
        except _NoAnswerError:
            continue
        names += listed.split()
    return sorted(set(names))


def _programs() -> Iterator[_Program]:
    for name in (*_LIKE_DOCKER, _CRI):
        if shutil.which(name) is None:
            continue
        yield _Program(name)
        caller = sudo_user()
        if name == "podman" and caller:  # each user has other containers
            yield _Program(name, caller.pw_name)


def _ask(program: _Program, name: str) -> Container:
    """Raises _NoAnswerError if the program does not know it, UsageError if it is not running."""
    if program.name == _CRI:
        return _ask_cri(program, name)
    printed = program.run("container", "inspect", "--", name, timeout_s=_TIMEOUT_S)
    (described, *_) = _parsed(printed, list) or [{}]
    state = described.get("State") or {}
    pid, called = state.get("Pid"), str(described.get("Name") or name).lstrip("/")
    return _running(program, called, pid, str(state.get("Status") or "not running"))


def _ask_cri(program: _Program, name: str) -> Container:
    """Raises as `_ask`, and UsageError if several containers have this name."""
    found = program.run("ps", "--quiet", "--name", f"^{re.escape(name)}$", timeout_s=_TIMEOUT_S)
    (number, *others) = found.split() or [name]
    if others:  # each pod may have one
        numbers = ", ".join(each[:_ID_DIGITS] for each in (number, *others))
        raise UsageError(f"several containers are called {name}", hint=f"name its id: {numbers}")
    described = _parsed(program.run("inspect", number, timeout_s=_TIMEOUT_S), dict)
    metadata = (described.get("status") or {}).get("metadata") or {}
    pid = (described.get("info") or {}).get("pid")
    return _running(program, str(metadata.get("name") or name), pid, "not running")


def _running(program: _Program, name: str, pid: object, state: str) -> Container:
    if isinstance(pid, int) and pid > 0:
        return Container(name, pid)
    raise UsageError(
        f"the container {name} does not run: {state}", hint=f"{program.said}: start {name}"
    )


def _parsed(printed: str, kind: type) -> Any:
    try:
        found = json.loads(printed)
    except ValueError:
        found = None
    if not isinstance(found, kind):
        raise _NoAnswerError("an answer that is not understood")
    return found
