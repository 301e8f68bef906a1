"""What sessions have left in this network namespace: the policy routes of those that were killed
together with their guard.

A session's table cannot outlive it, and is there as long as it lives: so whatever bears a slot's
marks and numbers, while nobody holds the slot's table, is left. To remove it the table is held, and
no session comes in between.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from mitml4.errors import MachineError
from mitml4.net import capabilities
from mitml4.net.capabilities import Capability
from mitml4.net.identity import SLOTS, Identity
from mitml4.net.rules.guard import Guard
from mitml4.net.rules.probe import probe_interface
from mitml4.net.rules.ruleset import policy_routes
from mitml4.net.tools import check_tools, run_ip, run_nft

__all__ = ["Leftover", "Policy", "Remains", "find_remains", "remains_of", "remove_leftover"]

_FAMILIES: Final = ("-4", "-6")
_TABLE: Final = re.compile(r"^table inet (mitml4_[0-9]+)$", re.MULTILINE)
_OWNED: Final = re.compile(r"^\s*flags .*\bowner\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Leftover:
    """What is left of a session, as the commands that remove it."""

    identity: Identity
    nft: tuple[str, ...]
    ip: tuple[tuple[str, str], ...]
    """IP version and command, as for `ip -4`."""

    @property
    def shown(self) -> tuple[str, ...]:
        """As one would type them."""
        return (
            *(f"nft {command}" for command in self.nft),
            *(f"ip {family} {command}" for family, command in self.ip),
        )


@dataclass(frozen=True, slots=True)
class Remains:
    """What there is of mitml4 in a network namespace."""

    left: tuple[Leftover, ...]
    running: tuple[str, ...]
    """The tables of sessions."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy rules and local routes of an IP version, as `ip -j` shows them."""

    rules: Sequence[Mapping[str, Any]] = ()
    routes: Sequence[Mapping[str, Any]] = ()


async def find_remains() -> Remains:
    """Look, and change nothing. Raises MachineError without nft, ip or CAP_NET_ADMIN."""
    check_tools()
    if not capabilities.has(Capability.NET_ADMIN):
        raise MachineError("cleaning up needs CAP_NET_ADMIN", hint="run as root: sudo mitml4 …")
    # Before the tables: a session that has begun meanwhile shows its table and nothing else.
    policies = {family: await _policy(family) for family in _FAMILIES}
    links = {link["ifname"] for link in _parse(await run_ip("-j", "link", "show", "type", "veth"))}
    tables = {table: await _is_owned(table) for table in await _tables()}
    return remains_of(policies, links, tables)


def remains_of(
    policies: Mapping[str, Policy], links: Collection[str], tables: Mapping[str, bool]
) -> Remains:
    """What of all this is mitml4's, and whether a session is still there for it.

    `policies` are of each IP version (as in `ip -4`), `links` the names of virtual interfaces,
    `tables` those with a name of ours, and whether a process owns them.
    """
    left = []
    for identity in map(Identity, range(SLOTS)):
        owned = tables.get(identity.table)
        if owned:
            continue
        nft = (f"delete table inet {identity.table}",) if owned is not None else ()
        ip = [
            (family, undo)
            for family, policy in policies.items()
            for undo in _left_of(identity, policy)
        ]
        if (interface := probe_interface(identity)) in links:
            ip.append(("-4", f"link del {interface}"))
        if nft or ip:
            left.append(Leftover(identity, nft, tuple(ip)))
    return Remains(tuple(left), tuple(table for table, owned in tables.items() if owned))


async def remove_leftover(leftover: Leftover) -> bool:
    """Remove it; False where a session has come to it meanwhile, which deals with it itself.

    Raises MachineError.
    """
    for command in leftover.nft:
        await run_nft(*command.split())
    guard = await Guard.hold(leftover.identity)
    if guard is None:
        return False
    try:
        for family, command in leftover.ip:
            await run_ip(family, "-force", batch=f"{command}\n")
    finally:
        await guard.aclose()
    return True


async def _policy(family: str) -> Policy:
    rules = routes = ""
    with suppress(MachineError):  # a kernel without IPv6
        rules = await run_ip("-j", family, "rule", "show")
        routes = await run_ip("-j", family, "route", "show", "table", "all", "type", "local")
    return Policy(_parse(rules), _parse(routes))


def _left_of(identity: Identity, there: Policy) -> Iterator[str]:
    """The commands that undo what is there of a slot's policy routes, in their order."""
    first, table = identity.rule_priority, str(identity.route_table)
    mark = {"fwmark": f"{identity.tproxy_mark:#x}", "src": "all"}
    nop = {"priority": first + 2, "src": "all", "nop": None}
    shapes = (
        (there.routes, {"dst": "default", "dev": "lo", "table": table}),
        (there.rules, nop),
        (there.rules, mark | {"priority": first, "iif": "lo", "goto": first + 2}),
        (there.rules, mark | {"priority": first + 1, "table": table}),
    )
    found = [any(shape.items() <= item.items() for item in items) for items, shape in shapes]
    if found == [False, True, False, False]:
        return  # a rule that does nothing, and bears no mark of ours
    for (_, undo), is_there in zip(policy_routes(identity), found, strict=True):
        if is_there:
            yield undo


async def _tables() -> list[str]:
    return _TABLE.findall(await run_nft("list", "tables", "inet"))


async def _is_owned(table: str) -> bool:
    """Whether a process holds it. One that has gone meanwhile was held."""
    try:
        return _OWNED.search(await run_nft("list", "table", "inet", table)) is not None
    except MachineError:
        return True


def _parse(text: str) -> list[dict[str, Any]]:
    """ip prints nothing at all where there is nothing."""
    items: list[dict[str, Any]] = json.loads(text or "[]")
    return items
