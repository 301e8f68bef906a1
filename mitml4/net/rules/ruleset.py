"""The session's nftables table as text: a pure function of the scope and the session's identity.

One `inet` table serves IPv4 and IPv6. It is loaded with the flag `owner`, so it belongs to the
netlink socket of the guard (guard.py), and the kernel removes it with that socket.

    gate       postrouting, after all others: the SYN of a connection in scope has passed the
    scope        rules and routes of others. It is logged to us and dropped. If others have changed
    hold         it, it is logged twice, as it leaves and as it arrived. We decide about the
                 connection (channel.py). The number of SYNs of one client is limited, because the
                 log may overflow, and would then lose the SYNs of any client. Packets that could
                 get past this without a proper SYN are dropped.
    refused    prerouting: answers the clients that are to be refused
    own        output: remembers the SYNs of our own connections, which no session intercepts
    input      permits only connections that we have sent to the listener
    nat        is empty: the kernel translates addresses only while such a chain exists
    owned      output, if users or cgroups are in scope: remembers the SYNs of these, by the chain
      owned_N    of each, since only here rules can match cgroups; the gate passes all others
    quic_…     refuses QUIC, so that its clients fall back to TCP: by `datagrams`

The gate is at the end of postrouting, so that it sees only packets that the rules of others have
not dropped, rejected or rerouted. An earlier chain (TPROXY's is prerouting) would intercept
connections that the host would not have forwarded. The rules match a SYN in addition to `ct state
new`, because conntrack calls the first packet that it sees of an old connection new.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Final

from mitml4.address import CA_PAGE
from mitml4.dataclass import dataclass
from mitml4.net.gate.quic import QUIC_SETS, refusal_of_quic
from mitml4.net.identity import ANY_OWN_MARK, KIND_MASK, OUR_MASK, Identity
from mitml4.net.rules.scope import Ends, Owner, PortRange, Scope

__all__ = ["AS_IT_CAME", "AS_IT_LEAVES", "UNCHANGED", "Ruleset"]

AS_IT_CAME: Final = "came"
AS_IT_LEAVES: Final = "leaves"
UNCHANGED: Final = "unchanged"
"""The log prefixes of a SYN."""

_QUIC_PORT: Final = 443

# After source translation (100), and before conntrack confirms its entry (2^31 - 1), which is
# discarded with the packet.
_GATE_PRIORITY: Final = 2**31 - 2
# Right after conntrack (-200).
_MARKS_PRIORITY: Final = -199
# Before all others, who may change a mark.
_OWN_PRIORITY: Final = -(2**31)
_FILTER_PRIORITY: Final = -1
_INPUT_PRIORITY: Final = 10

_MAX_OF_A_CLIENT: Final = 2000
_MAX_TOWARDS_A_SERVER: Final = 1000
"""The number of SYNs at once, and twice the number a second: more than we can handle."""
_MAX_COUNTED: Final = 65_536
"""The number of clients, and of pairs of client and server. Further ones are not limited."""

_FLAGS: Final = "tcp flags & (fin | syn | rst | ack)"
_SYN: Final = f"{_FLAGS} == syn"
# Packets that no host sends to start or continue a connection, but some hosts take for a start. An
# invalid SYN has a wrong checksum. Other invalid packets, and packets whose start conntrack has not
# seen, may belong to connections that were open before.
_MALFORMED: Final = (
    "tcp flags & (fin | syn) == fin | syn drop",
    "tcp flags & (syn | rst) == syn | rst drop",
    "tcp flags & (fin | ack) == fin drop",
    "tcp flags & (fin | syn | rst | psh | ack | urg) == 0x0 drop",
    f"{_SYN} ct state invalid drop",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruleset:
    """A session's table."""

    scope: Scope
    identity: Identity
    port: int
    """The listener's."""
    indexes: tuple[int, ...] = ()
    """Those of the scope's interfaces."""
    ipv6: bool = True
    is_trial: bool = False
    """Whether it is for test connections, which are held before the rules of others, since those
    are for other connections."""

    @property
    def text(self) -> str:
        """The whole table, for `nft -f`."""
        body = "".join(
            f"\n\tchain {name} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n"
            for name, lines in self._chains()
        )
        counter = "\tcounter quic { }\n" if self.blocks_quic else ""
        kinds = (
            *_sets(),
            *((_OWNED_SYNS,) if self.scope.owners else ()),
            *(QUIC_SETS if self.blocks_quic else ()),
        )
        sets = "".join(f"\tset {name} {{ {what} }}\n" for name, what in kinds)
        return f"table inet {self.identity.table} {{\n\tflags owner\n{counter}{sets}{body}}}\n"

    @property
    def stop_interception(self) -> str:
        """The statements that stop the interception of new connections. Open ones continue, because
        they use their conntrack entries."""
        return "".join(
            f"flush chain inet {self.identity.table} {name}\n"
            for name, _ in self._chains()
            if name.startswith(("gate", "quic"))
        )

    @property
    def resume_interception(self) -> str:
        """The statements that start it again."""
        rules = (
            f"add rule inet {self.identity.table} {name} {line}\n"
            for name, (_, *lines) in self._chains()
            if name.startswith(("gate", "quic"))
            for line in lines
        )
        return self.stop_interception + "".join(rules)

    def renewal(self, number: int) -> str:
        """The statements that let the rule for an owner in scope match again, once that has come
        anew. nft refuses them while it is not there."""
        table, chain = self.identity.table, _owned(number)
        rule = f"{_by(self.scope.owners[number])} goto chosen"
        return f"flush chain inet {table} {chain}\nadd rule inet {table} {chain} {rule}\n"

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
        if self.blocks_quic:
            yield "datagrams", refusal_of_quic(self.identity.quic_group)
        if scope.owners:
            yield "chosen", self._chosen()
            for number, owner in enumerate(scope.owners):
                yield _owned(number), [f"{_by(owner)} goto chosen"]
            yield "owned", self._owned()
        if self.blocks_quic and scope.forwarded:
            yield "quic_forwarded", self._quic("forward", *self._forwarding())
        if self.blocks_quic and scope.local:
            yield "quic_local", self._quic("output", "oifname")

    def _crossing(self) -> list[str]:
        """Matches packets that enter or leave through an interface of the scope."""
        if not self.scope.interfaces:  # what enters leaves again, and not through `lo`
            only = {"forwarded": "iif != 0 ", "local": "iif 0 ", "both": ""}
            return [f"{only[self.scope.direction]}oifname"]
        if not self.scope.local:
            return ["iifname", "iif != 0 oifname"]
        if not self.scope.forwarded:
            return ["iif 0 oifname"]
        return ["iifname", "oifname"]

    def _forwarding(self) -> list[str]:
        return ["iifname", "oifname"] if self.scope.interfaces else ["oifname"]

    def _gate(self, hook: str, priority: int, *matches: str) -> list[str]:
        return [
            f"type filter hook {hook} priority {priority}; policy accept",
            "meta l4proto != tcp accept",
            "ct state established,related accept",
            f"iif 0 {_SYN} tcp sequence @own_syns accept",
            *(f"{match} goto scope" for match in self._by_interface(*matches)),
        ]

    def _scope(self) -> list[str]:
        scope = self.scope
        # A packet that is sent again would not find its entry in another zone.
        # A SYN with a confirmed entry passed before the session, and has not been answered yet.
        hold = f"{_SYN} ct state new ct zone 0 ct status & confirmed == 0 goto hold"
        return [
            *(["tcp sequence != @owned_syns return"] if scope.owners else ()),
            *self._outside_clients(),
            *([f"ip daddr {CA_PAGE.ip} tcp dport {CA_PAGE.port} {hold}"] if scope.ca_page else ()),
            *self._outside_ports(),
            *self._outside_servers(),
            hold,
            *_MALFORMED,
            *map(_drop, scope.blocked),
        ]

    def _hold(self) -> list[str]:
        group = self.identity.log_group
        return [
            # It was to be refused, and has lost its mark; its client will retransmit.
            'iifname "lo" drop',
            *_limits(),
            # A SYN that nobody has changed is logged once.
            f'ct mark 0 ct status & (snat | dnat) == 0 log group {group} prefix "{UNCHANGED}" drop',
            f'log group {group} prefix "{AS_IT_LEAVES}"',
            "ip saddr set ct original ip saddr",
            "ip daddr set ct original ip daddr",
            "ip6 saddr set ct original ip6 saddr",
            "ip6 daddr set ct original ip6 daddr",
            "tcp sport set ct original proto-src",
            "tcp dport set ct original proto-dst",
            "meta mark set ct mark",  # the log shows it
            f'log group {group} prefix "{AS_IT_CAME}"',
            "drop",
        ]

    def _refused(self) -> list[str]:
        refused, unreachable = self.identity.refused_mark, self.identity.unreachable_mark
        return [
            f"type filter hook prerouting priority {_MARKS_PRIORITY}; policy accept",
            # With net.ipv4.fwmark_reflect the answer has the mark too.
            f"{_SYN} {_is_marked(refused)} reject with tcp reset",
            f"{_SYN} {_is_marked(unreachable)} reject with icmpx type host-unreachable",
        ]

    def _own(self) -> list[str]:
        return [
            f"type filter hook output priority {_OWN_PRIORITY}; policy accept",
            # Of any session: otherwise two sessions would pass a connection to each other in a
            # loop.
            f"{_SYN} meta mark and {KIND_MASK:#x} == {ANY_OWN_MARK:#x}"
            " update @own_syns { tcp sequence }",
        ]

    def _owned(self) -> list[str]:
        return [
            f"type filter hook output priority {_OWN_PRIORITY + 1}; policy accept",
            *(f"{_SYN} jump {_owned(number)}" for number in range(len(self.scope.owners))),
        ]

    def _chosen(self) -> list[str]:
        tcp = "meta l4proto tcp update @owned_syns { tcp sequence } return"
        return [tcp, *(["counter name quic goto datagrams"] if self.blocks_quic else [])]

    def _input(self) -> list[str]:
        return [
            f"type filter hook input priority {_INPUT_PRIORITY}; policy accept",
            "ct status dnat accept",
            # As if nothing listened there.
            f"tcp dport {self.port} reject with tcp reset",
        ]

    def _quic(self, hook: str, *matches: str) -> list[str]:
        return [
            f"type filter hook {hook} priority {_FILTER_PRIORITY}; policy accept",
            "meta l4proto != udp return",
            f"udp dport != {_QUIC_PORT} return",
            *self._outside_clients(),
            *self._outside_servers(),
            *(
                f"{match} ct state new {fate}"
                for match in self._by_interface(*matches)
                for fate in self._fates_of_quic()
            ),
        ]

    def _fates_of_quic(self) -> list[str]:
        if not self.scope.owners:
            return ["counter name quic goto datagrams"]
        return [f"jump {_owned(number)}" for number in range(len(self.scope.owners))]

    def _by_interface(self, *matches: str) -> Iterator[str]:
        """Each match for the interfaces of the scope: by name, which an interface that returns has
        again, and by index, which a renamed interface keeps."""
        if not self.scope.interfaces:
            yield from (f'{match} != "lo"' for match in matches)
            return
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

    def _outside_clients(self) -> Iterator[str]:
        """Return for clients that are not in scope."""
        # After source translation the packet has another address.
        yield from _outside_networks(self.scope.from_, "ct original {} saddr")

    def _outside_servers(self) -> Iterator[str]:
        """Return for servers that are not in scope, whatever the port."""
        if self.ipv6:
            # A link-local destination is meaningless to our connection without its interface.
            yield "ip6 daddr fe80::/10 return"
        else:
            yield "meta nfproto ipv6 return"
        yield from _outside_networks(self.scope.to, "{} daddr")


