"""The keeper: the process that creates a command's namespaces, and keeps the privileges to change
them.

`Namespace.open` starts it as a helper (net/helper.py).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from mitml4.errors import MachineError, limit_hint
from mitml4.net import capabilities, helper, isolation, processes
from mitml4.net.capabilities import Capability
from mitml4.net.dial import set_ip_transparent
from mitml4.net.gate.nflog import open_log
from mitml4.net.gate.quic import COPY_BYTES
from mitml4.net.gate.syn import LONGEST_SYN
from mitml4.net.isolation import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER
from mitml4.net.listener import listen
from mitml4.net.namespace.covers import Covers
from mitml4.net.namespace.hidden import hide
from mitml4.net.namespace.rules import (
    LOG_GROUP,
    QUIC_GROUP,
    Mark,
    Ports,
    Sources,
    ip_commands,
    nft_table,
)
from mitml4.net.namespace.userns import explain_powerless, explain_refusal
from mitml4.net.owner.diag import open_diag
from mitml4.net.tap import packet_socket
from mitml4.net.tools import run

__all__ = ["KINDS", "AtEnd", "keep"]

KINDS: Final = {"user": CLONE_NEWUSER, "mnt": CLONE_NEWNS, "net": CLONE_NEWNET}
"""The namespaces of a command, in the order in which to enter them."""

_IP_RECVORIGDSTADDR: Final = 20  # linux/in.h
_IPV6_RECVORIGDSTADDR: Final = 74  # linux/in6.h

_WHILE_IT_RUNS: Final = frozenset({"socket", "count", "leave"})
"""The requests that are permitted while the command runs and the session reads bytes from the
network."""
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
_LOOPBACK: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_PORT_TRIES: Final = 10

AtEnd = Callable[[Sequence[bytes]], None]


def keep(channel: socket.socket, sources: Sources, *, loopback: bool, at_end: AtEnd) -> NoReturn:
    """Create the namespaces, report the result, and serve requests until the channel is closed.

    `at_end` is called then, or on the request to leave, with the items that were given for it.
    Raises MachineError.
    """
    try:
        keeper = _Keeper(sources, loopback=loopback, at_end=at_end)
    except OSError as error:
        reason = f"cannot make a namespace: {error.strerror or error}"
        raise MachineError(reason, hint=limit_hint(error)) from error
    helper.send(channel, *keeper.first_answer())
    helper.serve(channel, keeper.serve, keeper.leave)


class _Keeper:
    """Namespaces and their setup. Raises MachineError if the machine does not permit it."""

    def __init__(self, sources: Sources, *, loopback: bool, at_end: AtEnd) -> None:
        self._at_end = at_end
        self._for_the_end: list[bytes] = []
        self._is_restricted = False
        self._kinds = _enter_new_namespaces()
        processes.close_memory()  # only now: afterwards, its files in /proc belong to root
        isolation.mount_slave()
        capabilities.hand_down({Capability.NET_ADMIN})
        _run("ip", "-batch", "-", given=ip_commands(sources))
        self._tcp = listen(transparent=True)
        self._log = open_log(LOG_GROUP, copy_bytes=LONGEST_SYN)
        self._quic_log = open_log(QUIC_GROUP, copy_bytes=COPY_BYTES)
        self._udp = _bind_udp_receiver()
        self._raw = _open_raw(with_v6=sources.v6 is not None)
        self._dns = _bind_dns(with_v6=sources.v6 is not None)
        tcp, udp, dns = (each.getsockname()[1] for each in (self._tcp, self._udp, self._dns[0]))
        ports = Ports(tcp=tcp, udp=udp, dns=dns)
        _run("nft", "-f", "-", given=nft_table(sources, ports, loopback=loopback))
        self._covers = Covers()

    def first_answer(self) -> helper.Answer:
        """The kinds of the namespaces, and descriptors: first theirs, then those of our sockets."""
        namespaces = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in self._kinds]
        sockets = (self._tcp, self._log, self._quic_log, self._udp, *self._raw, *self._dns)
        return {"kinds": self._kinds}, [*namespaces, *(each.detach() for each in sockets)]

    def serve(self, what: str, arguments: dict[str, Any], descriptors: list[int]) -> helper.Answer:
        if self._is_restricted and what not in _WHILE_IT_RUNS:
            raise MachineError(f"the command runs already: {what}", hint="start it again")
        match what:
            case "restrict":
                self._is_restricted = True
                return {}, []
            case "at end":
                self._for_the_end = [bytes.fromhex(each) for each in arguments["items"]]
                return {}, []
            case "mount_files":
                _mount_files(Path(arguments["directory"]), arguments["sizes"], *descriptors)
                return {}, []
            case "extend":
                _extend(Path(arguments["directory"]), arguments["name"])
                return {}, []
            case "hide":
                hide(_paths_in(*descriptors), map(Path, arguments["directories"]))
                return {}, []
            case "cover":
                stopgap = arguments["stopgap"]
                self._covers.lay(
                    Path(arguments["file"]),
                    Path(arguments["source"]),
                    None if stopgap is None else os.fsencode(stopgap),
                )
                return {}, []
            case "leave":
                self.leave()
                return {}, []
            case "socket":
                return {}, [_dial_socket(arguments["family"]).detach()]
            case "diag socket":
                return {}, [open_diag().detach()]
            case "packet socket":
                return {}, [packet_socket(arguments["interface"]).detach()]
            case "count":
                return {"count": _count(arguments["counter"])}, []
        raise AssertionError(what)

    def leave(self) -> None:
        """Undo what is visible on the host."""
        items, self._for_the_end = self._for_the_end, []
        if items:
            self._at_end(items)
        self._covers.remove()


def _enter_new_namespaces() -> list[str]:
    """Create a network and a mount namespace; inside a new user namespace if we lack privileges
    over the host's. Returns their kinds."""
    kinds = list(KINDS)
    if isolation.unshare_with_power(CLONE_NEWNS | CLONE_NEWNET):
        return kinds[1:]
    try:
        isolation.unshare_without_power(CLONE_NEWNS | CLONE_NEWNET, root=False)
    except OSError as error:
        raise explain_refusal(error) from error
    return kinds


