"""The rules of others on this host: reading them, copying them into another namespace, and finding
those that interfere.

nft lists the rules of iptables-nft too. A copy is limited to what nft can print: matches and
targets that only iptables knows (`xt match`, `xt target`), and rules that name an interface or set
that does not exist, are left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Final

from mitml4.errors import MachineError
from mitml4.net.capabilities import missing_capability_hint
from mitml4.net.firewall.chains import Chain, Rule
from mitml4.net.firewall.fates import (
    counts_connections,
    drop_of_ours,
    fate_of_answers,
    intercepts,
    mentions_conntrack,
    sets_zone,
)
from mitml4.net.firewall.legacy import LegacyTables
from mitml4.net.tools import attempt, complaint
from mitml4.regex import regex

__all__ = ["HostRules", "RulesHiddenError"]

_LIST: Final = ("nft", "--handle", "--stateless", "--terse", "list", "ruleset")
_LOAD: Final = ("nft", "-f", "-")
_TIMEOUT_S: Final = 3

_TABLE: Final = regex(r"table (\S+) (\S+) \{")
_CHAIN: Final = regex(r"\tchain (\S+) \{")
_HOOK: Final = regex(r"\t\ttype \S+ hook (\S+) .*?(?:policy (\w+);)?$")
_HANDLE: Final = regex(r" # handle (\d+)$")
_OURS: Final = regex(r"mitml4_\d+")

_FAMILIES: Final = {"ip", "ip6", "inet"}
_OWNER: Final = regex(r"\tflags owner\b")
_FOR_IPTABLES: Final = regex(r"\bxt (?:match|target) ")
_COMPLAINT: Final = regex(r"^[^:\s]+:(\d+):\d+-\d+: Error: ", re.MULTILINE)
_ROUNDS: Final = 8

_COMMENT: Final = regex(r'comment "[^"]*"')


class RulesHiddenError(MachineError):
    """The rules of this network are visible only to those who may change them."""

    def __init__(self) -> None:
        super().__init__(
            "the rules are visible only with CAP_NET_ADMIN",
            hint=missing_capability_hint("sudo mitml4 doctor"),
        )
        self.args = ()  # pickle creates a copy from these


class HostRules:
    """All rules of the current network namespace, as they were when read."""

    def __init__(self, listing: str, legacy: LegacyTables | None = None) -> None:
        self._lines = listing.splitlines()
        self._legacy = legacy or LegacyTables()

    @classmethod
    def read(cls) -> HostRules:
        """Raises RulesHiddenError if privileges are missing, MachineError otherwise."""
        done = attempt(*_LIST, timeout_s=_TIMEOUT_S)
        if done.returncode == 0:
            return cls(done.stdout, LegacyTables.read())
        if "not permitted" in done.stderr:
            raise RulesHiddenError
        raise MachineError(f"nft: {complaint(done)}", hint="nft list ruleset")

    @property
    def tables(self) -> set[str]:
        """Their names, such as `inet filter`."""
        return {f"{match[1]} {match[2]}" for line in self._lines if (match := _TABLE.match(line))}

    @cached_property
    def chains(self) -> tuple[Chain, ...]:
        """The chains of all tables, except those of mitml4's sessions."""
        return tuple(chain for chain, _ in self._all_blocks)

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in these chains."""
        return tuple(rule for _, rules in self._all_blocks for rule in rules)

    @property
    def inputs(self) -> tuple[Chain, ...]:
        """The base chains that incoming packets pass."""
        return tuple(each for each in self.chains if each.hook == "input" and each.is_for_packets)

    @property
    def dropping_sent(self) -> tuple[Chain, ...]:
        """The base chains that drop by policy what this host sends."""
        return tuple(each for each in self.chains if each.is_for_sent and each.policy == "drop")

    @property
    def drops_of_sent(self) -> tuple[tuple[Chain, Rule], ...]:
        """The other base chains of what this host sends in which a rule may drop our connections to
        servers, and the first such rule."""
        return tuple(
            (chain, rule)
            for chain in self.chains
            if chain.is_for_sent and chain.policy != "drop"
            if (rule := drop_of_ours(self.rules, chain))
        )

    @property
    def dropping_answers(self) -> tuple[Chain, ...]:
        """The base chains of forward that may drop a server's answers even if the connection is
        established: a rule that drops without checking the connection precedes the rule that
        accepts established ones."""
        forwards = (each for each in self.chains if each.hook == "forward" and each.is_for_packets)
        return tuple(
            chain
            for chain in forwards
            if (fate_of_answers(self.rules, chain) or chain.policy) == "drop"
        )

    @property
    def interceptors(self) -> tuple[Rule, ...]:
        """The rules that redirect connections."""
        return tuple(filter(intercepts, self.rules))

    @property
    def zones(self) -> tuple[Rule, ...]:
        """The rules that put connections into conntrack zones."""
        return tuple(filter(sets_zone, self.rules))

    @property
    def mention_conntrack(self) -> bool:
        """Whether a rule may need conntrack, or exempt packets from it."""
        return any(map(mentions_conntrack, self.rules))

    @property
    def counts_of_sent(self) -> tuple[Rule, ...]:
        """The rules that depend on the number of connections that this host has started."""
        return tuple(
            rule for rule in self.rules if rule.chain.is_for_sent and counts_connections(rule)
        )

    def copy(self) -> int:
        """Load them into the current network namespace; returns the number of lines that were left
        out.

        Raises MachineError if none can be loaded.
        """
        return self._legacy.copy() + self._copy()

    def _copy(self) -> int:
        lines = list(self._copyable())
        missing = sum(_blank(lines, at) for at, line in enumerate(lines) if _is_foreign(line))
        for _ in range(_ROUNDS):
            done = attempt(*_LOAD, given="\n".join(lines) + "\n", timeout_s=_TIMEOUT_S)
            if done.returncode == 0:
                return missing
            complaints = {int(number) - 1 for number in _COMPLAINT.findall(done.stderr)}
            removed = sum(_blank(lines, at) for at in complaints if at < len(lines))
            if not removed:
                break
            missing += removed
        raise MachineError(
            f"the rules cannot be copied: {complaint(done)}", hint="sudo nft list ruleset"
        )

    @cached_property
    def _all_blocks(self) -> tuple[tuple[Chain, tuple[Rule, ...]], ...]:
        return (*self._blocks(), *self._legacy.blocks())

    def _blocks(self) -> Iterator[tuple[Chain, tuple[Rule, ...]]]:
        """Each chain of nft's, with its rules."""
        family = table = ""
        is_owned = False
        at = 0
        while at < len(self._lines):
            line = self._lines[at]
            at += 1
            if match := _TABLE.match(line):
                family, table, is_owned = match[1], match[2], False
            elif _OWNER.match(line):
                is_owned = True
            elif (match := _CHAIN.match(line)) and not _OURS.fullmatch(table):
                end = _end_of_block(self._lines, at - 1)
                yield _chain(family, table, match[1], is_owned, self._lines[at:end])
                at = end

    def _copyable(self) -> Iterator[str]:
        """The tables in a form that loads without our interfaces, and without owners."""
        wanted = False
        for line in self._lines:
            if match := _TABLE.match(line):
                wanted = match[1] in _FAMILIES and not _OURS.fullmatch(match[2])
            if wanted and not _OWNER.match(line):
                yield line


