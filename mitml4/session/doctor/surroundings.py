"""What on this host may stand in the way: firewalls, settings, and what others have left.

How far it does is not guessed from the rules: `Rehearsals` tries a session without any of it, with
the settings alone, without those that intercept as well, and with everything. Where the outcome
changes is the culprit, and a remedy is tried before it is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Final

import trio

from mitml4.errors import MachineError
from mitml4.net.firewall.host_rules import Chain, HostRules, RulesHiddenError
from mitml4.net.firewall.legacy import LegacyChain
from mitml4.net.identity import ANY_MARK, MAGIC_MASK, SLOTS, Identity
from mitml4.net.rules.cleanup import find_remains
from mitml4.net.sysctl import read_sysctl
from mitml4.net.tools import attempt
from mitml4.net.trial.apart import apart
from mitml4.net.trial.rehearsal import Outcome, Settings, Stage, rehearse
from mitml4.session.doctor.check import Check, State, as_root

__all__ = ["PolicyRoutes", "Rehearsals", "check_surroundings"]

_PATIENCE_S: Final = 5
_BRIDGE_FILTERS: Final = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables")
_SHOWN: Final = 3

_OUR_TABLES: Final = frozenset(str(Identity(slot).route_table) for slot in range(SLOTS))
_FWMARK: Final = re.compile(r"\bfwmark (0x[0-9a-f]+)")
_LOOKUP: Final = re.compile(r"\blookup (\S+)")
_LOCAL_DEFAULT: Final = re.compile(r"local default dev lo table (\S+)")


@dataclass
class Rehearsals:
    """What a session comes to here, with more and more of the surroundings taken away.

    `trouble` says why there are no rules, `missing` why nothing can be tried.
    """

    settings: Settings
    rules: HostRules | None
    trouble: MachineError = field(default_factory=RulesHiddenError)
    missing: str | None = None

    @property
    def whole(self) -> Outcome:
        """With everything that is known."""
        return self._first[0]

    @property
    def alone(self) -> Outcome:
        """Without the rules of others that intercept."""
        return self._first[-1]

    @cached_property
    def settled(self) -> Outcome:
        """Without any rules of others."""
        if self.alone.way == "tproxy" or self.rules is None:
            return self.alone
        return self.try_out(Stage(self.settings))[0]

    @cached_property
    def bare(self) -> Outcome:
        """Without anything: the kernel itself."""
        return self.settled if self.settled.way == "tproxy" else self.try_out(Stage())[0]

    @cached_property
    def _first(self) -> list[Outcome]:
        stages = [Stage(self.settings, self.rules)]
        if self.rules and self.rules.interceptors:
            stages.append(Stage(self.settings, self.rules.without_interceptors()))
        return self.try_out(*stages)

    def try_out(self, *stages: Stage) -> list[Outcome]:
        """A session on each of these."""
        if self.missing is not None:
            return [Outcome("untried", self.missing)] * len(stages)
        try:
            return rehearse(*stages)
        except MachineError as error:
            return [Outcome("untried", error.message)] * len(stages)


@dataclass(frozen=True, slots=True)
class PolicyRoutes:
    """The policy rules and the routing tables of both IP versions that have to do with marks."""

    rules: tuple[tuple[str, str], ...]
    """Of `ip -4` or `ip -6` each: that option, and a rule as it is shown."""
    delivering: tuple[tuple[str, str], ...]
    """That option, and a table by which everything is delivered here."""

    @classmethod
    def read(cls) -> PolicyRoutes:
        """Raises MachineError."""
        rules, delivering = [], []
        for family in ("-4", "-6"):
            rules += [(family, line.strip()) for line in _ip(family, "rule", "show")]
            routes = _ip(family, "route", "show", "table", "all", "type", "local")
            delivering += [
                (family, match[1]) for line in routes if (match := _LOCAL_DEFAULT.match(line))
            ]
        return cls(tuple(rules), tuple(delivering))

    @property
    def ours(self) -> bool:
        """Whether there are any of sessions, be it that they run or that they have left them."""
        marks = [int(match[1], 16) for _, rule in self.rules if (match := _FWMARK.search(rule))]
        return any(mark & MAGIC_MASK == ANY_MARK for mark in marks) or any(
            table in _OUR_TABLES for _, table in self.delivering
        )

    @property
    def foreign(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """TPROXY's routes that are not ours: the IP version, the table, how to remove it."""
        for family, table in self.delivering:
            if table not in _OUR_TABLES:
                leading = [
                    rule.partition(":")[2].strip()
                    for version, rule in self.rules
                    if version == family and (match := _LOOKUP.search(rule)) and match[1] == table
                ]
                removals = [f"ip {family} rule del {rule}" for rule in leading]
                yield family, table, (*removals, f"ip {family} route flush table {table}")


