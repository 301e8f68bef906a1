"""Which connections go through which proxies: --via, --no-via, and the environment of `run`.

The first of these that concerns a connection decides:

    1. it is to a loopback address, or to the first proxy of a chain     direct
    2. --no-via HOST                                                     direct
    3. --via HOST=URL                                                    these proxies, in order
    4. --no-via '*'                                                      direct
    5. --via URL                                                         these proxies, in order
    6. NO_PROXY                                                          direct
    7. HTTP_PROXY for port 80, HTTPS_PROXY for port 443, ALL_PROXY       this proxy
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import field
from typing import Final, TypeAlias

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.errors import UsageError
from mitml4.protocols.policy import Target
from mitml4.session.destinations.hosts import readings
from mitml4.session.destinations.policy import HostPattern
from mitml4.via.proxy import Proxy

__all__ = ["Chain", "Routes", "Via", "routes_of"]

Chain: TypeAlias = tuple[Proxy, ...]
"""Proxies in the order in which a connection goes through them; none: it is direct."""

_VARIABLES: Final = {80: "HTTP_PROXY", 443: "HTTPS_PROXY"}
_FOR_ALL: Final = "ALL_PROXY"
_EXCEPTIONS: Final = "NO_PROXY"


@dataclass(frozen=True, slots=True)
class Via:
    """A value of --via."""

    host: HostPattern | None
    """None: all hosts."""
    proxy: Proxy

    @classmethod
    def parse(cls, text: str) -> Via:
        """From `URL` or `HOST=URL`. Raises UsageError."""
        before, separator, rest = text.partition("://")
        host, equals, scheme = before.rpartition("=")
        proxy = Proxy.parse(f"{scheme}{separator}{rest}")
        return cls(HostPattern.parse(host) if equals else None, proxy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """The routes of a session."""

    direct: tuple[HostPattern, ...] = ()
    by_host: tuple[tuple[HostPattern, Chain], ...] = ()
    everywhere: Chain = ()
    by_variable: Mapping[str, Proxy] = field(default_factory=dict)
    """By the name of the variable of the environment, in upper case."""
    exceptions: tuple[HostPattern, ...] = ()
    """Of NO_PROXY."""

    def __bool__(self) -> bool:
        return bool(self.by_host or self.everywhere or self.by_variable)

    @property
    def nearest(self) -> set[Proxy]:
        """The proxies that are connected to directly."""
        chains = [self.everywhere, *(chain for _, chain in self.by_host)]
        return {chain[0] for chain in chains if chain} | set(self.by_variable.values())

    def through(self, ends: Sequence[Target]) -> Chain:
        """The proxies for a connection that is known by these names and addresses."""
        if _matches(self.direct, ends):
            return ()
        for pattern, chain in self.by_host:
            if _matches((pattern,), ends):
                return chain
        if self.everywhere:
            return self.everywhere
        if _matches(self.exceptions, ends):
            return ()
        variable = _VARIABLES.get(ends[0].port, _FOR_ALL)
        proxy = self.by_variable.get(variable) or self.by_variable.get(_FOR_ALL)
        return (proxy,) if proxy else ()

    def leads_to(self, destination: Address, name: str | None = None) -> bool:
        """Whether this is one of the nearest proxies, as far as that is known without a lookup."""
        here = {*readings(destination.ip), *(readings(name) if name else ())}
        return any(
            proxy.port == destination.port and not here.isdisjoint(readings(proxy.host))
            for proxy in self.nearest
        )

    def described(self) -> tuple[str, ...]:
        """One line for each route, as `session.start` says it."""
        return (
            *(f"{pattern.text}={_told(chain)}" for pattern, chain in self.by_host),
            *((_told(self.everywhere),) if self.everywhere else ()),
            *(f"{name}={proxy}" for name, proxy in self.by_variable.items()),
        )

    def notes(self) -> Iterator[str]:
        """The same for the user."""
        for pattern, chain in self.by_host:
            yield f"connections to {pattern.text} go through {_told(chain)}"
        if self.everywhere:
            yield f"connections go through {_told(self.everywhere)}"
        ports = {name: f" to port {port}" for port, name in _VARIABLES.items()}
        for name, proxy in self.by_variable.items():
            yield f"connections{ports.get(name, '')} go through {proxy} ({name}; see --no-via)"


def routes_of(
    vias: Iterable[Via], exceptions: Iterable[HostPattern], environ: Mapping[str, str]
) -> Routes:
    """From the values of --via and --no-via, and the environment (empty: it has no say). Raises
    UsageError."""
    everywhere: list[Proxy] = []
    by_host: dict[HostPattern, list[Proxy]] = {}
    for via in vias:
        (everywhere if via.host is None else by_host.setdefault(via.host, [])).append(via.proxy)
    exceptions = tuple(exceptions)
    direct = tuple(each for each in exceptions if each.text != "*")
    has_general_exception = len(direct) < len(exceptions)
    if has_general_exception and everywhere:
        raise UsageError(
            "--no-via '*' leaves nothing that goes through --via URL",
            hint="leave out one of them, or name hosts: --via HOST=URL",
        )
    asks_environment = not (everywhere or has_general_exception)
    by_variable = dict(_by_variable(environ)) if asks_environment else {}
    return Routes(
        direct=direct,
        by_host=tuple((pattern, tuple(chain)) for pattern, chain in by_host.items()),
        everywhere=tuple(everywhere),
        by_variable=by_variable,
        exceptions=tuple(_exceptions(environ)) if by_variable else (),
    )


def _by_variable(environ: Mapping[str, str]) -> Iterator[tuple[str, Proxy]]:
    for name in (*_VARIABLES.values(), _FOR_ALL):
        # As curl and Python read them: the lower-case name first, and http:// by default.
        if url := (environ.get(name.lower()) or environ.get(name) or "").strip():
            try:
                yield name, Proxy.parse(url if "://" in url else f"http://{url}")
            except UsageError as error:
                hint = "--no-via '*' lets mitml4 ignore such variables"
                raise UsageError(f"{name}: {error.message}", hint=hint) from None


def _exceptions(environ: Mapping[str, str]) -> Iterator[HostPattern]:
    """NO_PROXY as most programs read it: `example.com` and `.example.com` stand for the names below
    it too, and what is no host is ignored."""
    text = environ.get(_EXCEPTIONS.lower()) or environ.get(_EXCEPTIONS) or ""
    for each in text.replace(",", " ").split():
        host = each.removeprefix("*").removeprefix(".") if each != "*" else each
        with suppress(UsageError):
            pattern = HostPattern.parse(host)
            yield pattern
            if host != "*" and isinstance(pattern.host, re.Pattern):
                yield HostPattern.parse(f"*.{host}")


def _matches(patterns: Iterable[HostPattern], ends: Sequence[Target]) -> bool:
    return any(pattern.matches(end) for pattern in patterns for end in ends)


def _told(chain: Chain) -> str:
    return " › ".join(map(str, chain))
