"""Run other projects' test suites directly and through `mitml4 run --loopback`, and compare.

    python tools/foreign_suites.py                 all suites, in each way
    python tools/foreign_suites.py httpcore h11    only these
    python tools/foreign_suites.py --edit none     only without editing
    python tools/foreign_suites.py --edit script   with hooks that read all and change nothing
    python tools/foreign_suites.py --edit rules    with rules that may match, and never do
    python tools/foreign_suites.py --list

A suite is a project's source distribution from PyPI, or Debian's, with its tests. Those that have
another result through mitml4 are run again, twice. Tests that differ every time are printed with
the reason that docs/run.md gives for them, under "Other projects' tests"; the exit code is 1 if one
has none. A table of the numbers comes last. Each suite is installed into a separate environment, in
a temporary directory. One that cannot be installed is left out, and the output says why.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from foreign.checkouts import CHECKOUTS, Checkout
from foreign.suites import SUITES

ROOT: Final = Path(__file__).parent.parent
UNCHANGING: Final = ROOT / "tools" / "unchanging"
EDITS: Final[Mapping[str, tuple[str, ...]]] = {
    "none": (),
    "script": ("--script", str(UNCHANGING / "identity.py")),
    "rules": ("--rules", str(UNCHANGING / "never.toml")),
}
"""Options for no editing, and those with which mitml4 edits each connection and changes nothing."""
REASONS: Final = ROOT / "docs" / "run.md"
TRIES: Final = 2
_ROW: Final = re.compile(r"\| (?P<suite>[\w.-]+) \| `(?P<tests>[^`]+)` \| (?P<reason>.+) \|")


@dataclass(frozen=True)
class Reason:
    """Why tests have another result, from docs/run.md."""

    suite: str
    tests: str
    text: str


def reasons() -> list[Reason]:
    """The rows of docs/run.md."""
    found = map(_ROW.fullmatch, REASONS.read_text().splitlines())
    return [Reason(row["suite"], row["tests"], row["reason"]) for row in found if row]


def compare(
    checkout: Checkout, plain: dict[str, set[str]], through: Sequence[str]
) -> dict[str, tuple[str, str]]:
    """The results that differ: (directly, through mitml4).

    A test differs if at least two results through mitml4 never occur directly. `plain` has the
    results that occurred directly; those of more runs are added.
    """
    inside = {name: [end] for name, end in checkout.run(through).items()}
    names = [name for name in plain if not plain[name].issuperset(inside.get(name, ["missing"]))]
    for _ in range(TRIES if names else 0):
        again, through_again = checkout.run([], names), checkout.run(through, names)
        for name in names:
            plain[name].add(again.get(name, "missing"))
            inside.setdefault(name, ["missing"]).append(through_again.get(name, "missing"))
    others = {name: [end for end in inside[name] if end not in plain[name]] for name in names}
    return {
        name: (" or ".join(sorted(plain[name])), others[name][0])
        for name in sorted(names)
        if len(others[name]) > 1
    }


def report(name: str, edit: str, differing: dict[str, tuple[str, str]]) -> bool:
    """Print the differences and their reasons; returns whether each has one."""
    known = [reason for reason in reasons() if reason.suite == name]
    unexplained = 0
    print(f"{name}, --edit {edit}: {len(differing)} differ", flush=True)
    for test, (plain, inside) in differing.items():
        why = next((one.text for one in known if fnmatch.fnmatchcase(test, one.tests)), None)
        unexplained += why is None
        print(f"  {test}: {plain} plainly, {inside} through mitml4: {why or 'NO REASON KNOWN'}")
    return unexplained == 0


def why_left_out(name: str, checkout: Checkout) -> str | None:
    """Why this suite cannot run on this machine. Installs it if it can."""
    suite = SUITES[name]
    if missing := [command for command in suite.commands if not shutil.which(command)]:
        return f"without {', '.join(missing)}"
    if os.geteuid() == 0 and not suite.as_root:
        return "its tests do not run as root"
    try:
        checkout.prepare()
    except subprocess.CalledProcessError as error:
        return f"`{shlex.join(map(str, error.cmd))}` failed"
    return None


def table(rows: Sequence[Sequence[object]], edits: Sequence[str]) -> str:
    """The numbers of tests and of differences, as docs/run.md has them."""
    head = ["suite", "tests", *edits]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--list", action="store_true", help="list the suites")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work here, and keep it")
    parser.add_argument(
        *("--edit", "-e"),
        action="append",
        choices=EDITS,
        help="how to edit, which changes nothing; repeatable; default: each",
    )
    parser.add_argument("--mitml4", default="mitml4 run -q --loopback --no-wait --")
    options = parser.parse_args()
    if options.list:
        print(*SUITES, sep="\n")
        return 0
    if unknown := set(options.suites) - SUITES.keys():
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    edits = options.edit or list(EDITS)
    *through, separator = options.mitml4.split()
    through[0] = shutil.which(through[0]) or str(Path(sys.executable).parent / through[0])
    work = options.keep or Path(tempfile.mkdtemp(prefix="foreign-suites-"))
    work.mkdir(parents=True, exist_ok=True)
    work.chmod(0o755)
    sound = True
    rows = []
    try:
        for name in options.suites or SUITES:
            checkout = CHECKOUTS.get(name, Checkout)(name, SUITES[name], work)
            if reason := why_left_out(name, checkout):
                print(f"{name}: left out, {reason}", flush=True)
                continue
            plain = {test: {end} for test, end in checkout.run([]).items()}
            print(f"{name}: {len(plain)} tests", flush=True)
            if not plain:
                print(f"{name}: no test ran (--keep DIR keeps the log)", flush=True)
                sound = False
                continue
            row: list[object] = [name, len(plain)]
            for edit in edits:
                differing = compare(checkout, plain, [*through, *EDITS[edit], separator])
                sound &= report(name, edit, differing)
                row.append(len(differing))
            rows.append(row)
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    print(table(rows, edits))
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
