"""What the kernel can: tables, connections held at their first packet, and user namespaces."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
from collections.abc import Iterator
from functools import partial
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.errors import MachineError
from mitml4.invoker import sudo_user
from mitml4.net import processes
from mitml4.net.dial import set_ip_transparent
from mitml4.net.gate.conntrack import Conntrack
from mitml4.net.gate.nflog import open_log
from mitml4.net.gate.syn import LONGEST_SYN
from mitml4.net.isolation import CLONE_NEWNET, CLONE_NEWNS, enter_network, unshare_without_power
from mitml4.net.namespace.userns import NamespacesRefusedError, explain_powerless, explain_refusal
from mitml4.net.rules.cgroups import hierarchy
from mitml4.net.rules.scope import CGROUPS
from mitml4.net.tools import attempt, complaint
from mitml4.net.trial.child import run_in_child
from mitml4.net.trial.rehearsal import Outcome
from mitml4.session.doctor.check import Check, State, as_root, install

__all__ = ["check_features", "check_user_namespaces"]

_TIMEOUT_S: Final = 3
_NOBODY: Final = 65534


@dataclass(frozen=True, slots=True)
class _Feature:
    """A feature that nft can ask the kernel for."""

    name: str
    body: str
    """Of a table that needs it."""
    purpose: str
    remedy: str


_MODULES: Final = "modprobe --all"
_FEATURES: Final = (
    _Feature("nf_tables", "", "tables and rules load", f"{_MODULES} nf_tables"),
    _Feature(
        "owner tables",
        "flags owner;",
        "a table is removed with the process that created it",
        "uname -r  # Linux 5.12 or newer has them",
    ),
    _Feature(
        "held connections",
        "chain p { type filter hook prerouting priority -199; reject with tcp reset; }\n"
        "chain n { type nat hook output priority 0; }\n"
        "set s { type ipv4_addr; flags dynamic; timeout 10s; }\n"
        "chain c { type filter hook postrouting priority 2147483646;"
        " update @s { ip saddr limit rate over 9/second } drop;"
        " ip daddr set ct original ip daddr log group 1 drop; }",
        "a connection waits at its first packet until the server has accepted it",
        f"{_MODULES} nft_log nft_limit nfnetlink_log nf_conntrack_netlink nft_chain_nat"
        " nft_reject_inet",
    ),
    _Feature(
        "TPROXY",
        "chain c { type filter hook prerouting priority -50; meta l4proto tcp tproxy to :1; }",
        "run receives its connections with it",
        f"{_MODULES} nft_tproxy",
    ),
    _Feature(
        "redirect",
        "chain c { type nat hook output priority -101; meta l4proto tcp redirect to :1; }",
        "run receives its DNS queries with it",
        f"{_MODULES} nft_chain_nat nft_redir",
    ),
    _Feature(
        "cgroups",
        "set s { typeof socket cgroupv2 level 1; }\n"
        "chain c { type filter hook output priority 0; socket cgroupv2 level 1 @s accept; }",
        "intercept --cgroup tells connections apart with them",
        f"{_MODULES} nft_socket",
    ),
)
_CGROUPS: Final = "cgroups"
_MOUNT_CGROUPS: Final = f"mount -t cgroup2 none {CGROUPS}/unified"
_HELD: Final = "held connections"


def check_features(bare: Outcome, missing: str | None) -> Iterator[Check]:
    """Load a table for each feature, in a network where nothing else is.

    `bare` is what a session came to there, `missing` why nothing can be tried at all.
    """
    complaints: dict[str, str] = {}
    if missing is None:
        try:
            (complaints,) = run_in_child(_try_features, timeout_s=_TIMEOUT_S)
        except (OSError, MachineError) as error:
            missing = f"no network namespace could be made for the test ({_why(error)})"
    for feature in _FEATURES:
        state: State = "skip"
        remedy: tuple[str, ...] = ()
        if missing is not None:
            found = missing
        elif complaint := complaints.get(feature.name) or _flaw(feature, bare):
            state, found = "fail", complaint
            remedy = _remedy(feature, complaint)
        elif feature.name == _CGROUPS and (lack := _no_hierarchy()):
            found, remedy = lack, as_root(_MOUNT_CGROUPS)
        else:
            state, found = "ok", f"{feature.purpose}{_proof(feature, bare)}"
        yield Check(group="kernel", name=feature.name, state=state, found=found, remedy=remedy)


def check_user_namespaces() -> Check:
    """Whether users may make what `run` needs: as the invoking user, or as nobody for root."""
    try:
        ((uid, refusal),) = run_in_child(partial(_make_namespaces, *_user()), timeout_s=_TIMEOUT_S)
    except MachineError as error:
        return _namespaces("skip", error.message)
    if refusal is None:
        return _namespaces("ok", f"users may make them (tried as {_name(uid)})")
    remedy = refusal.command
    if remedy.startswith("sudo "):
        return _namespaces("fail", refusal.message, as_root(remedy.removeprefix("sudo ")))
    return _namespaces("fail", refusal.message, (remedy,))


def _namespaces(state: State, found: str, remedy: tuple[str, ...] = ()) -> Check:
    return Check(group="kernel", name="user namespaces", state=state, found=found, remedy=remedy)


def _flaw(feature: _Feature, bare: Outcome) -> str | None:
    """What a session found although the table loads."""
    return bare.reason if feature.name == _HELD and bare.way == "fails" else None


def _no_hierarchy() -> str | None:
    """Why cgroups cannot be named, although they can be matched."""
    try:
        hierarchy()
    except MachineError as error:
        return error.message
    return None


def _remedy(feature: _Feature, complaint: str) -> tuple[str, ...]:
    if "syntax error" in complaint or "unknown" in complaint:  # an nft older than the feature
        return install("nftables")
    return as_root(feature.remedy) if feature.remedy.startswith(_MODULES) else (feature.remedy,)


def _proof(feature: _Feature, bare: Outcome) -> str:
    return ": connections came through" if feature.name == _HELD and bare.works else ""


def _try_features() -> dict[str, str]:
    """nft's complaints about the features that are not there."""
    enter_network()
    complaints = {}
    for feature in _FEATURES:
        if complaint := _try(feature):
            complaints[feature.name] = complaint
    return complaints