def check_surroundings(rehearsals: Rehearsals) -> Iterator[Check]:
    """Every check of this group."""
    routes = None
    if rehearsals.missing is None:
        try:
            routes = PolicyRoutes.read()
        except MachineError as error:
            rehearsals.missing = error.message
    yield check_loopback(rehearsals.settings)
    yield check_input(rehearsals)
    yield check_reverse_path(rehearsals)
    yield check_bridges()
    yield check_interceptors(rehearsals.rules, routes, rehearsals.trouble)
    yield check_leftovers(rehearsals.rules, routes, rehearsals.trouble)


def check_loopback(settings: Settings) -> Check:
    """TPROXY delivers by a route over lo."""
    if settings.loopback_is_up:
        return _check("loopback", "ok", "lo is up")
    return _check("loopback", "fail", "lo is down", as_root("ip link set lo up"))


def check_input(rehearsals: Rehearsals) -> Check:
    """Whether the input chains of others let in what is intercepted."""
    name = "input firewall"
    rules, alone = rehearsals.rules, rehearsals.alone
    if rules is None:
        return _unseen(name, rehearsals.trouble)
    if not rules.inputs:
        return _check(name, "ok", "there is none")
    if alone.way == "tproxy":
        chains = _list([str(chain) for chain in rules.inputs])
        return _check(name, "ok", f"{chains}: intercepted connections came in")
    if alone.way == "untried":
        return _check(name, "skip", alone.reason or "")
    if rehearsals.settled.way != "tproxy":
        found = f"TPROXY does not work without the rules either: {rehearsals.settled.reason}"
        return _check(name, "skip", found)
    what = "what TPROXY hands over" if alone.works else "what is intercepted"
    wall, openings = _find_wall(rehearsals, rules)
    if wall:
        who = _list([f"{each}{' (its policy is drop)' * (each.policy == 'drop')}" for each in wall])
        found = f"{what} does not come in through {who}"
        return _check(name, "fail", found, as_root(*_leave_to_open(wall), *openings))
    found = f"the rules keep out {what}, and no simple rule lets it in"
    if alone.lines_left_out:
        found += f" ({alone.lines_left_out} lines of the rules could not be copied to try them)"
    return _check(name, "fail", found, as_root("nft list ruleset"))


def _find_wall(
    rehearsals: Rehearsals, rules: HostRules
) -> tuple[tuple[Chain | LegacyChain, ...], tuple[str, ...]]:
    """The chains that have to be opened, and how, as trying it has shown; none, if that is not it.

    Those whose policy is drop, if that is enough.
    """
    dropping = tuple(chain for chain in rules.inputs if chain.policy == "drop")
    others = rules.without_interceptors()
    walls = list(filter(None, dict.fromkeys((dropping, rules.inputs))))
    openings = [tuple(chain.opening for chain in wall) for wall in walls]
    stages = [Stage(rehearsals.settings, others, each) for each in openings]
    outcomes = rehearsals.try_out(*stages)
    for wall, opening, outcome in zip(walls, openings, outcomes, strict=True):
        if outcome.way == "tproxy":
            return wall, opening
    return (), ()


def _leave_to_open(wall: Iterable[Chain | LegacyChain]) -> tuple[str, ...]:
    """What makes firewalld let others change its table (NftablesTableOwner, firewalld.conf(5))."""
    if not any(chain.is_owned and str(chain).startswith("inet firewalld ") for chain in wall):
        return ()
    return (
        "sed -i s/^NftablesTableOwner=.*/NftablesTableOwner=no/ /etc/firewalld/firewalld.conf",
        "systemctl restart firewalld",
    )


