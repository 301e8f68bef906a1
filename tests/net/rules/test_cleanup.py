"""What is taken for a session's leftovers, among what `ip -j` and nft show; the commands themselves
are tried in tests/e2e/test_cleanup.py."""

from __future__ import annotations

import subprocess

import pytest
import trio

from mitml4.net.identity import Identity
from mitml4.net.isolation import enter_network
from mitml4.net.rules.cleanup import Policy, Remains, find_remains, remains_of
from mitml4.net.rules.ruleset import policy_routes
from mitml4.net.tools import environment
from mitml4.net.trial.apart import apart

SLOT = Identity(5)
LINK = "mitml4_5p"
DEL_NOP, DEL_GOTO, DEL_LOOKUP = (undo for _, undo in policy_routes(SLOT)[1:])
DEL_ROUTE = policy_routes(SLOT)[0][1]

# As iproute2 6.1 prints them.
OF_KERNEL = (
    {"priority": 0, "src": "all", "table": "local"},
    {"priority": 32766, "src": "all", "table": "main"},
)
MARK = {"fwmark": "0x4d850000", "fwmask": "0xffff0000"}
NOP = {"priority": 317, "src": "all", "nop": None}
GOTO = {"priority": 315, "src": "all", **MARK, "iif": "lo", "goto": 317}
LOOKUP = {"priority": 316, "src": "all", **MARK, "table": "1295253509"}
ROUTE = {"type": "local", "dst": "default", "dev": "lo", "table": "1295253509", "scope": "host"}
OF_HOST = {"type": "local", "dst": "127.0.0.1", "dev": "lo", "table": "local", "scope": "host"}


def remains(*rules, routes=(), links=(), tables=None) -> Remains:
    v4 = Policy((*OF_KERNEL, *rules), (OF_HOST, *routes))
    return remains_of({"-4": v4, "-6": Policy(OF_KERNEL)}, links, tables or {})


def undone(found: Remains) -> list[str]:
    """The commands for IPv4 policy routes, all of one slot."""
    (leftover,) = found.left
    assert leftover.identity == SLOT
    assert {family for family, _ in leftover.ip} == {"-4"}
    return [command for _, command in leftover.ip]


def test_where_no_session_has_been_there_is_nothing() -> None:
    assert remains() == Remains((), ())


def test_policy_routes_without_a_table_are_left_in_each_ip_version() -> None:
    everything = Policy((*OF_KERNEL, GOTO, LOOKUP, NOP), (ROUTE,))
    (leftover,) = remains_of({"-4": everything, "-6": everything}, (), {}).left
    undo = [command for _, command in policy_routes(SLOT)]
    assert leftover.ip == tuple((family, each) for family in ("-4", "-6") for each in undo)
    assert leftover.nft == ()


@pytest.mark.parametrize("tables", [{"mitml4_5": False}, {"mitml4_5": False, "mitml4_6": True}])
def test_a_table_that_nobody_owns_is_left(tables) -> None:
    found = remains(LOOKUP, tables=tables)
    assert undone(found) == [DEL_LOOKUP]
    assert found.left[0].shown == ("nft delete table inet mitml4_5", f"ip -4 {DEL_LOOKUP}")
    assert found.running == tuple(table for table, owned in tables.items() if owned)


def test_of_a_session_that_runs_nothing_is_left() -> None:
    found = remains(GOTO, LOOKUP, NOP, routes=[ROUTE], links=[LINK], tables={"mitml4_5": True})
    assert found == Remains((), ("mitml4_5",))


def test_the_session_of_another_slot_holds_nothing_of_this_one() -> None:
    found = remains(LOOKUP, tables={"mitml4_50": True})
    assert undone(found) == [DEL_LOOKUP]


@pytest.mark.parametrize(
    ("rules", "routes", "expected"),
    [
        ([], [ROUTE], [DEL_ROUTE]),
        ([GOTO], [], [DEL_GOTO]),
        ([LOOKUP], [], [DEL_LOOKUP]),
        ([NOP, GOTO], [], [DEL_NOP, DEL_GOTO]),
        ([NOP], [ROUTE], [DEL_ROUTE, DEL_NOP]),
        ([NOP | {"src": "192.0.2.0"}, GOTO], [], [DEL_GOTO]),
        ([LOOKUP, GOTO, NOP], [ROUTE], [DEL_ROUTE, DEL_NOP, DEL_GOTO, DEL_LOOKUP]),
    ],
    ids=["route", "goto", "lookup", "nop and goto", "route and nop", "nop of others", "all"],
)
def test_only_what_is_there_is_undone_in_order(rules, routes, expected) -> None:
    assert undone(remains(*rules, routes=routes)) == expected


def test_a_rule_that_does_nothing_is_not_ours_by_its_number_alone() -> None:
    assert remains(NOP) == Remains((), ())


@pytest.mark.parametrize(
    "rule",
    [
        GOTO | {"fwmark": "0x4d840000"},
        GOTO | {"priority": 314},
        GOTO | {"iif": "eth0"},
        GOTO | {"goto": 32766},
        GOTO | {"src": "192.0.2.0"},
        LOOKUP | {"fwmark": "0x1"},
        LOOKUP | {"table": "main"},
    ],
)
def test_a_rule_of_others_is_left_alone(rule) -> None:
    assert remains(rule) == Remains((), ())


@pytest.mark.parametrize(
    "route", [ROUTE | {"dev": "eth0"}, ROUTE | {"dst": "192.0.2.1"}, ROUTE | {"table": "100"}]
)
def test_a_route_of_others_is_left_alone(route) -> None:
    assert remains(routes=[route]) == Remains((), ())


def test_the_pair_of_a_probe_is_removed_by_its_name() -> None:
    assert undone(remains(links=["veth0", LINK])) == [f"link del {LINK}"]
    assert remains(links=["veth0", f"{LINK}1"]) == Remains((), ())


def test_a_table_of_others_whose_name_begins_alike_is_not_ours() -> None:
    def look() -> Remains:
        enter_network()
        subprocess.run(["nft", "add table inet mitml4_5x"], env=environment(), check=True)
        return trio.run(find_remains)

    assert apart(look, patience_s=20) == [Remains((), ())]
