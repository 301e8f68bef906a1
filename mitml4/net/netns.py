"""Anonymous network namespaces: held by a descriptor, and removed with their last user.

A namespace belongs to threads, not processes: a worker thread enters it, creates sockets or starts
programs there, and ends. Nothing is left under /run/netns, even if we are killed. Used by the
session's probe, by `mitml4 demo` and by the end-to-end tests.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from mitml4.errors import MachineError
from mitml4.net.isolation import CLONE_NEWNET, setns, unshare

__all__ = ["NetNamespace", "connect_with_veth"]

T = TypeVar("T")

_numbers: Final = itertools.count(1000)
"""Indexes of interfaces, above those that the kernel assigns."""


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"cannot {what} a network namespace: {error.strerror}",
            hint="run as root: sudo mitml4 …",
        ) from error


def _in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread that ends afterwards, and return its result or raise its error."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # raised again in the caller below
            failure.append(error)

    thread = threading.Thread(target=body, name="netns")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


class NetNamespace:
    """A network namespace without a name. It exists as long as this object, or anything inside
    it."""

    def __init__(self) -> None:
        """Create one (its loopback is down). Raises MachineError without CAP_SYS_ADMIN."""

        def make() -> int:
            with _explained("make"):
                unshare(CLONE_NEWNET)
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        self.fd = _in_thread(make)

    @property
    def path(self) -> str:
        """The argument for `ip link set … netns PATH`, as long as this process lives."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def call(self, work: Callable[[], T]) -> T:
        """Run a function in a thread inside the namespace and return its result."""

        def enter() -> T:
            with _explained("enter"):
                setns(self.fd, CLONE_NEWNET)
            return work()

        return _in_thread(enter)

    def socket(
        self,
        family: int = socket.AF_INET,
        kind: int = socket.SOCK_STREAM,
        protocol: int = 0,
    ) -> socket.socket:
        """A socket of the namespace; it stays there, whichever thread uses it."""
        return self.call(lambda: socket.socket(family, kind, protocol))

    def run(self, *argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program inside and wait for it; text mode, output captured, a failure raises."""
        settings: dict[str, Any] = {
            "check": True,
            "capture_output": True,
            "text": True,
            "stdin": subprocess.DEVNULL,
        }
        if "input" in options:
            del settings["stdin"]
        settings |= options
        return self.call(lambda: subprocess.run(argv, **settings))

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program inside; the caller owns it."""
        return self.call(lambda: subprocess.Popen(argv, **options))

    def close(self) -> None:
        """Release it; the kernel removes it when no socket or process is left inside."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> NetNamespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect_with_veth(
    left: NetNamespace, left_name: str, right: NetNamespace, right_name: str
) -> None:
    """Connect two namespaces with a pair of virtual Ethernet interfaces, both down, without
    addresses.

    If both ends have the same index in their namespaces, the kernel confuses them, and notices up
    to a second late that they are up (linkwatch_urgent_event, net/core/link_watch.c).
    """
    left_end = [left_name, "index", str(next(_numbers)), "type", "veth"]
    right_end = [right_name, "index", str(next(_numbers)), "netns", right.path]
    left.run("ip", "link", "add", *left_end, "peer", "name", *right_end)
