"""Names as programs in another network namespace resolve them: by the hosts file and the resolvers
of a container, which are asked from inside its network (resolv.conf(5), hosts(5))."""

from __future__ import annotations

import errno
import ipaddress
import secrets
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import trio

from mitml4.dataclass import dataclass
from mitml4.net.attach.root import Root
from mitml4.net.namespace.dns import resolvers_of
from mitml4.net.namespace.dns_message import addresses_in
from mitml4.net.place import Place

__all__ = ["NameFiles", "Resolver"]

_HOSTS, _RESOLV_CONF = "/etc/hosts", "/etc/resolv.conf"
_OF_NAMESPACE: Final = Path("/etc/netns")  # ip-netns(8)
_LONGEST: Final = 1 << 20
_MAX_MESSAGE: Final = 1 << 16
_KINDS: Final = (1, 28)  # A (RFC 1035), AAAA (RFC 3596)
_QUESTION: Final = struct.Struct("!6H")  # RFC 1035 §4.1.1
_RECURSION_DESIRED: Final = 0x0100
_IN: Final = 1
_PORT: Final = 53
_TIMEOUT_S: Final = 2.5
_ATTEMPTS: Final = 2


@dataclass(frozen=True, slots=True)
class NameFiles:
    """What a hosts file and a resolv.conf say."""

    hosts: str
    resolv_conf: str

    @classmethod
    def of(cls, root: Root | None, namespace: Path | None) -> Self:
        """Those of a container; otherwise those for a namespace that has a name, or this host's."""
        if root:
            texts = (root.read(each, _LONGEST) or b"" for each in (_HOSTS, _RESOLV_CONF))
            return cls(*(text.decode(errors="replace") for text in texts))
        texts_here = []
        for each in (_HOSTS, _RESOLV_CONF):
            own = _OF_NAMESPACE / namespace.name / Path(each).name if namespace else Path(each)
            file = own if own.exists() else Path(each)
            with suppress(OSError):
                texts_here.append(file.read_text(errors="replace"))
                continue
            texts_here.append("")
        return cls(*texts_here)

    def addresses(self, name: str) -> list[str]:
        """In the hosts file."""
        rows = (line.partition("#")[0].split() for line in self.hosts.splitlines())
        return [row[0] for row in rows if name in (each.lower() for each in row[1:])]

    def candidates(self, name: str) -> list[str]:
        """The names to ask for, in turn."""
        rows = (line.split() for line in self.resolv_conf.splitlines())
        search: list[str] = []
        for row in rows:
            if row and row[0] in ("search", "domain"):
                search = row[1:]
        longer = [f"{name}.{each.strip('.')}" for each in search]
        return [name, *longer] if "." in name else [*longer, name]


class Resolver(trio.abc.HostnameResolver):
    """For `trio.socket.set_custom_hostname_resolver`."""

    def __init__(self, place: Place, files: NameFiles) -> None:
        self._place = place
        self._files = files

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """Addresses of both families, as socket.getaddrinfo gives them. Raises socket.gaierror."""
        name = (host or b"").decode("ascii", "replace").lower().rstrip(".")
        found = self._files.addresses(name) or await self._ask_for(name)
        return [
            (socket.AF_INET6, type, proto, "", (ip, int(port or 0), 0, 0))
            if ":" in ip
            else (socket.AF_INET, type, proto, "", (ip, int(port or 0)))
            for ip in found
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        """Nobody asks for it."""
        raise OSError(errno.EOPNOTSUPP, "not supported")

    async def _ask_for(self, name: str) -> list[str]:
        for candidate in self._files.candidates(name):
            if found := await self._ask_all(candidate):
                return found
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def _ask_all(self, name: str) -> list[str]:
        """The addresses of a name, from the first resolver that answers; those of IPv4 first."""
        resolvers = resolvers_of(self._files.resolv_conf)
        for resolver in resolvers * _ATTEMPTS:
            with trio.move_on_after(_TIMEOUT_S), suppress(OSError):
                answers = [await self._ask(resolver, name, kind) for kind in _KINDS]
                return [ip for answer in answers for ip, _ in addresses_in(answer)]
        return []

    async def _ask(self, resolver: str, name: str, kind: int) -> bytes:
        """Raises OSError, or waits forever."""
        query = _query(name, kind)
        address = ipaddress.ip_address(resolver)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        with trio.socket.from_stdlib_socket(self._place.socket(family, socket.SOCK_DGRAM)) as sock:
            await sock.connect((resolver, _PORT))
            await sock.send(query)
            while True:
                answer = await sock.recv(_MAX_MESSAGE)
                if answer[:2] == query[:2] and answer[12 : len(query)] == query[12:]:
                    return answer


def _query(name: str, kind: int) -> bytes:
    number = secrets.randbits(16)
    return (
        _QUESTION.pack(number, _RECURSION_DESIRED, 1, 0, 0, 0)
        + b"".join(_labels(name))
        + struct.pack("!BHH", 0, kind, _IN)
    )


def _labels(name: str) -> Iterator[bytes]:
    for label in name.encode().split(b"."):
        if not 0 < len(label) < 64:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        yield bytes([len(label)]) + label
