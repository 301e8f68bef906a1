"""The state of a machine's network as text: two equal snapshots mean that nothing was left.

It contains everything that mitml4 changes or might change: the nftables rules, policy rules, routes
of every table, and the sysctls for forwarding and filtering. It excludes counters, such as those in
the rules of a container engine, and the elements of sets, which rules add and time-outs remove.
"""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from difflib import unified_diff
from pathlib import Path
from typing import Final

__all__ = ["difference", "take_snapshot"]

_COMMANDS: Final = (
    ("nft", "--stateless", "--terse", "list", "ruleset"),
    ("ip", "-brief", "-batch", "-"),
    ("ip", "-6", "rule", "show"),
)
_BATCH: Final = "rule show\nroute show table all\nlink show\n"
"""For `ip -batch`, which shows routes of both versions."""
_SYSCTLS: Final = (
    "ipv4/ip_forward",
    "ipv4/conf/*/forwarding",
    "ipv4/conf/*/rp_filter",
    "ipv4/conf/*/route_localnet",
    "ipv4/conf/*/src_valid_mark",
    "ipv4/conf/*/accept_local",
    "ipv4/conf/*/send_redirects",
    "ipv6/conf/*/forwarding",
    "netfilter/nf_conntrack_acct",
)


def take_snapshot() -> str:
    """The state of the calling thread's network namespace (`namespace.call(take_snapshot)`).

    A command that is missing or not permitted is noted as such, the same way in both snapshots.
    """
    parts = [_section(command) for command in _COMMANDS]
    return "\n".join([*parts, "# sysctl", *_sysctls()]) + "\n"


def difference(before: str, after: str) -> str:
    """The lines that differ, as a unified diff; empty if nothing was left or lost."""
    lines = unified_diff(
        before.splitlines(), after.splitlines(), "before", "after", lineterm="", n=1
    )
    return "\n".join(lines)


def _section(command: tuple[str, ...]) -> str:
    title = "# " + " ".join(command)
    if shutil.which(command[0]) is None:
        return f"{title}\n(not installed)"
    result = subprocess.run(command, input=_BATCH, capture_output=True, text=True)
    # Remove the timer of routes that the kernel learns (a neighbour, an IPv6 expiry).
    lines = [line.partition(" expires ")[0].rstrip() for line in result.stdout.splitlines()]
    if result.returncode != 0:
        lines.append(result.stderr.strip())
    return "\n".join([title, *lines])


def _sysctls() -> list[str]:
    root = Path("/proc/sys/net")
    paths = sorted(path for pattern in _SYSCTLS for path in root.glob(pattern))
    settings = []
    for path in paths:
        with suppress(FileNotFoundError):  # an interface may go while its settings are read
            settings.append(f"{path.relative_to(root)} = {path.read_text().strip()}")
    return settings
