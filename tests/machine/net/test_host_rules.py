"""Others' rules: read, copied, and opened, in networks of the tests' own."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mitml4.errors import MachineError
from mitml4.net.firewall.host_rules import HostRules, RulesHiddenError
from mitml4.net.firewall.legacy import LegacyTables
from mitml4.net.isolation import enter_network, enter_user_namespace
from mitml4.net.tools import environment
from mitml4.net.trial.child import run_in_child

WALL = """
table inet wall {
  set friends { type ipv4_addr; flags interval; elements = { 192.0.2.0/24 }; }
  chain door {
    type filter hook input priority filter; policy drop;
    ct state established,related accept comment "not a redirect {"
    iif lo accept
    ip saddr @friends jump inner
  }
  chain inner { tcp dport 22 accept; }
}
"""
DIVERTED = """
table ip proxy {
  chain p {
    type filter hook prerouting priority mangle;
    tcp dport 80 tproxy to :8080 accept
    tcp dport 81 accept comment "redirect"
  }
  chain n { type nat hook output priority -100; tcp dport 443 redirect to :8443; }
}
"""


def run(*argv: str, given: str = "") -> str:
    done = subprocess.run(argv, input=given, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_network(work: Callable[[], Any]) -> Any:
    def inside() -> Any:
        enter_network()
        return work()

    return run_in_child(inside, timeout_s=20)[0]


def read(*texts: str, commands: tuple[str, ...] = ()) -> HostRules:
    """The rules of a network in which these are in force."""

    def work() -> HostRules:
        run("nft", "-f", "-", given="\n".join(texts))
        for command in commands:
            run(*shlex.split(command))
        return HostRules.read()

    return in_network(work)


def copied(rules: HostRules) -> tuple[int, str]:
    """How many lines a copy lacks, and what it is then."""
    return in_network(lambda: (rules.copy(), run("nft", "list", "ruleset")))


def test_input_chains_are_found_with_their_policy() -> None:
    (chain,) = read(WALL).inputs
    assert str(chain) == "inet wall door"
    assert (chain.hook, chain.policy, chain.of_iptables) == ("input", "drop", False)


def test_an_empty_network_has_no_chains() -> None:
    rules = read()
    assert (rules.chains, rules.rules, rules.tables) == ((), (), set())


def test_interceptors_are_told_by_what_they_do_and_not_by_comments() -> None:
    rules = read(WALL, DIVERTED)
    assert [rule.text for rule in rules.interceptors] == [
        "tcp dport 80 tproxy to :8080 accept",
        "tcp dport 443 redirect to :8443",
    ]


def test_the_removal_of_a_rule_removes_it() -> None:
    def work() -> tuple[HostRules, HostRules]:
        run("nft", "-f", "-", given=DIVERTED)
        before = HostRules.read()
        for rule in before.interceptors:
            run(*shlex.split(rule.removal))
        return before, HostRules.read()

    before, after = in_network(work)
    assert len(before.interceptors) == 2
    assert after.interceptors == ()
    assert len(after.rules) == len(before.rules) - 2


def test_a_copy_is_the_same() -> None:
    original = in_network(
        lambda: (
            run("nft", "-f", "-", given=WALL + DIVERTED),
            HostRules.read(),
            run("nft", "-t", "list", "ruleset"),
        )
    )
    missing, copy = copied(original[1])
    assert missing == 0
    assert copy == original[2]


def test_what_is_not_there_is_left_out_and_counted() -> None:
    """Interfaces by number; a rule in two lines; a chain that only an interface can have."""
    text = """
table inet here {
  chain door {
    type filter hook input priority filter; policy drop;
    iif "theirs" accept
    iifname "theirs" accept
  }
}
table netdev early {
  chain c { type filter hook ingress device "theirs" priority 0; }
}
"""

    def work() -> HostRules:
        run("ip", "link", "add", "theirs", "type", "veth")
        run("nft", "-f", "-", given=text)
        return HostRules.read()

    missing, copy = copied(in_network(work))
    assert missing == 1
    assert 'iifname "theirs" accept' in copy
    assert "iif " not in copy
    assert "policy drop" in copy
    assert "netdev" not in copy


def test_a_block_goes_as_a_whole() -> None:
    listing = """\
