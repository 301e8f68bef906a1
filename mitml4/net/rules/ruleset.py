"""The session's nftables table as text: a pure function of what is in scope and who we are.

One `inet` table serves IPv4 and IPv6. It is loaded with the `owner` flag, so it belongs to the
netlink socket of the guard (guard.py) and the kernel removes it with that socket.

    gate       postrouting, behind everybody else: the SYN of a connection in scope has passed the
    scope        rules and routes of others. It is shown to us (`log`) twice, as it leaves and as
    hold         it came, and dropped. What becomes of the connection is up to us (channel.py).
                 What could get past that without a proper SYN is dropped.
    refused    prerouting: answers the clients that are to be refused
    own        output: our own connections to the servers, which no session intercepts
    input      lets nobody reach the listener who was not sent there
    nat        is empty: the kernel translates addresses only while somebody has such a chain
    quic_…     refuses QUIC, so that its clients fall back to TCP

Why at the end of postrouting: what drops, rejects or routes away the first packet of a connection
without us does so with us. A chain before that (TPROXY's is prerouting) takes connections that the
host would not have forwarded. Why a SYN is asked for besides `ct state new`: conntrack calls the
first packet that it sees of any old connection new.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Final

from mitml4.net.identity import ANY_OWN_MARK, FOREIGN_MASK, KIND_MASK, OUR_MASK, Identity
from mitml4.net.rules.scope import Ends, PortRange, Scope

__all__ = ["AS_IT_CAME", "AS_IT_LEAVES", "Ruleset"]

AS_IT_CAME: Final = "came"
AS_IT_LEAVES: Final = "leaves"
"""The prefixes of a SYN in the log."""

_QUIC_PORT: Final = 443

# Behind source translation (100), and before the entry of conntrack is confirmed (2^31 - 1): it
# vanishes with the packet.
_GATE_PRIORITY: Final = 2**31 - 2
# Just behind conntrack (-200), before anybody changes a mark.
_MARKS_PRIORITY: Final = -199
_FILTER_PRIORITY: Final = -1
_INPUT_PRIORITY: Final = 10

_FLAGS: Final = "tcp flags & (fin | syn | rst | ack)"
# What no host sends to begin or to carry on a connection, and some take for a beginning all the
# same. A SYN that is invalid has a wrong checksum. Others that are, and those that conntrack has
# not seen the beginning of, may belong to connections that were open before.
_MALFORMED: Final = (
    "tcp flags & (fin | syn) == fin | syn drop",
    "tcp flags & (syn | rst) == syn | rst drop",
    "tcp flags & (fin | ack) == fin drop",
    "tcp flags & (fin | syn | rst | psh | ack | urg) == 0x0 drop",
    f"{_FLAGS} == syn ct state invalid drop",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruleset:
    """A session's table."""

    scope: Scope
    identity: Identity
    port: int
    """Of the listener."""
    indexes: tuple[int, ...] = ()
    """Of the scope's interfaces."""
    ipv6: bool = True
    is_trial: bool = False
    """Whether it is for connections of the session's own, which prove the rest of it: they are held
    before the rules of others, which are for other connections."""

    @property
    def text(self) -> str:
        """The whole table, for `nft -f`."""
        body = "".join(
            f"\n\tchain {name} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n"
            for name, lines in self._chains()
        )
        counter = "\tcounter quic { }\n" if self.blocks_quic else ""
        return f"table inet {self.identity.table} {{\n\tflags owner\n{counter}{body}}}\n"

    @property
    def stop_intake(self) -> str:
        """The statements that end the interception of new connections, and keep the open ones,
        which live by their entries in conntrack."""
        return "".join(
            f"flush chain inet {self.identity.table} {name}\n"
            for name, _ in self._chains()
            if name.startswith(("gate", "quic"))
        )

    @property
    def resume_intake(self) -> str:
        """The statements that begin it again."""
        rules = (
            f"add rule inet {self.identity.table} {name} {line}\n"
            for name, (_, *lines) in self._chains()
            if name.startswith(("gate", "quic"))
            for line in lines
        )
        return self.stop_intake + "".join(rules)

    @property
    def count_quic(self) -> str:
        """The statement that prints how many QUIC packets were refused."""
        return f"list counter inet {self.identity.table} quic"

    @property
    def blocks_quic(self) -> bool:
        return self.scope.quic == "block" and self.scope.covers_port(_QUIC_PORT)

    def _chains(self) -> Iterator[tuple[str, list[str]]]:
        scope = self.scope
        yield "hold", self._hold()
        yield "scope", self._scope()
        if self.is_trial:
            yield "gate_forwarded", self._gate("prerouting", _MARKS_PRIORITY, "iifname")
            yield "gate_local", self._gate("output", _MARKS_PRIORITY, "oifname")
        else:
            yield "gate", self._gate("postrouting", _GATE_PRIORITY, *self._crossing())
        yield "refused", self._refused()
        yield "own", self._own()
        yield "input", self._input()
        yield "nat", ["type nat hook output priority 0; policy accept"]
        if self.blocks_quic and scope.forwarded:
            yield "quic_forwarded", self._quic("forward", "iifname", "oifname")
        if self.blocks_quic and scope.local:
            yield "quic_local", self._quic("output", "oifname")

    def _crossing(self) -> list[str]:
        """What matches a packet that enters or leaves by an interface of the scope."""
        if not self.scope.local:
            return ["iifname", "iif != 0 oifname"]
        if not self.scope.forwarded:
            return ["iif 0 oifname"]
        return ["iifname", "oifname"]

    def _gate(self, hook: str, priority: int, *matches: str) -> list[str]:
        return [
            f"type filter hook {hook} priority {priority}; policy accept",
            "meta l4proto != tcp accept",
            "ct state established,related accept",
            # Of any session: two of them would hand a connection to each other for ever.
            f"ct mark and {KIND_MASK:#x} == {ANY_OWN_MARK:#x} accept",
            *(f"{match} goto scope" for match in self._by_interface(*matches)),
        ]

    def _scope(self) -> list[str]:
        return [
            *self._outside_ports(),
            *self._outside(),
            # One that others track apart from the rest is not found by what is sent again.
            "ct zone != 0 return",
            f"{_FLAGS} == syn ct state new goto hold",
            *_MALFORMED,
            *map(_drop, self.scope.blocked),
        ]

    def _hold(self) -> list[str]:
        group = self.identity.log_group
        return [
            # It was to be refused, and has lost its mark: its client will ask again.
            'iifname "lo" drop',
            f'log group {group} prefix "{AS_IT_LEAVES}"',
            "ip saddr set ct original ip saddr",
            "ip daddr set ct original ip daddr",
            "ip6 saddr set ct original ip6 saddr",
            "ip6 daddr set ct original ip6 daddr",
            "tcp sport set ct original proto-src",
            "tcp dport set ct original proto-dst",
            "meta mark set ct mark",  # which the log shows
            f'log group {group} prefix "{AS_IT_CAME}"',
            "drop",
        ]

    def _refused(self) -> list[str]:
        refused, unreachable = self.identity.refused_mark, self.identity.unreachable_mark
        return [
            f"type filter hook prerouting priority {_MARKS_PRIORITY}; policy accept",
            f"{_is('meta', refused)} reject with tcp reset",
            f"{_is('meta', unreachable)} reject with icmpx type host-unreachable",
        ]

    def _own(self) -> list[str]:
        # A connection keeps its mark where others change that of a packet.
        mark = self.identity.own_mark
        return [
            f"type filter hook output priority {_MARKS_PRIORITY}; policy accept",
            f"{_is('meta', mark)} ct mark set ct mark and {FOREIGN_MASK:#x} or {mark:#x}",
        ]

    def _input(self) -> list[str]:
        return [
            f"type filter hook input priority {_INPUT_PRIORITY}; policy accept",
            "ct status dnat accept",
            # As if nobody listened there.
            f"tcp dport {self.port} reject with tcp reset",
        ]

    def _quic(self, hook: str, *matches: str) -> list[str]:
        return [
            f"type filter hook {hook} priority {_FILTER_PRIORITY}; policy accept",
            "meta l4proto != udp return",
            f"udp dport != {_QUIC_PORT} return",
            *self._outside(),
            *(
                f"{match} ct state new counter name quic reject"
                for match in self._by_interface(*matches)
            ),
        ]

    def _by_interface(self, *matches: str) -> Iterator[str]:
        """Each for the interfaces of the scope: by their names, which one that comes back has
        again, and by their indexes, which one keeps that is renamed."""
        names = ", ".join(f'"{name}"' for name in self.scope.interfaces)
        indexes = ", ".join(map(str, self.indexes))
        for match in matches:
            yield f"{match} {{ {names} }}"
            if indexes:
                yield f"{match.removesuffix('name')} {{ {indexes} }}"

    def _outside_ports(self) -> Iterator[str]:
        if self.scope.ports:
            yield f"tcp dport != {_elements(self.scope.ports)} return"
        if self.scope.exclude_ports:
            yield f"tcp dport {_elements(self.scope.exclude_ports)} return"

    def _outside(self) -> Iterator[str]:
        """Return for hosts that are not in scope, whatever the port."""
        if self.ipv6:
            # Without its interface a link-local destination means nothing to our connection.
            yield "ip6 daddr fe80::/10 return"
        else:
            yield "meta nfproto ipv6 return"
        yield from _outside_networks(self.scope.to, "{} daddr")
        # Behind source translation the packet has another.
        yield from _outside_networks(self.scope.from_, "ct original {} saddr")


