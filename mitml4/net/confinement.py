"""The privileges that a session drops after its setup, before it reads bytes from the network.

An attacker who takes over one of its parsers then has no files, cannot start programs, and cannot
read other processes. What remains are the connections, the signing key, the open files, and the
capabilities that the session keeps.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import logging
import os
import pwd
from collections.abc import Iterable
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.invoker import sudo_user
from mitml4.net import capabilities, processes, seccomp
from mitml4.net.capabilities import Capability

__all__ = ["confine"]

_UNUSED_IDS: Final = range(61184, 65520)
"""The range that systemd uses for dynamic users (systemd.io/UIDS-GIDS)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _User:
    uid: int
    gid: int


def confine(kept: Iterable[Capability]) -> None:
    """Permanently drop, in all threads, everything except these capabilities, as far as we have
    them. Call it in the main thread: the other threads lose their privileges as well, unless they
    start later.

    As root, this process becomes the user who called sudo, or a user id that nobody else has. Every
    file that it will need must be open, and every module imported.
    """
    # without CAP_SETPCAP: no_new_privs has the same effect
    with contextlib.suppress(PermissionError):
        capabilities.drop_for_good(range(capabilities.LIMIT))
    if os.geteuid() == 0:
        with capabilities.outliving_root():
            _become(_ordinary_user())
    capabilities.keep_only(kept)
    processes.forbid_new_privileges()
    processes.close_memory()
    try:
        seccomp.install(seccomp.SESSION)
    except OSError:  # a kernel without seccomp filters
        log.info("cannot install the seccomp filter", exc_info=True)


def _ordinary_user() -> _User:
    caller = sudo_user()
    if caller and caller.pw_uid != 0:
        return _User(caller.pw_uid, caller.pw_gid)
    first = os.getpid() % len(_UNUSED_IDS)  # not the id of another session
    unused = next(each for each in (*_UNUSED_IDS[first:], *_UNUSED_IDS) if not _is_known(each))
    return _User(unused, unused)


def _is_known(number: int) -> bool:
    for look_up in (pwd.getpwuid, grp.getgrgid):
        with contextlib.suppress(KeyError):
            look_up(number)
            return True
    return False


def _become(user: _User) -> None:
    """Drop supplementary groups too. In a user namespace that contains only root, stay root; also
    without CAP_SETUID, as in a container that was given no capabilities."""
    with contextlib.suppress(PermissionError):  # user_namespaces(7), setgroups
        os.setgroups([])
    try:
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise
