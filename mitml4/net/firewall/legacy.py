"""The rules of iptables-legacy, which nft does not list but the kernel applies.

Only existing tables are listed: listing a table would create it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.errors import MachineError
from mitml4.net.firewall.chains import LEGACY_PROGRAMS, Chain, Rule
from mitml4.net.tools import attempt, run
from mitml4.regex import regex

__all__ = ["LegacyTables"]

_CHAIN: Final = regex(r":(\S+) (\S+) ")
_WORDS: Final = tuple(
    (regex(pattern), replacement)
    for pattern, replacement in (
        (r'--comment (?:"(?:[^"\\]|\\.)*"|\S+)', ""),
        (r"-m (?:comment|conntrack|state|mark|tcp|udp)\b", ""),  # the options are enough
        (r"-m (\w+)", r'xt match "\1"'),
        (r"! --(?:ct)?state (\S+)", r"ct state != \1"),
        (r"--(?:ct)?state (\S+)", r"ct state \1"),
        (r"\bNEW\b", "new"),
        (r"\bESTABLISHED\b", "established"),
        (r"--ctdir ORIGINAL", "ct direction original"),
        (r"-d \S+", "daddr"),
        (r"-o lo\b", 'oif "lo"'),
        (r"--(?:tcp-flags|syn)\b", "tcp flags"),
        (r"--mark", "meta mark"),
        (r"-p ipv6-icmp", "icmpv6"),
        (r"-p (\w+)", r"\1"),
        (r"-j CT --zone\S* ", "ct zone set "),
        (r"-j (TPROXY|REDIRECT)\b.*", r'xt target "\1"'),
        (r"-j ACCEPT$", "accept"),
        (r"-j DROP$", "drop"),
        (r"-j REJECT\b.*", "reject"),
        (r"-[jg] (\S+)$", r"jump \1"),
    )
)
"""Patterns, and what nft says instead."""

_COMPLAINT: Final = regex(r"\bline:? (\d+)")
_ROUNDS: Final = 8


@dataclass(frozen=True, slots=True)
class LegacyTables:
    """All tables, as each program saves them."""

    dumps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Lines, by program."""

    @classmethod
    def read(cls) -> LegacyTables:
        """Of the current network namespace. Raises MachineError."""
        dumps = {}
        for program, names in LEGACY_PROGRAMS.items():
            lines = [line for table in _names(names) for line in _save(program, table)]
            if lines:
                dumps[program] = tuple(lines)
        return cls(dumps)

    def blocks(self) -> Iterator[tuple[Chain, tuple[Rule, ...]]]:
        """Each chain, with its rules."""
        for program, lines in self.dumps.items():
            table = ""
            for line in lines:
                if line.startswith("*"):
                    table = line[1:]
                elif match := _CHAIN.match(line):
                    chain = _chain(program, table, *match.groups())
                    yield chain, tuple(_rules(chain, _lines_of(lines, table)))

    def copy(self) -> int:
        """Load them into the current network namespace; returns the number of lines that were left
        out.

        Raises MachineError if a program can load none.
        """
        return sum(_restore(program, list(lines)) for program, lines in self.dumps.items())


def _lines_of(lines: Sequence[str], table: str) -> Sequence[str]:
    start = lines.index(f"*{table}")
    return lines[start : lines.index("COMMIT", start)]


def _chain(program: str, table: str, name: str, policy: str) -> Chain:
    """Nothing can be dropped in a `nat` table, so its chains have no hook here."""
    if policy == "-" or table == "nat":
        return Chain(family=program, table=table, name=name)
    hook, policy = name.lower(), policy.lower()
    return Chain(family=program, table=table, name=name, hook=hook, policy=policy)


def _rules(chain: Chain, lines: Sequence[str]) -> Iterator[Rule]:
    start = f"-A {chain.name} "
    for line in lines:
        if line.startswith(start):
            text = line.removeprefix(start)
            removal = f"{chain.family} -t {chain.table} -D {chain.name} {text}"
            yield Rule(chain=chain, text=text, gist=_gist(text), removal=removal)


def _gist(text: str) -> str:
    """What nft would say, as far as fates.py asks."""
    for pattern, replacement in _WORDS:
        text = pattern.sub(replacement, text)
    return " ".join(text.split())


def _names(file: str) -> list[str]:
    """The existing tables; none if the kernel has no tables of this kind."""
    try:
        return Path("/proc/self/net", file).read_text().split()
    except OSError:
        return []


def _save(program: str, table: str) -> list[str]:
    lines = run(f"{program}-save", "-t", table).splitlines()
    return [line for line in lines if not line.startswith("#")]


def _restore(program: str, lines: list[str]) -> int:
    for missing in range(_ROUNDS):
        done = attempt(f"{program}-restore", given="\n".join(lines) + "\n")
        if done.returncode == 0:
            return missing
        match = _COMPLAINT.search(done.stderr)
        at = int(match[1]) - 1 if match else len(lines)
        if at >= len(lines) or not lines[at].startswith("-A"):
            break
        lines[at] = ""
    raise MachineError(f"the rules of {program} cannot be copied", hint=f"sudo {program}-save")
