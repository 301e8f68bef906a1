"""Who called sudo: whose the files are that root writes for them."""

from __future__ import annotations

import os
import pwd

__all__ = ["give_to_invoker", "sudo_user"]


def sudo_user() -> pwd.struct_passwd | None:
    """Who called sudo, when it is root that runs."""
    name = os.environ.get("SUDO_USER")
    if os.geteuid() != 0 or not name:
        return None
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def give_to_invoker(descriptor: int) -> None:
    """Make what is open theirs, where there is such a user. Raises OSError."""
    if user := sudo_user():
        os.fchown(descriptor, user.pw_uid, user.pw_gid)
