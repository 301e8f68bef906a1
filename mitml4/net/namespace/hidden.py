"""What a confined command must not see: the Unix sockets of programs outside.

Services that start programs for whoever asks (the session bus, systemd, container engines, tmux, a
display) listen on them, and resolvers (nscd, systemd-resolved). A path is all that it takes to
connect, and no namespace but that of mounts concerns it.

/run is replaced by a copy without sockets, whose files and directories are the original ones. So
new sockets there do not appear. Elsewhere, each socket is mounted over.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mitml4.net import isolation
from mitml4.net.dial import EXHAUSTED

__all__ = ["directories_of", "hide", "sockets_of_host"]

_RUN: Final = ("/run", "/var/run")
_OF_USERS: Final = "user"
"""A directory of /run in which every user's services put their sockets (file-hierarchy(7))."""
_NOTHING: Final = Path("/dev/null")
_PROC: Final = Path("/proc")
_DIRECTORIES: Final = (
    *("/tmp/.X11-unix", "/tmp/.ICE-unix", "/var/lib/incus", "/var/lib/lxd"),
    *("/var/snap/lxd/common/lxd", "/var/lib/docker", "/var/lib/containers"),
)
"""Directories of services outside of /run."""


def sockets_of_host(environ: Mapping[str, str]) -> list[Path]:
    """The paths of the Unix sockets in the network namespace of each process that this one sees,
    and of those that the environment names. Raises OSError if they cannot be listed."""
    found = [environ.get("SSH_AUTH_SOCK", "")]
    for variable in ("DOCKER_HOST", "CONTAINER_HOST", "DBUS_SESSION_BUS_ADDRESS"):
        value = environ.get(variable, "")
        found += [each.partition(",")[0] for each in value.replace("path=", "//").split("//")]
    for listing in _listings():
        with _unless_it_has_ended():
            lines = listing.read_text(errors="surrogateescape").splitlines()[1:]
            found += [path for line in lines for path in line.split(maxsplit=7)[7:]]
    return [Path(each) for each in dict.fromkeys(found) if each.startswith("/")]


def _listings() -> Iterable[Path]:
    """The list of Unix sockets of each network namespace (proc_pid_net(5)). A path leads to its
    socket from any of them. Raises OSError."""
    found: dict[int, Path] = {}
    for process in filter(str.isdecimal, os.listdir(_PROC)):
        listing = _PROC / process / "net/unix"
        with _unless_it_has_ended():
            found.setdefault(listing.stat().st_ino, listing)  # each namespace has other inodes
    return found.values()


@contextmanager
def _unless_it_has_ended() -> Iterator[None]:
    """Skip a process that has ended, or that this user may not see. Raises OSError if there is
    nothing left to read it with: no socket may be forgotten."""
    try:
        yield
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise


def directories_of(environ: Mapping[str, str]) -> list[Path]:
    """Directories that are hidden with all that they will contain, if they are there."""
    uid = os.getuid()
    tmux = environ.get("TMUX_TMPDIR") or "/tmp"
    found = [*_DIRECTORIES, f"{tmux}/tmux-{uid}", environ.get("XDG_RUNTIME_DIR", "")]
    return [Path(each) for each in dict.fromkeys(found) if each.startswith("/")]


def hide(sockets: Iterable[Path], directories: Iterable[Path]) -> None:
    """Hide these, and all sockets in /run, from the mount namespace of this process. What is not
    there, or cannot be reached, is left out. Raises OSError."""
    for run in dict.fromkeys(map(os.path.realpath, _RUN)):
        if os.path.isdir(run):
            _replace(Path(run))
    for directory in directories:
        if os.path.isdir(directory) and not _is_private(directory):
            isolation.mount_tmpfs(directory)
    for each in sockets:
        if _is_socket(each):
            isolation.mount_bind(_NOTHING, each)


def _replace(run: Path) -> None:
    original = os.open(run, os.O_RDONLY | os.O_DIRECTORY)
    isolation.mount_tmpfs(run)
    _copy(f"/proc/self/fd/{original}", run)
    os.close(original)
    uid = os.getuid()
    private = run / _OF_USERS / str(uid)
    private.mkdir(parents=True, exist_ok=True)
    private.chmod(0o700)


def _copy(original: str, place: Path, *, is_top: bool = True) -> None:
    """Fill a directory with what the original has, without sockets and pipes."""
    try:
        entries = list(os.scandir(original))
    except PermissionError:  # whoever cannot list it may still know a name in it
        return
    for entry in entries:
        copy = place / entry.name
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            copy.symlink_to(os.readlink(entry.path))
        elif stat.S_ISDIR(mode):
            copy.mkdir()
            if is_top and entry.name == _OF_USERS:
                continue
            if _has_sockets(entry.path):
                _copy(entry.path, copy, is_top=False)
            else:
                isolation.mount_bind(entry.path, copy)
        elif stat.S_ISREG(mode):
            copy.touch()
            isolation.mount_bind(entry.path, copy)


def _has_sockets(directory: str) -> bool:
    """Whether there is one below it, or may be."""
    try:
        entries = list(os.scandir(directory))
        modes = [entry.stat(follow_symlinks=False).st_mode for entry in entries]
    except OSError:
        return True
    if any(stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode) for mode in modes):
        return True
    pairs = zip(entries, modes, strict=True)
    return any(stat.S_ISDIR(mode) and _has_sockets(entry.path) for entry, mode in pairs)


def _is_private(directory: Path) -> bool:
    """Whether it is in /run, and thus in the copy."""
    real = Path(os.path.realpath(directory))
    return any(real.is_relative_to(os.path.realpath(each)) for each in _RUN)


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False
