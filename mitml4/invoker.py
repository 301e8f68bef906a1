"""The user who called sudo, who owns the files that root writes for them."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

__all__ = ["give_to_invoker", "home_in", "sudo_user"]


def sudo_user() -> pwd.struct_passwd | None:
    """The user who called sudo; None if we are not root, or without sudo."""
    name = os.environ.get("SUDO_USER")
    if os.geteuid() != 0 or not name:
        return None
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def home_in(environ: Mapping[str, str]) -> Path | None:
    """`HOME`, if it is absolute; otherwise the home of the user database. None if there is none."""
    if (home := environ.get("HOME", "")).startswith("/"):
        return Path(home)
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None


def give_to_invoker(descriptor: int) -> None:
    """Make the user who called sudo the owner of an open file. Raises OSError."""
    if user := sudo_user():
        os.fchown(descriptor, user.pw_uid, user.pw_gid)
