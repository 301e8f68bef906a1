"""What a check comes to, and how remedies are worded: as commands that one can paste."""

from __future__ import annotations

import os
import shutil
from typing import Final, Literal, TypeAlias

from mitml4.dataclass import dataclass

__all__ = ["Check", "Group", "State", "as_root", "install"]

Group: TypeAlias = Literal["kernel", "tools", "privilege", "environment", "ca", "verdict"]
State: TypeAlias = Literal["ok", "fail", "skip"]

_MANAGERS: Final = {
    "apt": "apt install",
    "dnf": "dnf install",
    "zypper": "zypper install",
    "pacman": "pacman -S",
    "apk": "apk add",
}
_OTHERWISE_NAMED: Final = {("dnf", "iproute2"): "iproute"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the list."""

    group: Group
    name: str
    state: State
    """`skip`: it could not be tried, or need not be."""
    found: str
    remedy: tuple[str, ...] = ()
    """Commands for a shell."""


def as_root(*commands: str) -> tuple[str, ...]:
    """Commands that need root, as this user has to type them."""
    return commands if os.geteuid() == 0 else tuple(f"sudo {command}" for command in commands)


def install(package: str) -> tuple[str, ...]:
    """How this system installs a package, which has its name in Debian."""
    manager = next(filter(shutil.which, _MANAGERS), "apt")
    return as_root(f"{_MANAGERS[manager]} {_OTHERWISE_NAMED.get((manager, package), package)}")
