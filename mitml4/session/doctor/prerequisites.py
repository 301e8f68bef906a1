"""What there is to work with: programs, and power over this network."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import field
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.errors import MachineError
from mitml4.net import capabilities
from mitml4.net.capabilities import Capability
from mitml4.net.firewall.host_rules import HostRules, RulesHiddenError
from mitml4.net.tools import environment
from mitml4.session.doctor.check import Check, install

__all__ = ["TOOLS", "Power", "check_privilege", "check_tool"]

TOOLS: Final = {"nft": ("nftables", "--version"), "ip": ("iproute2", "-V")}
"""The programs that are needed: their packages, and what makes them tell their version."""

_TIMEOUT_S: Final = 3


def check_tool(name: str) -> Check:
    """One of TOOLS: whether it is there, and starts."""
    package, option = TOOLS[name]
    path = shutil.which(name, path=environment()["PATH"])
    if path is None:
        return _lacking(name, "not installed", install(package))
    try:
        done = subprocess.run(
            [path, option],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment(),
            timeout=_TIMEOUT_S,
        )
    except BlockingIOError as error:
        return _lacking(name, f"cannot start a process: {error.strerror}", ("ulimit -u",))
    except (OSError, subprocess.TimeoutExpired) as error:
        return _lacking(name, f"{path} does not work: {error}", install(package))
    said = (done.stdout or done.stderr).strip().partition("\n")[0]
    if done.returncode != 0:
        found = f"{path} does not work: {said or f'exit status {done.returncode}'}"
        return _lacking(name, found, install(package))
    return Check(group="tools", name=name, state="ok", found=f"{said} ({path})")


def _lacking(name: str, found: str, remedy: tuple[str, ...]) -> Check:
    return Check(group="tools", name=name, state="fail", found=found, remedy=remedy)


@dataclass(frozen=True, slots=True)
class Power:
    """What this process may do to the network that it is in."""

    is_capable: bool
    """It has CAP_NET_ADMIN and CAP_NET_RAW, be it over this network or another."""
    rules: HostRules | None
    """Which only those may see who have power over this network."""
    trouble: MachineError = field(default_factory=RulesHiddenError)
    """Why there are no rules, if there are none."""

    @classmethod
    def find(cls, *, has_nft: bool) -> Power:
        is_capable = capabilities.has(Capability.NET_ADMIN, Capability.NET_RAW)
        if not has_nft:
            return cls(
                is_capable,
                None,
                MachineError("nft is needed to see the rules", hint="apt install nftables"),
            )
        try:
            return cls(is_capable, HostRules.read())
        except MachineError as error:
            return cls(is_capable, None, error)

    @property
    def suffices(self) -> bool:
        """For `intercept`."""
        hidden = self.rules is None and isinstance(self.trouble, RulesHiddenError)
        return self.is_capable and not hidden


def check_privilege(power: Power) -> Check:
    """Whether `intercept` may change the rules; `run` needs no privilege on the host."""
    who = _who()
    if power.suffices:
        found = who if os.geteuid() == 0 else f"{who}, with CAP_NET_ADMIN and CAP_NET_RAW"
        return Check(group="privilege", name="CAP_NET_ADMIN", state="ok", found=found)
    if power.is_capable:
        found = f"{who} of a user namespace, without power over this network"
        remedy = "mitml4 doctor  # outside of that namespace, as root"
    else:
        found = f"{who} lacks it, or CAP_NET_RAW: intercept needs both, run neither"
        remedy = capabilities.missing_capability_hint("sudo mitml4 doctor")
    return Check(
        group="privilege", name="CAP_NET_ADMIN", state="fail", found=found, remedy=(remedy,)
    )


def _who() -> str:
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return name if uid == 0 else f"the user {name}"