def _run(*command: str, given: str = "") -> str:
    """Like `run`; raises NamespacesRefusedError if it fails for lack of privileges."""
    try:
        return run(*command, given=given)
    except MachineError as error:
        if refusal := explain_powerless():
            raise refusal from error
        raise


def _bind_udp_receiver() -> socket.socket:
    """A socket that receives datagrams to any destination, and reports the destination of each."""
    try:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVORIGDSTADDR, 1)
    except OSError:  # a kernel without IPv6
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_IP, _IP_RECVORIGDSTADDR, 1)
    set_ip_transparent(sock)
    sock.bind(("", 0))
    return sock


def _open_raw(*, with_v6: bool) -> list[socket.socket]:
    """Sockets that send packets with their IP header (raw(7), ipv6(7))."""
    families = (socket.AF_INET, socket.AF_INET6) if with_v6 else (socket.AF_INET,)
    return [socket.socket(each, socket.SOCK_RAW, socket.IPPROTO_RAW) for each in families]


def _bind_dns(*, with_v6: bool) -> list[socket.socket]:
    """Sockets for UDP and TCP, on one port of 127.0.0.1 and ::1.

    Not on the wildcard address: answers would have another source address than the destination of
    the queries. The port that the kernel chooses for one may be another socket's of ours.
    """
    for tries_left in reversed(range(_PORT_TRIES)):
        with contextlib.ExitStack() as opened:
            try:
                sockets = _bind_one_port(opened, with_v6=with_v6)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or not tries_left:
                    raise
            else:
                opened.pop_all()
                return sockets
    raise AssertionError


def _bind_one_port(opened: contextlib.ExitStack, *, with_v6: bool) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    port = 0
    for family, ip in _LOOPBACK if with_v6 else _LOOPBACK[:1]:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            sock = opened.enter_context(socket.socket(family, kind))
            sock.bind((ip, port))
            port = sock.getsockname()[1]
            if kind == socket.SOCK_STREAM:
                sock.listen(128)
            sockets.append(sock)
    return sockets


def _dial_socket(family: int) -> socket.socket:
    """A socket for a connection to a server inside that is not intercepted again."""
    if family not in _FAMILIES:
        reason = f"the namespace has no route of the family {family}"
        raise MachineError(reason, hint="ip route")
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, Mark.OWN)
    return sock


def _count(counter: str) -> int:
    """The number of packets that a counter of the rules has counted."""
    listing = _run("nft", "list", "counter", "inet", "mitml4", counter)
    found = re.search(r"packets (\d+)", listing)
    return int(found[1]) if found else 0


def _paths_in(file: int) -> list[Path]:
    """The paths in a file, which may be too many for a message; separated by NUL."""
    os.lseek(file, 0, os.SEEK_SET)
    with open(file, "rb", closefd=False) as source:
        return [Path(os.fsdecode(each)) for each in source.read().split(b"\0") if each]


def _mount_files(directory: Path, sizes: dict[str, int], contents: int) -> None:
    """Mount files into a directory, in addition to its own files or over them: inside, and in
    memory only. They are given by name and size; their contents are concatenated."""
    original = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    isolation.mount_tmpfs(directory)
    with contextlib.suppress(shutil.Error):  # what we must not read, the command cannot read either
        shutil.copytree(f"/proc/self/fd/{original}", directory, symlinks=True, dirs_exist_ok=True)
    os.close(original)
    os.lseek(contents, 0, os.SEEK_SET)
    with open(contents, "rb", closefd=False) as source:
        for name, size in sizes.items():
            file = directory / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
            file.write_bytes(source.read(size))
            file.chmod(0o644)


def _extend(directory: Path, name: str) -> None:
    """Add an empty directory to a directory: inside, and in memory only."""
    original = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    isolation.mount_tmpfs(directory)
    for entry in os.scandir(f"/proc/self/fd/{original}"):
        place = directory / entry.name
        if entry.is_symlink():
            place.symlink_to(os.readlink(entry.path))
            continue
        place.mkdir() if entry.is_dir() else place.touch()
        isolation.mount_bind(entry.path, place)
    os.close(original)
    (directory / name).mkdir()