def _owned(number: int) -> str:
    """The chain of an owner."""
    return f"owned_{number}"


def _by(owner: Owner) -> str:
    """Matches what sockets of a user, or of a cgroup and those inside of it, send."""
    if isinstance(owner, int):
        return f"meta skuid {owner}"
    return f'socket cgroupv2 level {owner.level} "{owner.known_to_nft_as}"'


_OWNED_SYNS: Final = (
    "owned_syns",
    "typeof tcp sequence; size 65535; flags dynamic, timeout; timeout 1s;",
)


def _sets() -> Iterator[tuple[str, str]]:
    """The sets that count the SYNs of each client, and of each client towards one server; and the
    SYNs of our own connections, by the only thing that others do not change before the gate."""
    yield "own_syns", "typeof tcp sequence; size 65535; flags dynamic, timeout; timeout 1s;"
    counts = f"flags dynamic; size {_MAX_COUNTED}; timeout 10s;"
    for family in ("ipv4", "ipv6"):
        yield f"client_{family}", f"type {family}_addr; {counts}"
        yield f"pair_{family}", f"type {family}_addr . {family}_addr . inet_service; {counts}"


def _limits() -> Iterator[str]:
    """The rules that drop SYNs above the limits; clients retransmit them.

    `ct original` is the client's address before translation. It does not match the other family.
    """
    # SYNs that are dropped towards one server must not count against the client's other servers.
    limits = ((_MAX_TOWARDS_A_SERVER, "pair"), (_MAX_OF_A_CLIENT, "client"))
    for most, name in limits:
        for family, ip in (("ipv4", "ip"), ("ipv6", "ip6")):
            key = f"ct original {ip} saddr"
            if name == "pair":
                key += f" . {ip} daddr . tcp dport"
            limit = f"limit rate over {most // 2}/second burst {most} packets"
            yield f"update @{name}_{family} {{ {key} {limit} }} drop"


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
    """An anonymous set. nft refuses overlapping intervals, so they are merged."""
    merged: list[PortRange] = []
    for item in sorted(ranges, key=lambda item: item.first):
        if merged and item.first <= merged[-1].last + 1:
            merged[-1] = PortRange(merged[-1].first, max(merged[-1].last, item.last))
        else:
            merged.append(item)
    return f"{{ {', '.join(map(str, merged))} }}"


def _drop(ends: Ends) -> str:
    port = "" if ends.port is None else f"tcp dport {ends.port} "
    return f"{'ip' if ends.network.version == 4 else 'ip6'} daddr {ends.network} {port}drop"


def _is_marked(mark: int) -> str:
    return f"meta mark and {OUR_MASK:#x} == {mark:#x}"
