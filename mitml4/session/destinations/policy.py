"""Which connections are blocked, passed through or intercepted: one matcher for all options.

A pattern is a host with an optional port. It is compared with every known name and address of a
connection: SNI, the Host of a request, the logical target, the original destination, and its name
in DNS.

    example.com             this name and no other
    *.example.com           every name below it, at any depth; not example.com itself
    10.0.0.1  10.0.0.0/8    an address, a network
    2001:db8::/32           the same for IPv6; [2001:db8::]/32 where a port follows
    example.com:443  *:25   this port only

hosts.py knows the different ways in which programs read a host.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Literal, TypeAlias

from mitml4.dataclass import dataclass
from mitml4.errors import UsageError
from mitml4.printable import printable
from mitml4.protocols.policy import NOT_ALLOWED, Closed, End, PolicyDecision, Target, Unreadable
from mitml4.regex import regex
from mitml4.session.destinations.hosts import NAT64, Host, ascii_form, readings, written

__all__ = ["HostPattern", "LivePolicy", "Policy"]

Network: TypeAlias = IPv4Network | IPv6Network

_BRACKETED: Final = regex(r"\[(?P<ip>[^]]*)\](?P<length>/\d+)?(:(?P<port>.*))?")
_HOST: Final = regex(r"[^\s/\[\]:@]+")
_MAPPED: Final = IPv6Network("::ffff:0:0/96")  # RFC 4291 §2.5.5.2
# The IANA registries of special-purpose addresses, without those for documentation; and 6to4.
_SPECIAL: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
            *("172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15"),
            *("192.88.99.0/24", "224.0.0.0/4", "240.0.0.0/4"),
            "168.63.129.16/32",  # Azure's metadata
            *("::/3", "2001::/23", "2002::/16", "4000::/2", "8000::/1"),
        ),
    )
)
"""Networks whose addresses `--allow` has to name: what is not the public internet."""
_EXAMPLES: Final = "as in: example.com  '*.example.com'  10.0.0.0/8  '[2001:db8::]/32'  '*:8443'"


@dataclass(frozen=True, slots=True)
class HostPattern:
    """A pattern as the user wrote it, and its meaning."""

    text: str
    host: re.Pattern[str] | IPv4Network | IPv6Network
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> HostPattern:
        """Raises UsageError for invalid patterns."""
        if "://" in text:
            raise UsageError(f"{text!r} is a URL, not a host", hint=_EXAMPLES)
        if text.startswith("-"):  # the value was forgotten: `--allow -- pip install x`
            raise UsageError(f"{text!r} is an option, not a host", hint=_EXAMPLES)
        if bracketed := _BRACKETED.fullmatch(text):
            if ":" not in bracketed["ip"]:
                raise _no_pattern(text)
            network = _network(text, bracketed["ip"] + (bracketed["length"] or ""))
            if network is None:
                raise _no_pattern(text)
            return cls(text, network, _port(text, bracketed["port"]))
        host, colon, port = text.partition(":")
        if ":" in port:  # an IPv6 address without brackets has no port
            host, colon, port = text, "", ""
        stands_for = _network(text, host) or _glob(host)
        if stands_for is None:
            raise _no_pattern(text)
        return cls(text, stands_for, _port(text, port if colon else None))

    @classmethod
    def exactly(cls, host: str) -> HostPattern:
        """The pattern of one host at any port. `*` and `/` have no meaning in it, because the host
        may have been named by a client. Raises UsageError for what no program reads as a host."""
        found = written(host)
        if not found:
            raise UsageError(f"{printable(host)} is no host or address")
        return cls(host, _network(host, host) or _names(re.escape(str(found[0]))))

    def matches(self, end: End) -> bool:
        """Whether the pattern matches a host (a name or an address literal) and port."""
        if not isinstance(end, Target) or self.port not in (None, end.port):
            return False
        return any(map(self._is, readings(end.host)))

    def may_match(self, end: End) -> bool:
        """Like `matches`, but also true where the host cannot be read and might match."""
        if isinstance(end, Closed):
            return False
        if isinstance(end, Unreadable):
            return end.port is None or self.port in (None, end.port)
        return self.matches(end) or (self.port in (None, end.port) and not readings(end.host))

    def concerns(self, network: IPv4Network | IPv6Network) -> bool:
        """Whether it matches addresses of this network, at any port."""
        if isinstance(self.host, re.Pattern):
            return any(map(self._is, readings(str(network.broadcast_address))))
        return self.host.version == network.version and self.host.overlaps(network)

    def names(self, host: Host, port: int, special: Sequence[Network]) -> bool:
        """Whether it names this host for `--allow`: a glob names no address, and a network that is
        larger than a special one (private, loopback, …) names nothing in it."""
        if self.port not in (None, port):
            return False
        if isinstance(host, str):
            return isinstance(self.host, re.Pattern) and self._is(host)
        if isinstance(self.host, re.Pattern):
            return host.is_loopback and self.text.partition(":")[0] == "localhost"
        if not self._is(host):
            return False
        around = [each for each in special if each.version == host.version and host in each]
        return not around or any(_is_within(self.host, each) for each in around)

    def _is(self, host: Host) -> bool:
        if isinstance(self.host, re.Pattern):
            return self.host.fullmatch(str(host)) is not None
        return not isinstance(host, str) and host in self.host


_INTERCEPT: Final = PolicyDecision("intercept")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The options --block, --allow, --passthrough, --only and --tls. They are asked in this
    order."""

    allow: tuple[HostPattern, ...] = ()
    """If not empty, everything else is refused."""
    own: tuple[Network, ...] = ()
    """The addresses of this host, which `allow` has to name as it has to name private ones."""
    block: tuple[HostPattern, ...] = ()
    passthrough: tuple[HostPattern, ...] = ()
    only: tuple[HostPattern, ...] = ()
    """If not empty, TLS to other hosts is passed through."""
    tls: Literal["intercept", "passthrough"] = "intercept"

    @property
    def blocked_addresses(self) -> Iterator[tuple[IPv4Network | IPv6Network, int | None]]:
        """Blocked networks and ports, of the patterns that addresses alone can match."""
        for item in self.block:
            if not isinstance(item.host, re.Pattern):
                yield item.host, item.port
            elif item.host == _ANYTHING:
                yield from ((network, item.port) for network in _EVERYWHERE)

    def decide(self, ends: Sequence[End]) -> PolicyDecision:
        """What to do with a connection that is known by these names and addresses.

        Ask again whenever another one is known. `block` is final. The other actions are about TLS,
        and are to be asked for when the SNI has been seen.
        """
        for refused in self.block:
            if any(map(refused.may_match, ends)):
                return PolicyDecision("block", f"--block {refused.text}")
        if self.allow and not self._allows(ends):
            return PolicyDecision("block", NOT_ALLOWED)
        if self.passthrough and (pattern := _first_match(self.passthrough, ends)):
            return PolicyDecision("passthrough", f"--passthrough {pattern.text}")
        if self.only and not _first_match(self.only, ends):
            return PolicyDecision("passthrough", "--only")
        if self.tls == "passthrough":
            return PolicyDecision("passthrough", "--tls passthrough")
        return _INTERCEPT

    def allows_name(self, name: str) -> bool:
        """Whether DNS is asked for a name: it is allowed at some port."""
        hosts = written(name)
        return any(
            pattern.names(host, pattern.port or 0, ())
            for pattern in self.allow
            for host in hosts
            if isinstance(host, str)
        )

    def _allows(self, ends: Sequence[End]) -> bool:
        """Whether one of the ends is allowed, and none is an address that has to be named."""
        targets = [end for end in ends if isinstance(end, Target)]
        allowed = [target for target in targets if self._allows_target(target)]
        others = [target for target in targets if target not in allowed]
        return bool(allowed) and not any(map(self._is_special, others))

    def _allows_target(self, target: Target) -> bool:
        """An address has to be allowed in each of its readings, a name in one of its forms."""
        hosts, special = _readings(target.host), (*_SPECIAL, *self.own)
        by_host = [
            any(each.names(host, target.port, special) for each in self.allow) for host in hosts
        ]
        return bool(hosts) and (any if isinstance(hosts[0], str) else all)(by_host)

    def _is_special(self, target: Target) -> bool:
        """Whether it is an address that has to be named, whoever has given it."""
        addresses = (each for each in _readings(target.host) if not isinstance(each, str))
        return any(each in network for each in addresses for network in (*_SPECIAL, *self.own))


