"""What on this host may stand in the way: firewalls, settings, and what others have left.

How far it does is not guessed from the rules: `Rehearsals` tries a session with everything, without
the rules, and without the settings. Where the outcome changes is the culprit, and a remedy is tried
before it is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import field
from functools import cached_property
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.errors import MachineError
from mitml4.net.firewall.chains import Chain
from mitml4.net.firewall.host_rules import HostRules, RulesHiddenError
from mitml4.net.rules.notes import FORWARDING
from mitml4.net.sysctl import read_sysctl
from mitml4.net.tools import attempt
from mitml4.net.trial.rehearsal import Outcome, Settings, Stage, rehearse
from mitml4.regex import regex
from mitml4.session.doctor.check import Check, State, as_root

__all__ = ["PolicyRoutes", "Rehearsals", "check_environment"]

_SHOWN: Final = 3

_LOOKUP: Final = regex(r"\blookup (\S+)")
_LOCAL_DEFAULT: Final = regex(r"local default dev lo table (\S+)")


@dataclass()
class Rehearsals:
    """What a session comes to here, with more and more of the environment taken away.

    `trouble` says why there are no rules, `missing` why nothing can be tried.
    """

    settings: Settings
    rules: HostRules | None
    trouble: MachineError = field(default_factory=RulesHiddenError)
    missing: str | None = None

    @cached_property
    def whole(self) -> Outcome:
        """With everything that is known."""
        return self.try_out(Stage(self.settings, self.rules))[0]

    @cached_property
    def undisturbed(self) -> Outcome:
        """Without any rules of others."""
        if self.whole.works or self.rules is None:
            return self.whole
        return self.try_out(Stage(self.settings))[0]

    @cached_property
    def bare(self) -> Outcome:
        """Without anything: the kernel itself."""
        return self.undisturbed if self.undisturbed.works else self.try_out(Stage())[0]

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
    def for_tproxy(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """TPROXY's routes: the IP version, the table, how to remove it."""
        for family, table in self.delivering:
            leading = [
                rule.partition(":")[2].strip()
                for version, rule in self.rules
                if version == family and (match := _LOOKUP.search(rule)) and match[1] == table
            ]
            removals = [f"ip {family} rule del {rule}" for rule in leading]
            yield family, table, (*removals, f"ip {family} route flush table {table}")


def check_environment(rehearsals: Rehearsals) -> Iterator[Check]:
    """Every check of this group."""
    routes = None
    if rehearsals.missing is None:
        try:
            routes = PolicyRoutes.read()
        except MachineError as error:
            rehearsals.missing = error.message
    yield check_loopback(rehearsals.settings)
    yield check_forwarding()
    yield check_forward_firewall(rehearsals.rules, rehearsals.trouble)
    yield check_input(rehearsals)
    yield check_interceptors(rehearsals.rules, routes, rehearsals.trouble)


def check_loopback(settings: Settings) -> Check:
    """What was held is sent again over lo."""
    if settings.loopback_is_up:
        return _check("loopback", "ok", "lo is up")
    return _check("loopback", "fail", "lo is down", as_root("ip link set lo up"))


def check_forwarding() -> Check:
    """Only what the host forwards can be intercepted on its way."""
    name = "forwarding"
    off = {version: each for version, each in FORWARDING.items() if read_sysctl(each) == "0"}
    if not off:
        return _check(name, "ok", "the host forwards packets of other machines")
    found = (
        f"the host does not forward {' and '.join(off)}: only its own connections are intercepted"
    )
    remedy = as_root(*(f"sysctl -w {each.replace('/', '.')}=1" for each in off.values()))
    return _check(name, "skip", found, remedy)


def check_forward_firewall(rules: HostRules | None, trouble: MachineError) -> Check:
    """The first packet of a connection passes the forward chains; a server's answers do not."""
    name = "forward firewall"
    if rules is None:
        return _unseen(name, trouble)
    if not rules.dropping_answers:
        return _check(name, "ok", "it applies to intercepted connections as to others")
    chains = _list([str(chain) for chain in rules.dropping_answers])
    found = f"rules in {chains} that drop only servers' answers have no effect with mitml4"
    return _check(name, "skip", found)


def check_input(rehearsals: Rehearsals) -> Check:
    """Whether the input chains of others let in what is intercepted."""
    name = "input firewall"
    rules, whole = rehearsals.rules, rehearsals.whole
    if rules is None:
        return _unseen(name, rehearsals.trouble)
    if not rules.inputs:
        return _check(name, "ok", "there is none")
    if whole.works:
        chains = _list([str(chain) for chain in rules.inputs])
        return _check(name, "ok", f"{chains}: intercepted connections came in")
    if whole.way == "untried":
        return _check(name, "skip", whole.reason or "")
    if not rehearsals.undisturbed.works:
        found = f"without the rules it does not work either: {rehearsals.undisturbed.reason}"
        return _check(name, "skip", found)
    wall, openings = _find_wall(rehearsals, rules)
    if wall:
        who = _list([f"{each}{' (its policy is drop)' * (each.policy == 'drop')}" for each in wall])
        found = f"intercepted connections are dropped by {who}"
        return _check(name, "fail", found, as_root(*_leave_to_open(wall), *openings))
    found = "the rules drop intercepted connections, and no simple rule changes that"
    if whole.lines_left_out:
        found += f" ({whole.lines_left_out} lines of the rules could not be copied to try them)"
    return _check(name, "fail", found, as_root("nft list ruleset"))


def _find_wall(
    rehearsals: Rehearsals, rules: HostRules
) -> tuple[tuple[Chain, ...], tuple[str, ...]]:
    """The chains that have to be opened, and how, as trying it has shown; none, if that is not it.

    Those whose policy is drop, if that is enough.
    """
    dropping = tuple(chain for chain in rules.inputs if chain.policy == "drop")
    walls = list(filter(None, dict.fromkeys((dropping, rules.inputs))))
    openings = [tuple(chain.opening for chain in wall) for wall in walls]
    stages = [Stage(rehearsals.settings, rules, each) for each in openings]
    outcomes = rehearsals.try_out(*stages)
    for wall, opening, outcome in zip(walls, openings, outcomes, strict=True):
        if outcome.works:
            return wall, opening
    return (), ()


def _leave_to_open(wall: Iterable[Chain]) -> tuple[str, ...]:
    """What makes firewalld let others change its table (NftablesTableOwner, firewalld.conf(5))."""
    if not any(chain.is_owned and str(chain).startswith("inet firewalld ") for chain in wall):
        return ()
    return (
        "sed -i s/^NftablesTableOwner=.*/NftablesTableOwner=no/ /etc/firewalld/firewalld.conf",
        "systemctl restart firewalld",
    )


def check_interceptors(
    rules: HostRules | None, routes: PolicyRoutes | None, trouble: MachineError
) -> Check:
    """Rules of others that hand connections to somebody: of a tool that runs, or has run."""
    name = "other interceptors"
    found, remedy = [], []
    for rule in rules.interceptors if rules else ():
        found.append(str(rule))
        remedy.append(rule.removal)
    for family, table, removals in routes.for_tproxy if routes else ():
        found.append(f"ip {family}: routing table {table} delivers every address to this host")
        remedy += removals
    if found:
        return _check(name, "fail", _list(found), as_root(*remedy))
    if rules is None or routes is None:
        return _unseen(name, trouble)
    return _check(name, "ok", "no rule of others redirects connections or hands them to TPROXY")


def _check(name: str, state: State, found: str, remedy: tuple[str, ...] = ()) -> Check:
    return Check(group="environment", name=name, state=state, found=found, remedy=remedy)


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
