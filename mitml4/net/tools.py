"""The two programs that change the machine for us, nft and ip: that they are there, and what they
are run with."""

from __future__ import annotations

import os
import shutil
from typing import Final

import trio

from mitml4.errors import MachineError

__all__ = ["check_tools", "environment", "run_ip"]

_PACKAGES: Final = (("nft", "nftables"), ("ip", "iproute2"))


def environment() -> dict[str, str]:
    """English messages, no history file in anybody's home, and sbin, which `su` may not have."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return {"PATH": path, "LC_ALL": "C", "HOME": "/dev/null"}


def check_tools() -> None:
    """Raises MachineError for the first that is not installed."""
    for tool, package in _PACKAGES:
        if shutil.which(tool, path=environment()["PATH"]) is None:
            raise MachineError(f"{tool} is not installed", hint=f"apt install {package}")


async def run_ip(*arguments: str, batch: str | None = None) -> str:
    """Run ip; raises MachineError with its first complaint, unless it is told to go on (`-force`).

    `batch` holds commands, one a line, as in `ip -batch`. Returns what was printed.
    """
    command = ["ip", *arguments] if batch is None else ["ip", *arguments, "-batch", "-"]
    done = await trio.run_process(
        command,
        stdin=(batch or "").encode(),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env=environment(),
    )
    if done.returncode != 0 and "-force" not in arguments:
        complaint = done.stderr.decode(errors="replace").partition("\n")[0]
        raise MachineError(f"ip: {complaint or f'exit status {done.returncode}'}")
    return done.stdout.decode(errors="replace")
