"""A test of `intercept` with this host's settings and rules, in a separate network namespace.

The namespace gets the host's settings and a copy of its rules. There the session's interception is
set up and tests itself with connections. The result is the same as on the host, as far as settings
and rules determine it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import field
from functools import partial
from typing import Final, Literal, TypeAlias

import trio

from mitml4.dataclass import dataclass
from mitml4.errors import MachineError, MitmError
from mitml4.net.firewall.host_rules import HostRules
from mitml4.net.isolation import enter_network
from mitml4.net.links import loopback_is_up
from mitml4.net.place import HERE
from mitml4.net.rules.interception import intercepting, preparing
from mitml4.net.rules.scope import Scope
from mitml4.net.sysctl import read_sysctl, write_sysctl
from mitml4.net.tools import check_tools, run
from mitml4.net.trial.child import run_in_child

__all__ = ["Outcome", "Settings", "Stage", "rehearse"]

Way: TypeAlias = Literal["works", "fails", "untried"]

_TIMEOUT_S: Final = 5
_INTERFACE: Final = "stage"

_EVERYWHERE: Final = (
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/default/rp_filter",
    "net/ipv4/conf/lo/rp_filter",
    "net/ipv4/fwmark_reflect",
    "net/ipv4/tcp_fwmark_accept",
    "net/ipv6/conf/all/disable_ipv6",
    "net/ipv6/conf/default/disable_ipv6",
    "net/ipv6/conf/lo/disable_ipv6",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether connections reach mitml4, and if not, why."""

    way: Way
    reason: str | None = None
    lines_left_out: int = 0
    """The number of the host's rules that could not be copied."""

    @property
    def works(self) -> bool:
        return self.way == "works"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The kernel's settings that determine whether intercepted connections arrive."""

    loopback_is_up: bool = True
    others: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls) -> Settings:
        """Of the current network namespace."""
        others = {name: value for name in _EVERYWHERE if (value := read_sysctl(name)) is not None}
        return cls(loopback_is_up=loopback_is_up(HERE), others=others)

    def apply(self) -> None:
        """Apply them to interfaces that are created in the current network namespace."""
        for name, value in self.others.items():
            write_sysctl(name, value)


@dataclass(frozen=True, slots=True)
class Stage:
    """The settings and rules of a test, and commands to run before it."""

    settings: Settings | None = None
    rules: HostRules | None = None
    commands: tuple[str, ...] = ()


def rehearse(*stages: Stage) -> list[Outcome]:
    """Test a session on each stage, in parallel; `untried` if a stage cannot be set up.

    Raises MachineError if a program is missing. Call it while this process has one thread.
    """
    check_tools()
    return run_in_child(*(partial(_play, stage) for stage in stages), timeout_s=_TIMEOUT_S)


def _play(stage: Stage) -> Outcome:
    try:
        enter_network()
        left_out = _set(stage)
    except OSError as error:
        return Outcome(
            "untried", f"no network namespace could be made for the test ({error.strerror})"
        )
    except MachineError as error:
        return Outcome("untried", error.message)
    way, reason = trio.run(_intercept)
    return Outcome(way, reason, left_out)


def _set(stage: Stage) -> int:
    """Set up the network namespace; returns the number of rules that could not be copied."""
    if stage.settings is None or stage.settings.loopback_is_up:
        run("ip", "link", "set", "lo", "up")
    if stage.settings:
        stage.settings.apply()
    left_out = stage.rules.copy() if stage.rules else 0
    for command in stage.commands:
        run(*shlex.split(command))
    run("ip", "link", "add", _INTERFACE, "type", "veth", "peer", "name", f"{_INTERFACE}1")
    return left_out


async def _intercept() -> tuple[Way, str | None]:
    try:
        scope = Scope(interfaces=(_INTERFACE,))
        async with preparing(scope) as preparation, intercepting(preparation) as interception:
            untested = interception.untested
    except MitmError as error:
        return "fails", error.message
    return ("works", None) if untested is None else ("untried", untested)
