"""Files and directories of a running container that are covered with others for a while.

What covers them is in memory, and is mounted into the container's own mount namespace. Its own file
system is not written to, so it may be read-only. A helper mounts it, and unmounts it when the
session has ended, even by SIGKILL. If the helper itself is killed, `mitml4 cleanup` does it
(leftovers.py).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import stat
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn, Self

from mitml4.dataclass import dataclass
from mitml4.errors import MachineError
from mitml4.net import capabilities, helper, isolation, processes
from mitml4.net.attach.leftovers import WORKSHOP, leftovers, source_name
from mitml4.net.capabilities import Capability
from mitml4.net.isolation import CLONE_NEWNS, CLONE_NEWUSER
from mitml4.net.libc import checked, libc

__all__ = ["Covers", "MountNamespace"]

# The same numbers on every machine; linux/mount.h.
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_EMPTY_PATH = 0x4, 0x40
_AT_EMPTY_PATH: Final = 0x1000
_AT_FDCWD: Final = -100
_READ_ONLY: Final = 1 | 2 | 4 | 8  # MOUNT_ATTR_RDONLY, _NOSUID, _NODEV, _NOEXEC

_TITLE: Final = "uncover: waits for the end of a session"
_WITHOUT: Final = "leave its files as they are: --no-trust"
_LABEL: Final = "security.selinux"
_MAX_ENTRIES: Final = 8192
_MAX_BYTES: Final = 64 << 20
_MAX_DEPTH: Final = 16
"""Limits of a directory that is copied."""


@dataclass(frozen=True, slots=True)
class MountNamespace:
    """A mount namespace, and the user namespace that has to be entered first, by descriptors."""

    mounts: int
    user: int | None


class Covers:
    """The covers in one mount namespace. Close them, which removes them."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        """It becomes readable when the helper has ended."""

    @classmethod
    def start(cls, namespace: MountNamespace) -> Self:
        """Start the helper, before any thread is started. Raises MachineError."""
        kept = [each for each in (namespace.mounts, namespace.user) if each is not None]
        try:
            channel = helper.start(partial(_work, namespace), keep=kept).channel
        except (OSError, MachineError) as error:
            reason = error.message if isinstance(error, MachineError) else error.strerror
            raise MachineError(f"cannot mount in it: {reason}", hint=_WITHOUT) from error
        return cls(channel)

    def file(self, target: int, content: bytes) -> None:
        """Cover a file, which a descriptor of it names. Raises OSError, MachineError."""
        self._lay("file", target, {"": content})

    def directory(self, target: int, added: Mapping[str, bytes]) -> None:
        """Cover a directory with a copy that has more files. Raises OSError, MachineError."""
        self._lay("directory", target, added)

    def _lay(self, what: str, target: int, added: Mapping[str, bytes]) -> None:
        sizes = {name: len(content) for name, content in added.items()}
        contents = os.memfd_create("covers")
        try:
            with os.fdopen(os.dup(contents), "wb") as out:
                out.writelines(added.values())
            helper.ask(self.channel, what, [target, contents], sizes=sizes)
        finally:
            os.close(contents)

    def restrict(self) -> None:
        """From now on, only uncover. Raises MachineError."""
        helper.ask(self.channel, "restrict")

    def close(self) -> None:
        with suppress(OSError, MachineError):
            helper.ask(self.channel, "leave")
        self.channel.close()


def _work(namespace: MountNamespace, channel: socket.socket) -> NoReturn:
    # So that `pkill mitml4` does not kill what cleans up.
    processes.show_as(_TITLE)
    covering = _Covering(namespace)
    helper.send(channel, {}, [])
    helper.serve(channel, covering.answer, covering.leave)


class _Covering:
    """The helper, in a separate mount namespace except while it mounts."""

    def __init__(self, namespace: MountNamespace) -> None:
        """Raises OSError."""
        self._proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        if namespace.user is not None and not capabilities.has(Capability.SYS_ADMIN):
            isolation.setns(namespace.user, CLONE_NEWUSER)
            _become_root_there()
        isolation.unshare(CLONE_NEWNS)
        processes.close_memory()
        isolation.mount_slave()
        isolation.mount_tmpfs(WORKSHOP, source_name())
        self._own = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        self._theirs = namespace.mounts
        self._laid: list[int] = []
        self._is_restricted = False

    def answer(self, what: str, arguments: dict[str, Any], descriptors: list[int]) -> helper.Answer:
        match what:
            case "restrict":
                self._is_restricted = True
            case "file" | "directory":
                if self._is_restricted:
                    raise MachineError("the session runs already", hint="start it again")
                target, contents = descriptors
                name = WORKSHOP / str(len(self._laid))
                os.lseek(contents, 0, os.SEEK_SET)
                with open(contents, "rb", closefd=False) as source:
                    added = {each: source.read(size) for each, size in arguments["sizes"].items()}
                try:
                    if what == "file":
                        _write_like(name, target, added[""])
                    else:
                        _copy(target, name, added)
                    self._mount(name, target)
                except BaseException:
                    _remove(name)  # its place is the next one's, and so is its memory
                    raise
            case "leave":
                self.leave()
            case _:
                raise AssertionError(what)
        return {}, []

    def _mount(self, name: Path, target: int) -> None:
        flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
        tree = checked(libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(name), flags))
        try:
            _protect(tree)
            isolation.setns(self._theirs, CLONE_NEWNS)
            try:
                how = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
                checked(libc.syscall(_MOVE_MOUNT, tree, b"", target, b"", how))
            finally:
                isolation.setns(self._own, CLONE_NEWNS)
        except BaseException:
            os.close(tree)
            raise
        self._laid.append(tree)

    def leave(self) -> None:
        """Remove the covers, the last one first."""
        if not self._laid:
            return
        isolation.setns(self._theirs, CLONE_NEWNS)
        os.fchdir(self._proc)
        while self._laid:
            tree = self._laid.pop()
            with suppress(OSError):  # somebody there has unmounted it
                isolation.unmount(Path(f"self/fd/{tree}"))
            os.close(tree)
        isolation.setns(self._own, CLONE_NEWNS)
        # Of mount namespaces that were made of theirs meanwhile, with copies of its mounts.
        for each in leftovers(ours=True):
            with suppress(OSError):
                each.remove()


def _become_root_there() -> None:
    """In a user namespace, only a user whom it knows can own files. Without a root of it, our own
    user is known."""
    with suppress(OSError):
        os.setgroups([])
    with suppress(OSError):
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)


def _protect(tree: int) -> None:
    """Make a mount read-only, where the kernel can (Linux 5.12)."""
    attributes = (ctypes.c_uint64 * 4)(_READ_ONLY, 0, 0, 0)  # struct mount_attr
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    libc.syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, ctypes.byref(attributes), size)


def _write_like(path: Path, original: int, content: bytes) -> None:
    """A file with the owner, mode and label of another one."""
    path.write_bytes(content)
    found = os.fstat(original)
    with suppress(OSError):
        os.chown(path, found.st_uid, found.st_gid)
    path.chmod(stat.S_IMODE(found.st_mode) & 0o777)
    _label_like(path, original)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _label_like(path: Path, original: int) -> None:
    with suppress(OSError):  # without SELinux there are no labels
        label = os.getxattr(f"/proc/self/fd/{original}", _LABEL)
        os.setxattr(path, _LABEL, label, follow_symlinks=False)


def _copy(original: int, to: Path, added: Mapping[str, bytes]) -> None:
    """Copy a directory, and add files to it. Raises MachineError if it is too large."""
    room = _Room(_MAX_ENTRIES, _MAX_BYTES)
    source = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=original)
    try:
        _copy_into(source, to, room)
    finally:
        os.close(source)
    for name, content in added.items():
        (to / name).write_bytes(content)
        (to / name).chmod(0o644)
        _label_like(to / name, original)


@dataclass(slots=True)
class _Room:
    entries: int
    size: int

    def take(self, size: int, depth: int) -> None:
        self.entries -= 1
        self.size -= size
        if self.entries < 0 or self.size < 0 or depth > _MAX_DEPTH:
            raise MachineError("a directory of certificates is too large to copy", hint=_WITHOUT)


def _copy_into(source: int, to: Path, room: _Room, depth: int = 0) -> None:
    to.mkdir()
    found = os.fstat(source)
    with suppress(OSError):
        os.chown(to, found.st_uid, found.st_gid)
    to.chmod(stat.S_IMODE(found.st_mode) & 0o777)
    _label_like(to, source)
    for name in os.listdir(source):
        mode = os.stat(name, dir_fd=source, follow_symlinks=False).st_mode
        room.take(0, depth)
        if stat.S_ISLNK(mode):
            (to / name).symlink_to(os.readlink(name, dir_fd=source))
            continue
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            continue
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with suppress(PermissionError):  # what we must not read, the container's root cannot either
            inner = os.open(name, flags, dir_fd=source)
            try:
                if stat.S_ISDIR(mode):
                    _copy_into(inner, to / name, room, depth + 1)
                else:
                    with open(inner, "rb", closefd=False) as file:
                        content = file.read(_MAX_BYTES)
                    room.take(len(content), depth)
                    _write_like(to / name, inner, content)
            finally:
                os.close(inner)
