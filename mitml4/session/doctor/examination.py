"""The whole list, in order, and what it comes to."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from mitml4.errors import MachineError
from mitml4.net.namespace.namespace import Namespace
from mitml4.net.trial.rehearsal import Outcome, Settings
from mitml4.session.doctor.authority import check_authority
from mitml4.session.doctor.check import Check, State, as_root
from mitml4.session.doctor.environment import Rehearsals, check_environment
from mitml4.session.doctor.interpreter import check_interpreter
from mitml4.session.doctor.kernel import check_features, check_user_namespaces
from mitml4.session.doctor.prerequisites import TOOLS, Power, check_privilege, check_tool

__all__ = ["examine"]

_ROUTES: Final = Path("/proc/self/net/route")
_EVERYWHERE: Final = "00000000"

_HARMLESS: Final = {"forwarding", "other interceptors"}
"""Checks whose failure ends no interception."""


def examine(ca_dir: Path | None = None) -> Iterator[Check]:
    """Every check, the two verdicts last. Nothing on the host is changed.

    Call it while this process has one thread.
    """
    tools = [check_tool(name) for name in TOOLS]
    missing = _first_failure(tools)
    power = Power.find(has_nft=tools[0].state == "ok")
    rehearsals = Rehearsals(Settings.read(), power.rules, power.trouble, missing)
    users = check_user_namespaces()
    yield from check_features(rehearsals.bare, missing)
    yield users
    yield from tools
    yield check_interpreter()
    yield check_privilege(power)
    yield from (environment := list(check_environment(rehearsals)))
    yield from check_authority(ca_dir)
    yield _assess_intercept(power, rehearsals, tools, environment)
    yield _assess_run([*tools, users])


def _assess_intercept(
    power: Power, rehearsals: Rehearsals, tools: Sequence[Check], environment: Sequence[Check]
) -> Check:
    """What `intercept` would do."""
    outcome = rehearsals.whole
    if missing := _first_failure(tools):
        return _verdict("intercept", "fail", f"not at all: {missing}", _remedies(tools))
    if not power.suffices:
        return _verdict("intercept", "fail", *_lacks_power(power, outcome))
    match outcome.way:
        case "works":
            return _verdict("intercept", "ok", "ready")
        case "untried":
            return _verdict("intercept", "skip", f"it would start, untested: {outcome.reason}")
        case "fails":
            found = f"not at all: {outcome.reason}"
            blocking = [each for each in environment if each.name not in _HARMLESS]
            trial = as_root(f"mitml4 -vv intercept --iface {_uplink()} --duration 1s")
            return _verdict("intercept", "fail", found, _remedies(blocking) or trial)


def _lacks_power(power: Power, outcome: Outcome) -> tuple[str, tuple[str, ...]]:
    """Why this user cannot intercept, and the remedies."""
    if os.geteuid() == 0:
        remedies = check_privilege(power).remedy
        return "not here: root lacks power over this network, as in a container", remedies
    found = "not as this user, except in their own containers: it needs root"
    if outcome.works:
        found += ", with which it would work as far as can be seen"
    return found, (f"sudo mitml4 intercept --iface {_uplink()}",)


def _assess_run(checks: Sequence[Check]) -> Check:
    """What `run` would do: it makes what a command would get."""
    try:
        with Namespace.open() as namespace:
            how = "without root" if namespace.has_user_namespace else "as root"
    except MachineError as error:
        remedy = _remedies(checks) or ("mitml4 -vv run -- true",)
        return _verdict("run", "fail", f"not at all: {error.message}", remedy)
    return _verdict("run", "ok", f"ready, {how}")


def _verdict(name: str, state: State, found: str, remedy: tuple[str, ...] = ()) -> Check:
    return Check(group="verdict", name=name, state=state, found=found, remedy=remedy)


def _first_failure(checks: Sequence[Check]) -> str | None:
    return next((f"{each.name}: {each.found}" for each in checks if each.state == "fail"), None)


def _remedies(checks: Sequence[Check]) -> tuple[str, ...]:
    """Of what has failed, each once."""
    failed = [each for each in checks if each.state == "fail"]
    return tuple(dict.fromkeys(command for each in failed for command in each.remedy))


def _uplink() -> str:
    """The interface of the default route, or some other."""
    try:
        rows = [line.split() for line in _ROUTES.read_text().splitlines()[1:]]
    except OSError:
        rows = []
    defaults = [row[0] for row in rows if row[1] == _EVERYWHERE]
    others = [name for _, name in socket.if_nameindex() if name != "lo"]
    return next(iter([*defaults, *others]), "eth0")
