"""What the rules of others do to connections that mitml4 intercepts, and to those that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from mitml4.net.firewall.chains import Chain, Rule
from mitml4.regex import regex

__all__ = [
    "counts_connections",
    "drop_of_ours",
    "fate_of_answers",
    "intercepts",
    "mentions_conntrack",
    "sets_zone",
]

# For a forward chain's rules: which ones do not concern a server's answers, and which ones decide
# on them.
_NOT_FOR_ANSWERS: Final = regex(
    r"\bct state (?!!)(?![\w,{}: ]*\bestablished\b)|\bct state != [\w,{} ]*\bestablished\b"
    r"|\bct direction original\b|\btcp flags\b|\b(?:udp|icmp|icmpv6)\b"
)
# The same for rules about what this host sends: new TCP connections to any server concern ours.
_NOT_FOR_OURS: Final = regex(
    r"\bct state (?!!)(?![\w,{}: ]*\bnew\b)|\b(?:udp|icmp|icmpv6|daddr|mark|tcp flags)\b"
    r"|\boif(?:name)? \"?lo\b|\bxt match (?!\"?owner\b)"
)
_LETS_OURS_OUT: Final = regex(r"^(?:counter )?accept$|\bmeta mark .* accept$")
_JUMP: Final = regex(r"\b(?:jump|goto) (\S+)$")
_DROPS: Final = regex(r"\bdrop$|\breject\b")
_LETS_ALL_IN: Final = regex(
    r"\bct state [\w,{} ]*\bestablished\b.* accept$|\bct state vmap .*\bestablished : accept\b"
    r"|^(?:counter )?accept$|\bxt match \"?conntrack\b"
)
_INTERCEPTS: Final = regex(r"\b(?:tproxy|redirect)\b|\bxt target \"?(?:TPROXY|REDIRECT)\b")
_SETS_ZONE: Final = regex(r"\bct (?:original |reply )?zone set\b")
_CONNTRACK: Final = regex(r"\b(?:ct|CT|notrack|NOTRACK|xt)\b")
_COUNTS: Final = regex(r"\bct count\b|\bxt match \"?connlimit\b")
_NOT_TCP: Final = regex(r"\b(?:udp|icmp|icmpv6)\b|\boif(?:name)? \"?lo\b")


def drop_of_ours(rules: Sequence[Rule], chain: Chain, within: tuple[str, ...] = ()) -> Rule | None:
    """The first rule of a chain of what this host sends that may drop our connections to servers:
    it names no destination, and no rule before it accepts all or what is marked."""
    for rule in rules:
        if rule.chain != chain:
            continue
        if _LETS_OURS_OUT.search(rule.gist):
            return None
        if _NOT_FOR_OURS.search(rule.gist):
            continue
        if (jump := _JUMP.search(rule.gist)) and jump[1] not in within:
            if found := drop_of_ours(rules, _inner(chain, jump[1]), (*within, jump[1])):
                return found
        elif _DROPS.search(rule.gist):
            return rule
    return None


def fate_of_answers(
    rules: Sequence[Rule], chain: Chain, within: tuple[str, ...] = ()
) -> str | None:
    """`accept` or `drop`, whichever a forward chain's rules reach first for a server's answers;
    None if neither."""
    for rule in rules:
        if rule.chain != chain or _NOT_FOR_ANSWERS.search(rule.gist):
            continue
        if (jump := _JUMP.search(rule.gist)) and jump[1] not in within:
            if fate := fate_of_answers(rules, _inner(chain, jump[1]), (*within, jump[1])):
                return fate
        elif _DROPS.search(rule.gist):
            return "drop"
        elif _LETS_ALL_IN.search(rule.gist):
            return "accept"
    return None


def intercepts(rule: Rule) -> bool:
    """Whether it redirects connections."""
    return _INTERCEPTS.search(rule.gist) is not None


def sets_zone(rule: Rule) -> bool:
    """Whether it puts connections into a conntrack zone."""
    return _SETS_ZONE.search(rule.gist) is not None


def mentions_conntrack(rule: Rule) -> bool:
    """Whether it may need conntrack, or exempt packets from it. What only iptables knows may."""
    return _CONNTRACK.search(rule.gist) is not None


def counts_connections(rule: Rule) -> bool:
    """Whether it depends on the number of connections."""
    return _COUNTS.search(rule.gist) is not None and not _NOT_TCP.search(rule.gist)


def _inner(chain: Chain, name: str) -> Chain:
    """The chain to which a rule of another jumps."""
    return replace(chain, name=name, hook=None, policy=None)