def check_reverse_path(rehearsals: Rehearsals) -> Check:
    """`rp_filter`, the more so with `src_valid_mark`, which wg-quick sets."""
    name = "reverse path filter"
    settings, settled = rehearsals.settings, rehearsals.settled
    mode = {0: "off", 1: "strict", 2: "loose"}[settings.strictest]
    marks = settings.src_valid_mark
    found = f"rp_filter is {mode}"
    if marks:
        found += f", src_valid_mark is set ({_list(sorted(marks))})"
    if settled.way == "tproxy":
        return _check(name, "ok", f"{found}: intercepted connections came in")
    if not settings.loopback_is_up:
        return _check(name, "skip", f"{found}; lo has to be up to try it")
    if settled.way == "untried":
        return _check(name, "skip", f"{found}; {settled.reason}")
    if rehearsals.bare.way != "tproxy":
        without = f"TPROXY does not work without it either: {rehearsals.bare.reason}"
        return _check(name, "skip", f"{found}; {without}")
    remedy = [f"sysctl -w net.ipv4.conf.{each}.src_valid_mark=0" for each in sorted(marks)]
    if not remedy:
        remedy = ["sysctl -w net.ipv4.conf.all.rp_filter=2"]
    return _check(name, "fail", f"{found}: {settled.reason}", as_root(*remedy))


def check_bridges() -> Check:
    """`br_netfilter` shows bridged packets to prerouting while they are still on the bridge."""
    name = "bridges"
    names = [each for each in _BRIDGE_FILTERS if read_sysctl(f"net/bridge/{each}") == "1"]
    if not names:
        return _check(name, "ok", "bridged packets do not pass through iptables")
    try:
        lines = _ip("-brief", "link", "show", "type", "bridge")
    except MachineError as error:
        return _check(name, "skip", error.message)
    on = f"{names[0]} is 1"
    if not lines:
        return _check(name, "ok", f"there is none ({on})")
    bridges = _list([line.split()[0] for line in lines])
    settings = " ".join(f"net.bridge.{each}=0" for each in names)
    found = f"what comes in over {bridges} cannot go through TPROXY, and is redirected ({on})"
    return _check(name, "fail", found, as_root(f"sysctl -w {settings}"))


def check_interceptors(
    rules: HostRules | None, routes: PolicyRoutes | None, trouble: MachineError
) -> Check:
    """Rules of others that hand connections to somebody: of a tool that runs, or has run."""
    name = "other interceptors"
    found, remedy = [], []
    for rule in rules.interceptors if rules else ():
        found.append(str(rule))
        remedy.append(rule.removal)
    for family, table, removals in routes.foreign if routes else ():
        found.append(f"ip {family}: table {table} delivers everything here")
        remedy += removals
    if found:
        return _check(name, "fail", _list(found), as_root(*remedy))
    if rules is None or routes is None:
        return _unseen(name, trouble)
    return _check(name, "ok", "no rule of others redirects connections or hands them to TPROXY")


def check_leftovers(
    rules: HostRules | None, routes: PolicyRoutes | None, trouble: MachineError
) -> Check:
    """What `mitml4 cleanup` would remove."""
    name = "leftovers of mitml4"
    if routes is None:
        return _check(name, "skip", "ip is needed to look for them")
    if rules is None and routes.ours:
        return _unseen(name, trouble, "there are routes of a session; ")
    if rules is None:
        return _check(name, "ok", "no policy rules, no routes")
    try:
        (remains,) = apart(partial(trio.run, find_remains), patience_s=_PATIENCE_S)
    except MachineError as error:
        return _check(name, "skip", error.message)
    if remains.left:
        tables = _list([each.identity.table for each in remains.left])
        found = f"of {tables}: the session was killed, and so was its guard"
        return _check(name, "fail", found, as_root("mitml4 cleanup"))
    running = f"; sessions that run: {len(remains.running)}" if remains.running else ""
    return _check(name, "ok", f"none{running}")


def _check(name: str, state: State, found: str, remedy: tuple[str, ...] = ()) -> Check:
    return Check(group="surroundings", name=name, state=state, found=found, remedy=remedy)


def _unseen(name: str, trouble: MachineError, although: str = "") -> Check:
    remedy = (trouble.hint,) if trouble.hint else ()
    return _check(name, "skip", f"{although}{trouble.message}", remedy)


def _list(items: list[str]) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return "; ".join(items[:_SHOWN]) + more


def _ip(*arguments: str) -> list[str]:
    """What `ip` prints. A table, or an IP version, that is not there is empty."""
    done = attempt("ip", *arguments)
    return done.stdout.splitlines() if done.returncode == 0 else []