def _chain(
    family: str, table: str, name: str, is_owned: bool, body: Sequence[str]
) -> tuple[Chain, tuple[Rule, ...]]:
    base = next(filter(None, map(_HOOK.match, body)), None)
    chain = Chain(
        family=family,
        table=table,
        name=name,
        hook=base[1] if base else None,
        policy=base[2] if base else None,
        is_owned=is_owned,
    )
    return chain, tuple(rule for line in body if (rule := _rule(chain, line)))


def _rule(chain: Chain, line: str) -> Rule | None:
    if handle := _HANDLE.search(line):
        text = line[: handle.start()].strip()
        gist = _COMMENT.sub("", text).strip()
        removal = f"nft delete rule {chain} handle {handle[1]}"
        return Rule(chain=chain, text=text, gist=gist, removal=removal)
    return None


def _is_foreign(line: str) -> bool:
    return _FOR_IPTABLES.search(_COMMENT.sub("", line)) is not None


def _blank(lines: list[str], at: int) -> int:
    """Blank a line, or the block that it opens; returns whether there was anything."""
    if not lines[at]:
        return 0
    end = _end_of_block(lines, at) if _HANDLE.sub("", lines[at]).endswith("{") else at
    lines[at : end + 1] = [""] * (end + 1 - at)
    return 1


def _end_of_block(lines: Sequence[str], start: int) -> int:
    """The end of the block that a line opens: the next closing brace with the same indentation."""
    indent = lines[start][: len(lines[start]) - len(lines[start].lstrip("\t"))]
    return next(
        (at for at in range(start + 1, len(lines)) if lines[at] == indent + "}"), len(lines) - 1
    )
