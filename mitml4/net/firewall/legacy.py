"""The rules of iptables-legacy, which nft does not list but the kernel applies.

Only existing tables are listed: listing a table would create it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.errors import MachineError
from mitml4.net.identity import ANY_MARK, MAGIC_MASK
from mitml4.net.tools import attempt, run
from mitml4.regex import regex

__all__ = ["LegacyChain", "LegacyRule", "LegacyTables", "opening_by"]

_TABLES: Final = {"iptables-legacy": "ip_tables_names", "ip6tables-legacy": "ip6_tables_names"}
"""The programs, and the files in which the kernel lists their tables."""

_INPUT: Final = regex(r":INPUT (\w+) ")
_INTERCEPTS: Final = regex(r"-A .* -j (?:TPROXY|REDIRECT)\b")
_COMMENT: Final = regex(r'--comment (?:"[^"]*"|\S+)')
_COMPLAINT: Final = regex(r"\bline:? (\d+)")
_ROUNDS: Final = 8


@dataclass(frozen=True, slots=True)
class LegacyChain:
    """The input chain of a program's filter table."""

    program: str
    policy: str
    is_owned: bool = False

    def __str__(self) -> str:
        return f"{self.program} filter INPUT"

    @property
    def opening(self) -> str:
        """A command that accepts, before all other rules, the connections that mitml4 has
        marked."""
        return opening_by(self.program, "filter", "INPUT")


@dataclass(frozen=True, slots=True)
class LegacyRule:
    """A rule in the program's syntax."""

    program: str
    table: str
    text: str
    """`-A CHAIN …`"""

    def __str__(self) -> str:
        return f"{self.program} {self.table}: {self.text.removeprefix('-A ')}"

    @property
    def removal(self) -> str:
        """The command that deletes it."""
        return f"{self.program} -t {self.table} -D {self.text.removeprefix('-A ')}"


@dataclass(frozen=True, slots=True)
class LegacyTables:
    """All tables, as each program saves them."""

    dumps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Lines, by program."""

    @classmethod
    def read(cls) -> LegacyTables:
        """Of the current network namespace. Raises MachineError."""
        dumps = {}
        for program, names in _TABLES.items():
            lines = [line for table in _names(names) for line in _save(program, table)]
            if lines:
                dumps[program] = tuple(lines)
        return cls(dumps)

    @property
    def inputs(self) -> Iterator[LegacyChain]:
        """The chains that incoming packets pass."""
        for program, table, line in self._lines():
            if table == "filter" and (match := _INPUT.match(line)):
                yield LegacyChain(program, match[1].lower())

    @property
    def interceptors(self) -> Iterator[LegacyRule]:
        """The rules that redirect connections."""
        for program, table, line in self._lines():
            if _INTERCEPTS.match(_COMMENT.sub("", line)):
                yield LegacyRule(program, table, line)

    def copy(self) -> int:
        """Load them into the current network namespace; returns the number of lines that were left
        out.

        Raises MachineError if a program can load none.
        """
        return sum(_restore(program, list(lines)) for program, lines in self.dumps.items())

    def _lines(self) -> Iterator[tuple[str, str, str]]:
        """Each line with its program and its table."""
        for program, lines in self.dumps.items():
            table = ""
            for line in lines:
                table = line[1:] if line.startswith("*") else table
                yield program, table, line


def opening_by(program: str, table: str, chain: str, *, kind: str = "connmark") -> str:
    """The iptables command, of either kind, that accepts what mitml4 has marked: its connections,
    or the packets that it sends (`mark`)."""
    match = f"-m {kind} --mark {ANY_MARK:#x}/{MAGIC_MASK:#x}"
    return f"{program} -t {table} -I {chain} {match} -j ACCEPT"


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
    raise MachineError(f"the rules of {program} cannot be copied")
