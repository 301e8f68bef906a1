"""The rules of others on this host: reading them, copying them into another namespace, and finding
those that interfere.

nft lists the rules of iptables-nft too. A copy is limited to what nft can print: matches and
targets that only iptables knows (`xt match`, `xt target`), and rules that name an interface or set
that does not exist, are left out and counted.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.errors import MachineError
from mitml4.net.firewall.legacy import LegacyChain, LegacyRule, LegacyTables, opening_by
from mitml4.net.identity import ANY_MARK, MAGIC_MASK
from mitml4.net.tools import attempt, complaint, environment
from mitml4.regex import regex

__all__ = ["Chain", "HostRules", "Rule", "RulesHiddenError"]

_LIST: Final = ("nft", "--handle", "--stateless", "--terse", "list", "ruleset")
_LOAD: Final = ("nft", "-f", "-")
_TIMEOUT_S: Final = 3

_TABLE: Final = regex(r"table (\S+) (\S+) \{")
_CHAIN: Final = regex(r"\tchain (\S+) \{")
_HOOK: Final = regex(r"\t\ttype \S+ hook (\S+) .*?(?:policy (\w+);)?$")
_HANDLE: Final = regex(r" # handle (\d+)$")
_IPTABLES: Final = regex(
    r"ip6? (?:filter|mangle|nat|raw|security) (?:PREROUTING|INPUT|FORWARD|OUTPUT|POSTROUTING)"
)
_OURS: Final = regex(r"mitml4_\d+")

_FAMILIES: Final = {"ip", "ip6", "inet"}
_SENDING: Final = {"output", "postrouting"}
_OWNER: Final = regex(r"\tflags owner\b")
_FOR_IPTABLES: Final = regex(r"\bxt (?:match|target) ")
_COMPLAINT: Final = regex(r"^[^:\s]+:(\d+):\d+-\d+: Error: ", re.MULTILINE)
_ROUNDS: Final = 8

_COMMENT: Final = regex(r'comment "[^"]*"')
# For a forward chain's rules: which ones do not concern a server's answers, and which ones decide
# on them.
_NOT_FOR_ANSWERS: Final = regex(
    r"\bct state (?!!)(?![\w,{}: ]*\bestablished\b)|\bct state != [\w,{} ]*\bestablished\b"
    r"|\bct direction original\b|\btcp flags\b|\b(?:udp|icmp|icmpv6)\b"
)
# The same for rules about what this host sends: new TCP connections to any server concern ours.
_NOT_FOR_OURS: Final = regex(
    r"\bct state (?!!)(?![\w,{}: ]*\bnew\b)|\b(?:udp|icmp|icmpv6|daddr|mark|tcp flags)\b"
    r"|\boif(?:name)? \"?lo\b|\bxt match (?!\"?owner\b)"
)
_LETS_OURS_OUT: Final = regex(r"^(?:counter )?accept$|\bmeta mark .* accept$")
_JUMP: Final = regex(r"\b(?:jump|goto) (\S+)$")
_DROPS: Final = regex(r"\bdrop$|\breject\b")
_LETS_ALL_IN: Final = regex(
    r"\bct state [\w,{} ]*\bestablished\b.* accept$|\bct state vmap .*\bestablished : accept\b"
    r"|^(?:counter )?accept$|\bxt match \"?conntrack\b"
)
_INTERCEPTS: Final = regex(r"\b(?:tproxy|redirect)\b|\bxt target \"?(?:TPROXY|REDIRECT)\b")


class RulesHiddenError(MachineError):
    """The rules of this network are visible only to root."""

    def __init__(
        self, message: str = "only root sees the rules", *, hint: str = "sudo mitml4 doctor"
    ) -> None:
        super().__init__(message, hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A chain; `hook` and `policy` are set for base chains."""

    family: str
    table: str
    name: str
    hook: str | None = None
    policy: str | None = None
    is_owned: bool = False
    """Its table is owned by a process, and nobody else can change it."""

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"

    @property
    def of_iptables(self) -> bool:
        """Whether its name is one that iptables uses."""
        return _IPTABLES.fullmatch(str(self)) is not None

    @property
    def opening(self) -> str:
        """A command that accepts, before all other rules, what mitml4 has marked: connections, or
        packets in a chain of what this host sends.

        In an iptables chain it uses iptables: a rule of nft's would make the whole table unreadable
        for iptables.
        """
        is_sent = self.hook in _SENDING
        if self.of_iptables:
            program = _iptables("ip6tables" if self.family == "ip6" else "iptables")
            kind = "mark" if is_sent else "connmark"
            return opening_by(program, self.table, self.name, kind=kind)
        mark = "meta mark" if is_sent else "ct mark"
        return f"nft insert rule {self} {mark} and {MAGIC_MASK:#x} == {ANY_MARK:#x} accept"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule in nft's syntax."""

    chain: Chain
    text: str
    handle: int

    def __str__(self) -> str:
        return f"{self.chain}: {self.text}"

    @property
    def removal(self) -> str:
        """The command that deletes it."""
        return f"nft delete rule {self.chain} handle {self.handle}"


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
        """The chains of all nft tables, except those of mitml4's sessions."""
        return tuple(chain for chain, _ in self._blocks())

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in these chains."""
        return tuple(rule for _, rules in self._blocks() for rule in rules)

    @property
    def inputs(self) -> tuple[Chain | LegacyChain, ...]:
        """The base chains that incoming packets pass."""
        inputs = (each for each in self.chains if each.hook == "input" and each.family in _FAMILIES)
        return (*inputs, *self._legacy.inputs)

    @property
    def dropping_sent(self) -> tuple[Chain, ...]:
        """The base chains that drop by policy what this host sends."""
        return tuple(
            chain
            for chain in self.chains
            if chain.hook in _SENDING and chain.policy == "drop" and chain.family in _FAMILIES
        )

    @property
    def drops_of_sent(self) -> tuple[tuple[Chain, Rule], ...]:
        """The other base chains of what this host sends in which a rule may drop our connections to
        servers, and the first such rule: it names no destination, and no rule before it accepts all
        or what is marked."""
        return tuple(
            (chain, rule)
            for chain in self.chains
            if chain.hook in _SENDING and chain.policy != "drop" and chain.family in _FAMILIES
            if (rule := self._drop_of_ours(chain, ()))
        )

    def _drop_of_ours(self, chain: Chain, within: tuple[str, ...]) -> Rule | None:
        for rule in self.rules:
            if rule.chain != chain:
                continue
            text = _COMMENT.sub("", rule.text).strip()
            if _LETS_OURS_OUT.search(text):
                return None
            if _NOT_FOR_OURS.search(text):
                continue
            if (jump := _JUMP.search(text)) and jump[1] not in within:
                inner = replace(chain, name=jump[1], hook=None, policy=None)
                if found := self._drop_of_ours(inner, (*within, jump[1])):
                    return found
            elif _DROPS.search(text):
                return rule
        return None

    @property
    def dropping_answers(self) -> tuple[Chain, ...]:
        """The base chains of forward that may drop a server's answers even if the connection is
        established: a rule that drops without checking the connection precedes the rule that
        accepts established ones."""
        forwards = (each for each in self.chains if each.hook == "forward")
        return tuple(
            chain
            for chain in forwards
            if chain.family in _FAMILIES
            and (self._fate_of_answers(chain, ()) or chain.policy) == "drop"
        )

    def _fate_of_answers(self, chain: Chain, within: tuple[str, ...]) -> str | None:
        """`accept` or `drop`, whichever a chain's rules reach first; None if neither."""
        for rule in self.rules:
            if rule.chain != chain:
                continue
            text = _COMMENT.sub("", rule.text).strip()
            if _NOT_FOR_ANSWERS.search(text):
                continue
            if (jump := _JUMP.search(text)) and jump[1] not in within:
                inner = replace(chain, name=jump[1], hook=None, policy=None)
                if fate := self._fate_of_answers(inner, (*within, jump[1])):
                    return fate
            elif _DROPS.search(text):
                return "drop"
            elif _LETS_ALL_IN.search(text):
                return "accept"
        return None

    @property
    def interceptors(self) -> tuple[Rule | LegacyRule, ...]:
        """The rules that redirect connections."""
        return (*self._interceptors, *self._legacy.interceptors)

    @property
    def _interceptors(self) -> Iterator[Rule]:
        for rule in self.rules:
            if _INTERCEPTS.search(_COMMENT.sub("", rule.text)):
                yield rule

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
        raise MachineError(f"the rules cannot be copied: {complaint(done)}")

    def _blocks(self) -> Iterator[tuple[Chain, tuple[Rule, ...]]]:
        """Each chain, with its rules."""
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
    return chain, tuple(Rule(chain, *rule) for line in body if (rule := _rule_in(line)))


def _rule_in(line: str) -> tuple[str, int] | None:
    """The text and the handle of a rule."""
    handle = _HANDLE.search(line)
    return (line[: handle.start()].strip(), int(handle[1])) if handle else None


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


def _iptables(tool: str) -> str:
    """The variant whose tables nft lists, by its specific name if it has one."""
    return f"{tool}-nft" if shutil.which(f"{tool}-nft", path=environment()["PATH"]) else tool
