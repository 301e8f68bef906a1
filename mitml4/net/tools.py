"""Running nft, ip and the iptables programs: whether they exist, their environment, their error
messages."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import trio

from mitml4.errors import MachineError, limit_hint

__all__ = [
    "Ended",
    "attempt",
    "check_tools",
    "complaint",
    "environment",
    "run",
    "run_ip",
    "run_nft",
]

_PACKAGES: Final = (("nft", "nftables"), ("ip", "iproute2"))

Ended = subprocess.CompletedProcess[str]


def environment() -> dict[str, str]:
    """English messages, no history file, and sbin in PATH, which `su` may omit."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return {"PATH": path, "LC_ALL": "C", "HOME": "/dev/null"}


def check_tools() -> None:
    """Raises MachineError for the first program that is not installed."""
    for tool, package in _PACKAGES:
        if shutil.which(tool, path=environment()["PATH"]) is None:
            raise MachineError(f"{tool} is not installed", hint=f"apt install {package}")


def attempt(*command: str, given: str = "", timeout_s: float | None = None) -> Ended:
    """Run a program and wait for it; the caller checks whether it failed.

    Raises MachineError if it cannot be started, or does not end in time.
    """
    with _starting(command[0]):
        try:
            return subprocess.run(
                command,
                input=given,
                capture_output=True,
                text=True,
                errors="replace",
                env=environment(),
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            reason = f"{command[0]} does not come to an end within {timeout_s:g} s"
            raise MachineError(reason, hint=shlex.join(command)) from None


def run(*command: str, given: str = "") -> str:
    """The output of a program. Raises MachineError with its first error message if it fails."""
    return _printed(attempt(*command, given=given))


async def run_ip(*arguments: str, batch: str | None = None, holding: Sequence[int] = ()) -> str:
    """The output of ip. Raises MachineError with its first error message, unless `-force` is given.

    `batch` holds commands, one per line, as for `ip -batch`; `holding` are descriptors that stay
    open until ip has ended, even if we are killed.
    """
    command = ["ip", *arguments] if batch is None else ["ip", *arguments, "-batch", "-"]
    ended = await _attempt(command, given=batch or "", holding=holding)
    return ended.stdout if "-force" in arguments else _printed(ended)


async def run_nft(*arguments: str) -> str:
    """The output of nft. Raises MachineError with its first error message if it fails."""
    return _printed(await _attempt(["nft", *arguments]))


def complaint(ended: Ended) -> str:
    """The first error message of a program, in one line; otherwise its exit status."""
    first, _, _ = ended.stderr.strip().partition("\n")
    return first.rpartition("Error: ")[2] or f"exit status {ended.returncode}"


async def _attempt(command: list[str], *, given: str = "", holding: Sequence[int] = ()) -> Ended:
    with _starting(command[0]):
        ended = await trio.run_process(
            command,
            stdin=given.encode(),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment(),
            pass_fds=holding,
        )
    printed, said = (each.decode(errors="replace") for each in (ended.stdout, ended.stderr))
    return Ended(command, ended.returncode, printed, said)


@contextmanager
def _starting(program: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MachineError(f"{program}: {error.strerror}", hint=limit_hint(error)) from error


def _printed(ended: Ended) -> str:
    if ended.returncode != 0:
        raise MachineError(f"{ended.args[0]}: {complaint(ended)}", hint=shlex.join(ended.args))
    return ended.stdout