table inet here { # handle 1
	set odd { # handle 2
		type no_such_type
		flags interval
	}
	chain door { # handle 3
		type filter hook input priority filter; policy drop;
		ip saddr @odd accept # handle 4
		tcp dport 22 accept # handle 5
	}
}
"""
    missing, copy = copied(HostRules(listing))
    assert missing >= 2
    assert "tcp dport 22 accept" in copy
    assert "odd" not in copy


def test_rules_that_nft_cannot_read_at_all_are_an_error() -> None:
    with pytest.raises(MachineError, match="cannot be copied"):
        in_network(HostRules("table inet x {\n\tchain c {\n\t\tcounter\n").copy)


def test_the_tables_of_sessions_are_not_others() -> None:
    rules = read("table inet mitml4_7 {\nchain c { type filter hook input priority 0; }\n}", WALL)
    assert "inet mitml4_7" in rules.tables
    assert {chain.table for chain in rules.chains} == {"wall"}
    assert "mitml4_7" not in copied(rules)[1]


def test_a_table_that_somebody_owns_is_copied_without_its_owner() -> None:
    listing = "table inet fw { # handle 1\n\tflags owner\n\n\tchain c { # handle 2\n\t}\n}\n"
    rules = HostRules(listing + listing.replace("fw", "other").replace("\tflags owner\n", ""))
    assert [(chain.table, chain.is_owned) for chain in rules.chains] == [
        ("fw", True),
        ("other", False),
    ]
    missing, copy = copied(rules)
    assert missing == 0
    assert "chain c" in copy


@pytest.mark.parametrize("program", ["iptables-nft", "nft"])
def test_a_chain_of_what_is_sent_is_opened_by_the_mark_of_packets(program: str) -> None:
    commands = {
        "iptables-nft": ("iptables-nft -P OUTPUT DROP", "iptables-nft -P FORWARD DROP"),
        "nft": (
            "nft add table inet wall",
            "nft add chain inet wall o { type filter hook output priority 0 ; policy drop ; }",
            "nft add chain inet wall p { type filter hook postrouting priority 0 ; }",
        ),
    }

    def work() -> str:
        for command in commands[program]:
            run(*shlex.split(command))
        (chain,) = HostRules.read().dropping_sent
        run(*shlex.split(chain.opening))
        return run("nft", "list", "ruleset")

    listing = in_network(work)
    assert "mark" in listing
    assert "connmark" not in listing
    assert "ct mark" not in listing


def test_a_chain_of_iptables_is_opened_so_that_iptables_can_still_read_it() -> None:
    commands = (
        "iptables-nft -P INPUT DROP",
        'iptables-nft -A INPUT -m comment --comment "redirect { here" -j ACCEPT',
        "ip6tables-nft -P INPUT DROP",
    )

    def work() -> tuple[list[bool], str]:
        for command in commands:
            run(*shlex.split(command))
        chains = HostRules.read().inputs
        for chain in chains:
            run(*shlex.split(chain.opening))
        return [chain.of_iptables for chain in chains], run("iptables-nft", "-S", "INPUT")

    of_iptables, listing = in_network(work)
    assert of_iptables == [True, True]
    assert listing.splitlines()[1] == (
        "-A INPUT -m connmark --mark 0x4d000000/0xff000000 -j ACCEPT"
    )


def test_what_only_iptables_understands_is_left_out_and_counted() -> None:
    commands = (
        "iptables-nft -P INPUT DROP",
        "iptables-nft -A INPUT -m recent --name x --set -j DROP",
        "iptables-nft -t mangle -A PREROUTING -p tcp -j TPROXY --on-port 8080",
        "iptables-nft -t nat -A PREROUTING -p tcp -j REDIRECT --to-ports 8080",
    )
    rules = read(commands=commands)
    assert len(rules.interceptors) == 2
    missing, copy = copied(rules)
    assert missing == 2
    assert "policy drop" in copy


def test_without_power_the_rules_are_hidden() -> None:
    """A user namespace has no power over the network that it was made in."""

    def work() -> None:
        enter_user_namespace(root=True)
        HostRules.read()

    with pytest.raises(RulesHiddenError):
        run_in_child(work, timeout_s=20)


# --- iptables of the older kind ----------------------------------------------------------------


LEGACY = (
    "iptables-legacy -P INPUT DROP",
    "iptables-legacy -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT",
    'iptables-legacy -A INPUT -m comment --comment "-j REDIRECT" -j ACCEPT',
    "iptables-legacy -t nat -A PREROUTING -p tcp --dport 443 -j REDIRECT --to-ports 8080",
    "ip6tables-legacy -A INPUT -p tcp --dport 22 -j ACCEPT",
)


def test_the_older_iptables_is_seen_too() -> None:
    rules = read(WALL, commands=LEGACY)
    assert [str(chain) for chain in rules.inputs] == [
        "inet wall door",
        "iptables-legacy filter INPUT",
        "ip6tables-legacy filter INPUT",
    ]
    assert [chain.policy for chain in rules.inputs] == ["drop", "drop", "accept"]
    (rule,) = rules.interceptors
    assert str(rule) == (
        "iptables-legacy nat PREROUTING: -p tcp -m tcp --dport 443 -j REDIRECT --to-ports 8080"
    )


def test_a_copy_of_the_older_iptables_is_the_same() -> None:
    def save() -> list[str]:
        programs = ("iptables-legacy-save", "ip6tables-legacy-save")
        lines = [line for program in programs for line in run(program).splitlines()]
        return sorted(line for line in lines if not line.startswith("#"))

    def original() -> tuple[HostRules, list[str]]:
        for command in LEGACY:
            run(*shlex.split(command))
        return HostRules.read(), save()

    rules, saved = in_network(original)
    assert in_network(lambda: (rules.copy(), save())) == (0, saved)


def test_a_rule_of_the_older_iptables_that_cannot_be_copied_is_counted() -> None:
    dump = ("*filter", ":INPUT DROP [0:0]", "-A INPUT -m no_such_match -j DROP", "COMMIT")
    rules = HostRules("", LegacyTables({"iptables-legacy": dump}))
    missing, listing = in_network(lambda: (rules.copy(), run("iptables-legacy", "-S")))
    assert missing == 1
    assert "-P INPUT DROP" in listing


def test_the_older_iptables_is_opened_and_cleared_by_its_own_commands() -> None:
    def work() -> tuple[HostRules, str]:
        for command in LEGACY:
            run(*shlex.split(command))
        rules = HostRules.read()
        for command in (*(each.opening for each in rules.inputs), rules.interceptors[0].removal):
            run(*shlex.split(command))
        return HostRules.read(), run("iptables-legacy", "-S", "INPUT")

    rules, listing = in_network(work)
    assert rules.interceptors == ()
    assert "--mark 0x4d000000/0xff000000 -j ACCEPT" in listing.splitlines()[1]


def test_reading_makes_no_tables() -> None:
    def work() -> list[str]:
        HostRules.read()
        names = Path("/proc/self/net/ip_tables_names")
        return names.read_text().split() if names.exists() else []

    assert in_network(work) == []


def chain_of(hook_name: str, body: str, policy: str = "accept") -> HostRules:
    """As nft lists it."""
    lines = [f"\t\t{line} # handle {at}" for at, line in enumerate(body.splitlines(), 5)]
    hook = f"\t\ttype filter hook {hook_name} priority filter; policy {policy};"
    others = ["\tchain apart { # handle 2", "\t\tip saddr 192.0.2.1 drop # handle 3", "\t}"]
    chain = ["\tchain c { # handle 4", hook, *lines, "\t}"]
    return HostRules("\n".join(["table inet wall { # handle 1", *others, *chain, "}"]))


@pytest.mark.parametrize(
    ("body", "policy", "drops"),
    [
        ("", "accept", False),
        ("", "drop", True),
        ("ip saddr 192.0.2.1 drop", "accept", True),
        ("jump apart", "accept", True),
        ("tcp sport 443 reject", "accept", True),
        ("ct state established,related accept\nip saddr 192.0.2.1 drop", "drop", False),
        ("ct state { established, related } counter packets 1 bytes 2 accept", "drop", False),
        ("ct state established,related accept\njump apart", "accept", False),
        ("jump apart\nct state established,related accept", "accept", True),
        ("ct state vmap { invalid : drop, established : accept }", "drop", False),
        ("ct state new ip daddr 192.0.2.1 drop", "accept", False),
        ("ct state != { established, related } drop", "accept", False),
        ("tcp flags & (syn | ack) == syn drop", "accept", False),
        ("udp dport 443 reject", "accept", False),
        ('accept comment "drop"', "drop", False),
        ("ip daddr 192.0.2.1 accept", "drop", True),
        ("jump nowhere", "accept", False),
        ("jump c", "accept", False),
    ],
)
def test_a_chain_that_drops_answers_is_told_from_one_that_knows_connections(
    body: str, policy: str, drops: bool
) -> None:
    found = chain_of("forward", body, policy).dropping_answers
    assert [str(chain) for chain in found] == ["inet wall c"] * drops


OLDER = (
    "-P FORWARD DROP",
    "-A FORWARD -m conntrack --ctstate NEW -j DROP",
    "-A FORWARD -m state --state RELATED,ESTABLISHED -j ACCEPT",
    "-N apart",
    "-A apart -m owner ! --uid-owner 0 -m comment --comment accept -j DROP",
    "-A OUTPUT -o lo -j ACCEPT",
    "-A OUTPUT -p udp --dport 443 -j DROP",
    "-A OUTPUT -d 192.0.2.1 -j DROP",
    "-A OUTPUT -m conntrack --ctstate ESTABLISHED -j DROP",
    "-A OUTPUT -p tcp --tcp-flags SYN,FIN SYN,FIN -j DROP",
    "-A OUTPUT -p tcp -m connlimit --connlimit-above 9 -j REJECT --reject-with tcp-reset",
    "-A OUTPUT -p tcp -j apart",
    "-t mangle -P OUTPUT DROP",
    "-t raw -A PREROUTING -i eth0 -j CT --zone 7",
)


def test_the_older_iptables_is_searched_as_nft_is() -> None:
    rules = read(commands=tuple(f"iptables-legacy {each}" for each in OLDER))
    assert [str(chain) for chain in rules.dropping_sent] == ["iptables-legacy mangle OUTPUT"]
    ((chain, rule),) = rules.drops_of_sent
    assert chain.opening.startswith("iptables-legacy -t filter -I OUTPUT -m mark --mark 0x4d0")
    assert str(rule).startswith("iptables-legacy filter apart: -m owner ! --uid-owner 0")
    assert rules.dropping_answers == ()
    assert ["connlimit" in rule.text for rule in rules.counts_of_sent] == [True]
    assert [rule.text for rule in rules.zones] == ["-i eth0 -j CT --zone 7"]
    assert rules.mention_conntrack
    rules = read(commands=("iptables-legacy -A FORWARD -s 192.0.2.1/32 -j DROP",))
    assert [str(chain) for chain in rules.dropping_answers] == ["iptables-legacy filter FORWARD"]


@pytest.mark.parametrize(
    ("body", "rules"),
    [
        ("ct count over 9 reject", ["ct count over 9 reject"]),
        ('xt match "connlimit" reject', ['xt match "connlimit" reject']),
        ("udp dport 53 ct count over 9 drop", []),
        ("limit rate 5/second accept", []),
    ],
)
def test_a_rule_that_counts_connections_is_found(body: str, rules: list[str]) -> None:
    assert [rule.text for rule in chain_of("output", body).counts_of_sent] == rules
    assert chain_of("forward", body).counts_of_sent == ()


def test_a_rule_that_sets_a_zone_is_found() -> None:
    for body in ("ct zone set 7", "ct original zone set 7", "ct reply zone set iif map @m"):
        assert len(chain_of("prerouting", body).zones) == 1
    assert chain_of("prerouting", "ct zone 7 accept").zones == ()


@pytest.mark.parametrize(
    ("body", "mentions"),
    [
        ("ct state established accept", True),
        ("udp dport 53 notrack", True),
        ('xt target "CT"', True),
        ("tcp dport 80 accept", False),
        ('accept comment "ct state"', False),
    ],
)
def test_a_rule_that_may_need_conntrack_is_found(body: str, mentions: bool) -> None:
    assert chain_of("prerouting", body).mention_conntrack == mentions


@pytest.mark.parametrize(
    ("body", "dropping"),
    [
        ("meta skuid != 0 drop", "meta skuid != 0 drop"),
        ("tcp dport 80 drop", "tcp dport 80 drop"),
        ("tcp dport { 25, 80 } counter packets 1 bytes 2 reject", "tcp dport { 25, 80 } counter"),
        ("ip saddr 192.0.2.1 accept\nct state new drop", "ct state new drop"),
        ("jump apart", "ip saddr 192.0.2.1 drop"),
        ('xt match "owner" counter drop', 'xt match "owner" counter drop'),
        ('oifname "eth0" drop comment "mark"', 'oifname "eth0" drop'),
        ("", None),
        ("accept\ndrop", None),
        ("meta mark & 0xffff0000 == 0x4d340000 accept\ntcp dport 80 drop", None),
        ("ct state invalid drop", None),
        ("udp dport 443 drop", None),
        ("ip daddr 192.0.2.9 drop", None),
        ('oifname "lo" drop', None),
        ("tcp flags & (fin | syn) == fin | syn drop", None),
        ("jump c", None),
    ],
)
def test_a_rule_that_may_drop_our_connections_is_found(body: str, dropping: str | None) -> None:
    found = chain_of("output", body).drops_of_sent
    assert [str(chain) for chain, _ in found] == ["inet wall c"] * (dropping is not None)
    assert all((dropping or "") in rule.text for _, rule in found)
    assert not chain_of("output", body, "drop").drops_of_sent  # named for its policy
    assert not chain_of("input", body).drops_of_sent
