"""Open files safely in directories where other users may have put links or files.

A path is resolved one name at a time. A symbolic link is followed as the kernel does with
fs.protected_symlinks, whatever the host's setting, and only to places that the link's owner can
open. The file that is opened in the end has to be ours, and closed to others.

Ours is what belongs to root, to our user, or to the user who called sudo.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.invoker import give_to_invoker, sudo_user

__all__ = [
    "RefusedError",
    "open_directory",
    "open_input",
    "open_output",
    "pinned",
    "writable_by_invoker",
]

_PRIVATE, _READABLE, _NEW = 0o600, 0o644, 0o666
_PRIVATE_DIRECTORY, _READABLE_DIRECTORY = 0o700, 0o755
_OTHERS, _OTHERS_READ, _OTHERS_WRITE, _OTHERS_ENTER = 0o077, 0o055, 0o022, 0o011
_STICKY_FOR_ALL: Final = stat.S_ISVTX | stat.S_IWOTH
_MAX_LINKS: Final = 40  # path_resolution(7)
_NO_OUTPUT: Final = {stat.S_IFBLK: "a block device", stat.S_IFSOCK: "a socket"}
_LOOK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class RefusedError(PermissionError):
    """A file that the kernel would open, but that we refuse."""

    def __init__(self, reason: str, remedy: str = "ls -ld") -> None:
        """`remedy`: the command to try next; the path is appended."""
        super().__init__(errno.EACCES, reason)
        self.remedy = remedy


def open_output(path: Path, *, append: bool = False, public: bool = False) -> int:
    """A descriptor to write to; the file is truncated, unless `append`. Raises OSError.

    A new file is private (unless `public`), and belongs to the invoking user under sudo. An
    existing file keeps its owner and mode, which must not let others read it (or, if `public`,
    write it). The path may also be a device, `/dev/fd/N`, or a named pipe: then this blocks until
    there is a reader.
    """
    flags = os.O_WRONLY | os.O_CLOEXEC | (os.O_APPEND if append else 0)
    with _walked(path) as place:
        if place.is_descriptor:
            return os.open(place.path, flags | (0 if append else os.O_TRUNC))
        if place.status:
            _check_output(place, place.status, public=public)
        else:
            place.check_new()
        flags |= os.O_CREAT | os.O_NOFOLLOW
        mode = _NEW if public else _PRIVATE
        try:
            descriptor = os.open(place.path, flags | os.O_EXCL, mode)
        except FileExistsError:
            with _acting_as_owner(place.status):
                descriptor = os.open(place.path, flags, mode)
        else:
            give_to_invoker(descriptor)
        with _closed_on_error(descriptor):
            status = os.fstat(descriptor)
            _check_output(place, status, public=public)
            if not append and stat.S_ISREG(status.st_mode):
                os.ftruncate(descriptor, 0)
        return descriptor


def open_input(path: Path, *, secret: bool = False) -> int:
    """A descriptor to read a regular file that others cannot write (or read, if it is a `secret`
    key). Raises OSError."""
    with _walked(path) as place:
        descriptor = os.open(place.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with _closed_on_error(descriptor):
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise RefusedError("it is no regular file")
            place.check_owner(status)
            _check_mode(status, _PRIVATE if secret else _READABLE, "the key" if secret else "it")
        return descriptor


def open_directory(path: Path, *, make: bool = False) -> int:
    """A descriptor of a directory that others cannot write to. Raises OSError.

    With `make`, it and its missing parents are created: each 0700, and owned by the invoking user
    under sudo.
    """
    with _walked(path, make=make) as place:
        if make and not place.status:
            place.make_directory()
        descriptor = os.open(place.path, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with _closed_on_error(descriptor):
            status = os.fstat(descriptor)
            place.check_owner(status)
            _check_mode(status, _READABLE_DIRECTORY)
        return descriptor


@contextmanager
def pinned(directory: Path) -> Iterator[Path]:
    """A path that leads to this directory even if it is renamed. Raises OSError."""
    descriptor = open_directory(directory)
    try:
        yield _path_of(descriptor)
    finally:
        os.close(descriptor)


def writable_by_invoker(path: Path) -> bool:
    """Whether the user who called sudo could create this path; True without sudo."""
    user = sudo_user()
    there = next(each for each in (path, *path.parents) if each.exists())
    return user is None or _may_make_in(there.stat(), user.pw_uid)


# --- the walk ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Place:
    """The target of a path: a name in a directory."""

    directory: int
    name: str = "."
    status: os.stat_result | None = None
    """The file's status; None if there is no file."""
    is_descriptor: bool = False
    """It is a link of procfs, which leads to an open file."""
    link_owners: set[int] = field(default_factory=set)
    """The owners of links in the path, except root and us."""

    @property
    def path(self) -> Path:
        return _path_of(self.directory) / self.name

    def enter(self, directory: int) -> None:
        os.close(self.directory)
        self.directory = directory

    def make_directory(self) -> None:
        self.check_new()
        self.path.mkdir(mode=_PRIVATE_DIRECTORY)
        made = os.open(self.path, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            give_to_invoker(made)
        finally:
            os.close(made)

    def check_new(self) -> None:
        """Raises RefusedError if the owner of a link could not create this file."""
        directory = os.fstat(self.directory)
        if not all(_may_make_in(directory, owner) for owner in self.link_owners):
            raise self._misled(directory)

    def check_owner(self, status: os.stat_result) -> None:
        """Raises RefusedError if it is not ours, or a link's owner could not reach it."""
        if status.st_uid not in _ours():
            raise RefusedError(f"it belongs to {_user(status.st_uid)}")
        if self.link_owners - {status.st_uid, os.fstat(self.directory).st_uid}:
            raise self._misled(status)

    def _misled(self, where: os.stat_result) -> RefusedError:
        owner = _user(next(iter(self.link_owners)))
        return RefusedError(f"{owner}'s symbolic link leads to what is {_user(where.st_uid)}'s")


@contextmanager
def _walked(path: Path, *, make: bool = False) -> Iterator[_Place]:
    """The target of a path; with `make`, missing directories in the path are created."""
    start = os.open("/" if path.is_absolute() else ".", os.O_PATH | os.O_CLOEXEC)
    place = _Place(start)
    try:
        _walk(place, path, make=make)
        yield place
    finally:
        os.close(place.directory)


def _walk(place: _Place, path: Path, *, make: bool) -> None:
    pending = deque(_names(path))
    links = 0
    while pending:
        place.name = pending.popleft()
        is_last = not pending
        try:
            status = place.path.lstat()
        except FileNotFoundError:
            if is_last:
                return
            if not make:
                raise
            place.make_directory()
            status = place.path.lstat()
        if not stat.S_ISLNK(status.st_mode):
            if is_last:
                place.status = status
                return
            place.enter(os.open(place.path, _LOOK | os.O_DIRECTORY))
        elif _is_procfs(place.directory):
            if is_last:
                place.check_new()
                place.is_descriptor = True
                return
            place.enter(os.open(place.path, os.O_PATH | os.O_CLOEXEC))
        else:
            target = _follow(place)
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if target.is_absolute():
                place.enter(os.open("/", os.O_PATH | os.O_CLOEXEC))
            pending.extendleft(reversed(_names(target)))
    place.name, place.status = ".", os.fstat(place.directory)


def _names(path: Path) -> list[str]:
    return [part for part in path.parts if part != path.anchor]


def _follow(place: _Place) -> Path:
    """The target of a symbolic link, if it may be followed, by the rule of the kernel's
    may_follow_link (fs/namei.c). Raises RefusedError, OSError."""
    descriptor = os.open(place.path, _LOOK)
    try:
        link = os.fstat(descriptor)
        target = Path(os.readlink("", dir_fd=descriptor))
    finally:
        os.close(descriptor)
    if link.st_uid in (0, os.geteuid()):
        return target
    directory = os.fstat(place.directory)
    is_for_all = directory.st_mode & _STICKY_FOR_ALL == _STICKY_FOR_ALL
    if is_for_all and directory.st_uid != link.st_uid:
        name = Path(os.readlink(_path_of(place.directory))) / place.name
        raise RefusedError(f"the symbolic link {name} belongs to {_user(link.st_uid)}")
    place.link_owners.add(link.st_uid)
    return target


def _is_procfs(directory: int) -> bool:
    return os.fstat(directory).st_dev == os.stat("/proc").st_dev


def _path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}")


