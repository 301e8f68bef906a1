"""What a session gives up once all is set up, and before it reads what others say.

Whoever makes one of its parsers do more than parse is then somebody without files, who can start no
program and look into no other process. What is left are the connections, the key that signs, what
is open, and the capabilities that the session goes on with.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import logging
import os
import pwd
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mitml4.invoker import sudo_user
from mitml4.net import capabilities, processes, seccomp
from mitml4.net.capabilities import Capability

__all__ = ["confine"]

_UNUSED_IDS: Final = range(61184, 65520)
"""Where systemd takes the users of its services from, too (systemd.io/UIDS-GIDS)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _User:
    uid: int
    gid: int


def confine(kept: Iterable[Capability]) -> None:
    """Give up, for good and in all threads, everything but these capabilities, as far as we have
    them. Call it in the main thread: the others lose these as well, unless they start later.

    As root this process becomes the user who called sudo, or one whom nobody else is. Everything
    that it is going to need of the file system is to be open, and every module imported.
    """
    with contextlib.suppress(PermissionError):  # without CAP_SETPCAP: no_new_privs is as good
        capabilities.drop_for_good(range(capabilities.LIMIT))
    if os.geteuid() == 0:
        with capabilities.outliving_root():
            _become(_ordinary_user())
    capabilities.keep_only(kept)
    processes.forbid_new_privileges()
    processes.close_memory()
    try:
        seccomp.install(seccomp.SESSION)
    except OSError:  # a kernel without filters
        log.info("no system calls are given up", exc_info=True)


def _ordinary_user() -> _User:
    caller = sudo_user()
    if caller and caller.pw_uid != 0:
        return _User(caller.pw_uid, caller.pw_gid)
    first = os.getpid() % len(_UNUSED_IDS)  # not the one of another session
    unused = next(each for each in (*_UNUSED_IDS[first:], *_UNUSED_IDS) if not _is_known(each))
    return _User(unused, unused)


def _is_known(number: int) -> bool:
    for look_up in (pwd.getpwuid, grp.getgrgid):
        with contextlib.suppress(KeyError):
            look_up(number)
            return True
    return False


def _become(user: _User) -> None:
    """In no group but its own. A user namespace may know nobody but root: then it stays that."""
    with contextlib.suppress(PermissionError):  # user_namespaces(7), setgroups
        os.setgroups([])
    try:
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
