"""Chains and rules of others, whichever program has made them."""

from __future__ import annotations

import shutil
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.net.identity import ANY_MARK, MAGIC_MASK
from mitml4.net.tools import environment
from mitml4.regex import regex

__all__ = ["LEGACY_PROGRAMS", "Chain", "Rule"]

LEGACY_PROGRAMS: Final = {
    "iptables-legacy": "ip_tables_names",
    "ip6tables-legacy": "ip6_tables_names",
}
"""The programs of the older kind, and the files in which the kernel lists their tables."""

_FAMILIES: Final = {"ip", "ip6", "inet", *LEGACY_PROGRAMS}
_SENDING: Final = {"output", "postrouting"}
_IPTABLES: Final = regex(
    r"ip6? (?:filter|mangle|nat|raw|security) (?:PREROUTING|INPUT|FORWARD|OUTPUT|POSTROUTING)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A chain; `hook` and `policy` are set for base chains."""

    family: str
    """nft's family, or the program of the older kind."""
    table: str
    name: str
    hook: str | None = None
    policy: str | None = None
    is_owned: bool = False
    """Its table is owned by a process, and nobody else can change it."""

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"

    @property
    def is_for_packets(self) -> bool:
        """Whether IP packets pass it: not frames of a bridge, nor what comes from a device."""
        return self.family in _FAMILIES

    @property
    def is_for_sent(self) -> bool:
        """Whether it is a base chain that what this host sends passes."""
        return self.hook in _SENDING and self.is_for_packets

    @property
    def of_iptables(self) -> bool:
        """Whether its name is one that iptables uses."""
        return self.family in LEGACY_PROGRAMS or _IPTABLES.fullmatch(str(self)) is not None

    @property
    def opening(self) -> str:
        """A command that accepts, before all other rules, what mitml4 has marked: connections, or
        packets in a chain of what this host sends.

        In an iptables chain it uses iptables: a rule of nft's would make the whole table unreadable
        for iptables.
        """
        if self.of_iptables:
            kind = "mark" if self.is_for_sent else "connmark"
            match = f"-m {kind} --mark {ANY_MARK:#x}/{MAGIC_MASK:#x}"
            return f"{self._iptables} -t {self.table} -I {self.name} {match} -j ACCEPT"
        mark = "meta mark" if self.is_for_sent else "ct mark"
        return f"nft insert rule {self} {mark} and {MAGIC_MASK:#x} == {ANY_MARK:#x} accept"

    @property
    def _iptables(self) -> str:
        """The program for it, by its specific name if it has one."""
        if self.family in LEGACY_PROGRAMS:
            return self.family
        tool = "ip6tables" if self.family == "ip6" else "iptables"
        return f"{tool}-nft" if shutil.which(f"{tool}-nft", path=environment()["PATH"]) else tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule; rules of both kinds can be compared by `gist`."""

    chain: Chain
    text: str
    """In the syntax of its program."""
    gist: str
    """In nft's syntax, without comment; of the older kind, as far as the fates of packets
    (fates.py) depend on it."""
    removal: str
    """The command that deletes it."""

    def __str__(self) -> str:
        return f"{self.chain}: {self.text}"