# --- what is ours ------------------------------------------------------------------------------


def _ours() -> set[int]:
    user = sudo_user()
    return {0, os.geteuid()} | ({user.pw_uid} if user else set())


def _may_make_in(directory: os.stat_result, owner: int) -> bool:
    return directory.st_uid == owner or bool(directory.st_mode & stat.S_IWOTH)


def _check_output(place: _Place, status: os.stat_result, *, public: bool) -> None:
    """Raises RefusedError, OSError."""
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if kind in _NO_OUTPUT:
        raise RefusedError(f"it is {_NO_OUTPUT[kind]}")
    if kind == stat.S_IFCHR and not place.link_owners:
        return
    place.check_owner(status)
    if _is_out_of_reach(place.directory):
        return
    _check_mode(status, _READABLE if public else _PRIVATE)
    directory = os.fstat(place.directory)
    if status.st_nlink > 1 and (
        directory.st_uid not in _ours() or directory.st_mode & _OTHERS_WRITE
    ):
        raise RefusedError("it has another name (a hard link), which somebody else may have made")


def _is_out_of_reach(directory: int) -> bool:
    """Whether a directory in the path is closed to others, so that they cannot reach it."""
    path = Path(os.readlink(_path_of(directory)))
    for each in (path, *path.parents):
        try:
            status = each.stat()
        except OSError:  # it has been removed or renamed
            return False
        if status.st_uid in _ours() and not status.st_mode & _OTHERS_ENTER:
            return True
    return False


def _check_mode(status: os.stat_result, allowed: int, what: str = "it") -> None:
    """Raises RefusedError if the mode permits others more than `allowed`."""
    mode = stat.S_IMODE(status.st_mode)
    if excess := mode & ~allowed & _OTHERS:
        verb = "read" if excess & _OTHERS_READ else "write to"
        fit = _PRIVATE_DIRECTORY if stat.S_ISDIR(status.st_mode) else allowed
        reason = f"others can {verb} {what} (its mode is {mode:04o})"
        raise RefusedError(reason, f"chmod {fit:o}")


@contextmanager
def _acting_as_owner(status: os.stat_result | None) -> Iterator[None]:
    """Act as the user who called sudo, if the file is theirs: fs.protected_regular forbids root to
    open it in a world-writable directory. Raises OSError."""
    user = sudo_user()
    if user is None or status is None or status.st_uid != user.pw_uid:
        yield
        return
    os.seteuid(user.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def _closed_on_error(descriptor: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(descriptor)
        raise


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
