"""The namespaces to which a session is attached, each held by a descriptor.

The descriptors are opened once. So a process id or a name that is used again later
does not lead to another namespace.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final, Self

from mitml4.dataclass import dataclass
from mitml4.errors import MachineError, UsageError
from mitml4.net.isolation import CLONE_NEWNET
from mitml4.regex import regex

__all__ = ["Target"]

_NAMES: Final = Path("/run/netns")  # ip-netns(8)
_PROCESS: Final = regex(r"/proc/([1-9][0-9]{0,9})/ns/net")

# linux/nsfs.h
_NS_GET_USERNS: Final = 0xB701
_NS_GET_NSTYPE: Final = 0xB703


@dataclass(slots=True, kw_only=True)
class Target:
    """A network namespace, other than ours."""

    what: str
    """What the user has named, in words."""
    network: int
    """The descriptor of the namespace."""
    user: int | None
    """That of the user namespace that owns it, if that is not ours."""
    process: int | None = None
    """That of the process that was named (pidfd_open(2))."""
    pid: int | None = None
    path: Path | None = None
    """The file that was named."""

    @classmethod
    def of_process(cls, pid: int, what: str | None = None) -> Self:
        """The namespace of a process. Raises UsageError, MachineError."""
        what = what or f"process {pid}"
        try:
            process = os.pidfd_open(pid)
        except (OSError, OverflowError):
            raise UsageError(f"there is no process {pid}", hint="ps -e") from None
        try:
            network = _open(Path(f"/proc/{pid}/ns/net"), what)
            return cls(
                what=what, network=network, user=_owner(network, what), process=process, pid=pid
            )
        except BaseException:
            os.close(process)
            raise

    @classmethod
    def of_name(cls, name: str) -> Self:
        """The namespace with a name that `ip netns` knows, or with a path. Raises UsageError,
        MachineError."""
        if process := _PROCESS.fullmatch(name):
            return cls.of_process(int(process[1]))
        path = Path(name) if "/" in name else _NAMES / name
        what = f"the network namespace {name}"
        network = _open(path, what)
        return cls(what=what, network=network, user=_owner(network, what), path=path)

    @property
    def is_ours(self) -> bool:
        """Whether it is the network namespace of this process."""
        return _is_same(self.network, Path("/proc/self/ns/net"))

    @property
    def has_ended(self) -> bool:
        """Whether the file that was named leads to it no longer. No file is named for a process."""
        if self.path is None:
            return False
        try:
            return not _is_same(self.network, self.path)
        except PermissionError:  # a confined session may not look there
            return False
        except OSError:
            return True

    def is_of(self, pid: int) -> bool:
        """Whether a process is in it. Raises OSError."""
        return _is_same(self.network, Path(f"/proc/{pid}/ns/net"))

    def close(self) -> None:
        for descriptor in (self.network, self.user, self.process):
            if descriptor is not None:
                os.close(descriptor)


def _open(path: Path, what: str) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise UsageError(
            f"there is no {what.removeprefix('the ')}", hint=_there_are(path)
        ) from None
    except PermissionError:
        raise MachineError(f"{what} may not be entered by this user", hint=_privilege()) from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="ip netns list") from None
    try:
        kind = fcntl.ioctl(descriptor, _NS_GET_NSTYPE)
    except OSError:
        kind = None
    if kind != CLONE_NEWNET:
        os.close(descriptor)
        raise UsageError(f"{path} is no network namespace", hint="ip netns list")
    return descriptor


def _privilege() -> str:
    if os.geteuid():
        return "run as root: sudo mitml4 …"
    return "it is outside of the container in which mitml4 runs, or CAP_SYS_PTRACE is missing"


def _there_are(path: Path) -> str:
    if path.parent != _NAMES:
        return f"ls -l {path}"
    names = sorted(os.listdir(_NAMES)) if _NAMES.is_dir() else []
    return f"there are: {', '.join(names)}" if names else "ip netns list"


def _owner(network: int, what: str) -> int | None:
    """The user namespace that owns a network namespace; None if it is ours."""
    try:
        owner: int = fcntl.ioctl(network, _NS_GET_USERNS)
    except PermissionError:  # it is not below ours
        os.close(network)
        raise MachineError(f"{what} may not be entered by this user", hint=_privilege()) from None
    if _is_same(owner, Path("/proc/self/ns/user")):
        os.close(owner)
        return None
    os.set_inheritable(owner, False)
    return owner


def _is_same(descriptor: int, path: Path) -> bool:
    """Raises OSError."""
    there, ours = os.stat(path), os.fstat(descriptor)
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)
