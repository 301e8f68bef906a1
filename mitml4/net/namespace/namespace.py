"""The network namespace of a command, whose connections all arrive at mitml4. It needs no root
where users may create namespaces, and changes nothing on the host.

    host     mitml4 ── listener, DNS sockets ◄── created inside, passed out
               │  ordinary connections of the host
    ─ ─ ─ ─ ─ ─│─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─
    inside   keeper (keeper.py), the command (launch.py) and its descendants

The only way out of the namespace is through our sockets. When mitml4 ends, for whatever reason,
they are closed, and any further connection of the command is refused at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from mitml4.dataclass import dataclass
from mitml4.errors import MachineError, limit_hint
from mitml4.net import helper, isolation
from mitml4.net.namespace.channel import InjectionSockets
from mitml4.net.namespace.hidden import directories_of, sockets_of_host
from mitml4.net.namespace.keeper import KINDS, AtEnd, keep
from mitml4.net.namespace.rules import Sources
from mitml4.net.owner.finder import OwnerFinder
from mitml4.net.tap import LOOPBACK, Tap
from mitml4.net.tools import check_tools, run

__all__ = ["Namespace", "sources_of_host"]

_NOWHERE_V4: Final = "198.18.0.1"  # RFC 2544: no network routes it
_PROBES: Final = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}


def _nothing(_items: Sequence[bytes]) -> None:
    pass


@dataclass(slots=True, kw_only=True)
class Namespace:
    """The namespaces, set up. Close it, or use it as a context manager."""

    listener_socket: socket.socket
    """Listens for all TCP, transparently: `getsockname` of an accepted socket is the
    destination."""
    injection: InjectionSockets
    """For connections that are held before they arrive at `listener_socket`."""
    quic_log: socket.socket
    """Where datagrams of QUIC that are refused arrive (gate/quic.py)."""
    datagrams: socket.socket
    """Receives all UDP except DNS, QUIC, and datagrams to the namespace's own addresses."""
    dns: tuple[socket.socket, ...]
    """Receive all DNS: UDP sockets, and listening TCP sockets."""
    sources: Sources
    _kinds: dict[str, int]
    _channel: socket.socket

    @classmethod
    def open(cls, *, loopback: bool = False, at_end: AtEnd = _nothing) -> Namespace:
        """Create the namespaces, before any thread is started. Raises MachineError if that is
        impossible.

        `loopback`: also intercept connections to 127.0.0.1 and ::1. `at_end` is called when the
        namespaces are closed or we have been killed, with the privileges that we have now, in
        another process, with the items from `for_the_end`.
        """
        check_tools()
        sources = sources_of_host()
        work = partial(keep, sources=sources, loopback=loopback, at_end=at_end)
        keeper = helper.start(work)
        names = keeper.answer["kinds"]
        kinds = dict(zip(names, keeper.descriptors, strict=False))
        sockets = [socket.socket(fileno=each) for each in keeper.descriptors[len(names) :]]
        listener_socket, log, quic_log, datagrams, raw_v4, *others = sockets
        raw_v6 = others.pop(0) if sources.v6 else None
        return cls(
            listener_socket=listener_socket,
            injection=InjectionSockets(log, raw_v4, raw_v6),
            quic_log=quic_log,
            datagrams=datagrams,
            dns=tuple(others),
            sources=sources,
            _kinds=kinds,
            _channel=keeper.channel,
        )

    def enter(self) -> None:
        """Move this process (which has one thread) inside. Raises OSError."""
        for name, descriptor in self._kinds.items():
            isolation.setns(descriptor, KINDS[name])

    @property
    def has_user_namespace(self) -> bool:
        """Whether it has a user namespace, which contains only the caller."""
        return "user" in self._kinds

    def mount_files(self, directory: Path, files: Mapping[str, bytes]) -> None:
        """Add these files to a directory: inside, and in memory only.

        Raises MachineError.
        """
        try:
            contents = os.memfd_create("files")
            with os.fdopen(os.dup(contents), "wb") as out:
                out.writelines(files.values())
        except OSError as error:
            reason = f"cannot show the command its certificates: {error.strerror}"
            raise MachineError(reason, hint=limit_hint(error)) from error
        sizes = {name: len(content) for name, content in files.items()}
        try:
            self._ask("mount_files", [contents], directory=str(directory), sizes=sizes)
        finally:
            os.close(contents)

    def extend(self, directory: Path, name: str) -> None:
        """Add an empty directory to a directory: inside, and in memory only.

        Raises MachineError.
        """
        self._ask("extend", directory=str(directory), name=name)

    def cover(self, file: Path, source: Path, *, stopgap: bytes | None = None) -> None:
        """Mount `source`, a path inside, over a file. With a `stopgap` the file need not exist: one
        with that content exists, on the host too, until the namespace is closed.

        Raises MachineError.
        """
        made = None if stopgap is None else os.fsdecode(stopgap)
        self._ask("cover", file=str(file), source=str(source), stopgap=made)

    def hide_services(self, environ: Mapping[str, str]) -> None:
        """Hide the Unix sockets of this host's services: those of the system, and those that an
        environment names. Raises MachineError."""
        try:
            sockets = sockets_of_host(environ)
        except OSError as error:
            raise MachineError(
                f"cannot list the Unix sockets: {error.strerror}",
                hint=limit_hint(error, "ls -l /proc/net/unix"),
            ) from error
        with os.fdopen(os.memfd_create("hidden"), "wb") as paths:
            paths.write(b"\0".join(map(os.fsencode, sockets)))
            paths.flush()
            self._ask("hide", [paths.fileno()], directories=list(map(str, directories_of(environ))))

    def for_the_end(self, items: Iterable[bytes]) -> None:
        """The items with which `at_end` is called. Raises MachineError."""
        self._ask("at end", items=[each.hex() for each in items])

    def restrict(self) -> None:
        """Permit no further change of what the command sees. Raises MachineError."""
        self._ask("restrict")

    def dial_socket(self, family: socket.AddressFamily) -> socket.socket:
        """A socket inside, whose connections are not intercepted. Raises MachineError."""
        _, (descriptor,) = self._ask("socket", family=int(family))
        return socket.socket(fileno=descriptor)

    def owners(self) -> OwnerFinder:
        """What finds the processes inside that have opened connections. Raises MachineError."""
        _, (descriptor,) = self._ask("diag socket")
        return OwnerFinder.start(socket.socket(fileno=descriptor), network=self._kinds["net"])

    def tap(self) -> Tap:
        """A tap on all packets inside. Raises MachineError."""
        _, (descriptor,) = self._ask("packet socket", interface=LOOPBACK)
        return Tap(LOOPBACK, socket.socket(fileno=descriptor))

    def quic_blocked(self) -> int:
        """The number of QUIC packets that were refused so far."""
        return self._count("quic")

    def direct(self) -> int:
        """The number of connections to servers inside so far that were not intercepted."""
        return self._count("direct")

    def _count(self, counter: str) -> int:
        answer, _ = self._ask("count", counter=counter)
        return int(answer["count"])

    def close(self) -> None:
        """Release it: processes that are still inside have no network any more."""
        with contextlib.suppress(MachineError):
            self._ask("leave")
        self.injection.close()
        for sock in (self.listener_socket, self.quic_log, self.datagrams, *self.dns, self._channel):
            sock.close()
        while self._kinds:
            os.close(self._kinds.popitem()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(
        self, what: str, descriptors: list[int] | None = None, **arguments: Any
    ) -> tuple[dict[str, Any], list[int]]:
        """Raises MachineError."""
        try:
            return helper.ask(self._channel, what, descriptors or (), **arguments)
        except OSError as error:
            hint = limit_hint(error, "mitml4 doctor")
            raise MachineError(error.strerror or str(error), hint=hint) from error


def sources_of_host() -> Sources:
    """The addresses of this host, and the source addresses of its connections."""
    own = _own_addresses()
    first_v4 = next((each for each in own if ":" not in each), _NOWHERE_V4)
    first_v6 = next((each for each in own if ":" in each), None)
    v4 = _source_towards(socket.AF_INET) or first_v4
    v6 = _source_towards(socket.AF_INET6) or first_v6
    return Sources(v4, v6, tuple(each for each in own if each not in (v4, v6)))


def _source_towards(family: socket.AddressFamily) -> str | None:
    """The host's source address towards a distant destination. Nothing is sent."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((_PROBES[family], 9))
            address: str = probe.getsockname()[0]
    except OSError:
        return None
    return None if address in ("127.0.0.1", "::1") else address


def _own_addresses() -> list[str]:
    """The addresses by which others may reach this host, according to `ip`."""
    try:
        interfaces = json.loads(run("ip", "-json", "address"))
    except (MachineError, ValueError):
        return []
    rows = [row for interface in interfaces for row in interface.get("addr_info", ())]
    found = [row["local"] for row in rows if row.get("scope") == "global" and "local" in row]
    return list(dict.fromkeys(found))
