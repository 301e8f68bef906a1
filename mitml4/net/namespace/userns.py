"""The reasons why users cannot create namespaces on this machine, each with a remedy."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from mitml4.errors import MachineError
from mitml4.net import capabilities
from mitml4.net.capabilities import Capability
from mitml4.net.sysctl import read_sysctl

__all__ = ["NamespacesRefusedError", "explain_powerless", "explain_refusal"]

_LIMITS: Final = ("user", "net", "mnt")
_SUDO: Final = "or as root: sudo mitml4 run …"

Read = Callable[[str], str | None]


class NamespacesRefusedError(MachineError):
    """Users cannot create namespaces here; `command` is the remedy, to copy and paste."""

    def __init__(self, message: str, command: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint or f"{command}, {_SUDO}")
        self.command = command
        self.args = (message, command)  # pickle creates a copy from these


def explain_refusal(error: OSError, read: Read = read_sysctl) -> NamespacesRefusedError:
    """The error for a kernel that refused to create namespaces."""
    if error.errno == errno.ENOSPC:
        return _exhausted(read)
    if error.errno == errno.EUSERS:
        return NamespacesRefusedError(
            "namespaces are nested too deeply here (32 levels)", "exit", hint="leave some of them"
        )
    if error.errno in (errno.EINVAL, errno.ENOSYS):
        return NamespacesRefusedError(
            "this kernel has no user namespaces (CONFIG_USER_NS)",
            "sudo mitml4 doctor",
            hint="sudo mitml4 run …",
        )
    if read("kernel/unprivileged_userns_clone") == "0":
        setting = "kernel.unprivileged_userns_clone"
        return NamespacesRefusedError(
            f"this machine lets only root make namespaces ({setting} is 0)",
            f"sudo sysctl -w {setting}=1",
        )
    if apparmor := _apparmor(read):
        return apparmor
    command = "docker run --security-opt seccomp=unconfined"
    return NamespacesRefusedError(
        f"something here forbids user namespaces ({error.strerror}): "
        "a container's seccomp filter, or a chroot",
        f"{command} IMAGE",
        hint=f"{command} …; else run it on the host itself",
    )


def explain_powerless(read: Read = read_sysctl) -> NamespacesRefusedError | None:
    """The error for a user namespace that was created, but without privileges in it."""
    if capabilities.has(Capability.NET_ADMIN):
        return None
    return _apparmor(read)


def _exhausted(read: Read) -> NamespacesRefusedError:
    """A limit of zero is how a machine forbids them."""
    for kind in _LIMITS:
        if read(f"user/max_{kind}_namespaces") == "0":
            setting = f"user.max_{kind}_namespaces"
            return NamespacesRefusedError(
                f"this machine lets users make no namespaces ({setting} is 0)",
                f"sudo sysctl -w {setting}=10000",
            )
    return NamespacesRefusedError(
        "this user has made as many namespaces as the machine allows",
        "sysctl -a 2>/dev/null | grep '^user.max_.*_namespaces'",
    )


def _apparmor(read: Read) -> NamespacesRefusedError | None:
    if read("kernel/apparmor_restrict_unprivileged_userns") != "1":
        return None
    setting = "kernel.apparmor_restrict_unprivileged_userns"
    return NamespacesRefusedError(
        f"AppArmor keeps users from making namespaces ({setting} is 1)",
        f"sudo sysctl -w {setting}=0",
    )