def _outside_networks(networks: Sequence[IPv4Network | IPv6Network], field: str) -> Iterator[str]:
    if not networks:
        return
    v4 = list(collapse_addresses(item for item in networks if isinstance(item, IPv4Network)))
    v6 = list(collapse_addresses(item for item in networks if isinstance(item, IPv6Network)))
    for family, protocol, members in (("ipv4", "ip", v4), ("ipv6", "ip6", v6)):
        if members:
            yield f"{field.format(protocol)} != {{ {', '.join(map(str, members))} }} return"
        else:
            yield f"meta nfproto {family} return"


def _elements(ranges: Iterable[PortRange]) -> str:
    """An anonymous set. nft refuses intervals that overlap, so they are merged."""
    merged: list[PortRange] = []
    for item in sorted(ranges):
        if merged and item.first <= merged[-1].last + 1:
            merged[-1] = PortRange(merged[-1].first, max(merged[-1].last, item.last))
        else:
            merged.append(item)
    return f"{{ {', '.join(map(str, merged))} }}"


def _drop(ends: Ends) -> str:
    port = "" if ends.port is None else f"tcp dport {ends.port} "
    return f"{'ip' if ends.network.version == 4 else 'ip6'} daddr {ends.network} {port}drop"


def _is(what: str, mark: int) -> str:
    return f"{what} mark and {OUR_MASK:#x} == {mark:#x}"