class LivePolicy:
    """The policy of a running session, to which a person may add hosts and remove them again."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._permitted: tuple[HostPattern, ...] = ()
        """If not empty, the names that the CA may sign."""

    def limit(self, domains: Iterable[str]) -> None:
        """Intercept only names that the CA may sign: clients refuse other certificates. No domains:
        it may sign all."""
        texts = (text for domain in domains for text in (domain, f"*.{domain}"))
        self._permitted = tuple(map(HostPattern.parse, texts))

    def protect(self, addresses: Iterable[str]) -> None:
        """The addresses of this host have to be named."""
        own = tuple(map(ipaddress.ip_network, addresses))
        self._policy = replace(self._policy, own=own)

    def allows_name(self, name: str) -> bool:
        """See `Policy.allows_name`."""
        return self._policy.allows_name(name)

    def decide(self, ends: Sequence[End]) -> PolicyDecision:
        """See `Policy.decide`."""
        decision = self._policy.decide(ends)
        if decision.action != "intercept" or not self._permitted:
            return decision
        if any(each.matches(ends[0]) for each in self._permitted):
            return decision
        return PolicyDecision("passthrough", "--permit-domain")

    def toggle(self, option: Literal["block", "passthrough"], host: str) -> bool:
        """Add a host to the patterns of an option, or remove it. Returns whether it is there now.

        Raises UsageError for what is no host.
        """
        pattern, policy = HostPattern.exactly(host), self._policy
        known = policy.block if option == "block" else policy.passthrough
        others = tuple(each for each in known if each != pattern)
        is_on = len(others) == len(known)
        patterns = (*others, pattern) if is_on else others
        if option == "block":
            self._policy = replace(policy, block=patterns)
        else:
            self._policy = replace(policy, passthrough=patterns)
        return is_on


def _first_match(patterns: Iterable[HostPattern], ends: Sequence[End]) -> HostPattern | None:
    return next((item for item in patterns if any(map(item.matches, ends))), None)


def _readings(host: str) -> tuple[Host, ...]:
    """The readings of a host; of an IPv4 address in an IPv6 one, only the former."""
    return tuple(
        each
        for each in written(host)
        if not isinstance(each, IPv6Address) or not (each.ipv4_mapped or each in NAT64)
    )


def _is_within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)


def _glob(host: str) -> re.Pattern[str] | None:
    """`*` matches any characters, including dots; nothing else is special."""
    name = ascii_form(host) if _HOST.fullmatch(host) else None
    if name is None or not written(name.replace("*", "x")):
        return None
    return _names(".*".join(map(re.escape, name.split("*"))))


def _names(expression: str) -> re.Pattern[str]:
    return re.compile(expression, re.DOTALL)  # noqa: TID251 `isinstance` tells it from a network


_ANYTHING: Final = _glob("*")
_EVERYWHERE: Final = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


def _network(text: str, host: str) -> IPv4Network | IPv6Network | None:
    """The host of a pattern as a network; None if it is a name."""
    addresses = [each for each in written(host) if not isinstance(each, str)]
    if len(addresses) > 1 and isinstance(addresses[0], IPv4Address):
        raise UsageError(
            f"{text!r} is {addresses[0]} to some programs, and {addresses[1]} to others",
            hint=f"--block {addresses[0]}",
        )
    try:
        network = ipaddress.ip_network(addresses[0] if addresses else host, strict=False)
    except ValueError:
        return None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        inside = int(network.network_address) & 0xFFFFFFFF
        return IPv4Network((inside, network.prefixlen - _MAPPED.prefixlen))
    return network


def _port(text: str, port: str | None) -> int | None:
    if port is None:
        return None
    # `isdecimal` alone accepts digits of other scripts.
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise UsageError(f"{text!r}: {port!r} is no port", hint="ports are 1 to 65535")
    return int(port)


def _no_pattern(text: str) -> UsageError:
    return UsageError(f"{text!r} is no host, address or network", hint=_EXAMPLES)