def _try(feature: _Feature) -> str | None:
    done = attempt("nft", "-f", "-", given=f"table inet doctor {{\n{feature.body}\n}}\n")
    if done.returncode != 0:
        return f"nft: {complaint(done)}"
    is_left = attempt("nft", "delete", "table", "inet", "doctor").returncode == 0
    if feature.name == "owner tables" and is_left:
        return "the table stays when its process has ended"
    if feature.name == "TPROXY":
        return _try_transparent_socket()
    return _try_to_hold() if feature.name == _HELD else None


def _try_to_hold() -> str | None:
    try:
        open_log(1, copy_bytes=LONGEST_SYN).close()
        Conntrack().close()
    except OSError as error:
        return f"packets that are held cannot be received: {error.strerror}"
    return None


def _try_transparent_socket() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        try:
            set_ip_transparent(sock)
        except OSError as error:
            return f"a socket cannot be made transparent: {error.strerror}"
    return None


def _user() -> tuple[int, int]:
    """The user to try it as: their id, and their group's."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    try:
        caller = sudo_user() or pwd.getpwnam("nobody")
    except KeyError:
        return _NOBODY, _NOBODY
    return (caller.pw_uid, caller.pw_gid) if caller.pw_uid else (_NOBODY, _NOBODY)


def _make_namespaces(uid: int, gid: int) -> tuple[int, NamespacesRefusedError | None]:
    """Who has tried it, and why it cannot be done; None when it can."""
    if uid != os.geteuid():
        with contextlib.suppress(OSError):  # a root without that power tries it as it is
            processes.become_user(uid, gid)
    tried_as = os.geteuid()
    try:
        unshare_without_power(CLONE_NEWNS | CLONE_NEWNET, root=False)
    except OSError as error:
        return tried_as, explain_refusal(error)
    return tried_as, explain_powerless()


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"


def _why(error: OSError | MachineError) -> str:
    if isinstance(error, MachineError):
        return error.message
    return error.strerror or str(error)
