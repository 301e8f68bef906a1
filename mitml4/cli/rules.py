"""`mitml4 rules`: check files of rules."""

from __future__ import annotations

from pathlib import Path

import click

from mitml4.cli.console import Console
from mitml4.cli.values import File, parse_readable
from mitml4.edit.files import Folder
from mitml4.edit.parser import parse_rules

__all__ = ["rules"]


@click.group(
    epilog="""\b
Examples:
  mitml4 rules check rules.toml
  mitml4 run --rules rules.toml -- curl https://example.org
"""
)
def rules() -> None:
    """Check files of rules that change traffic.

    docs/rules.md describes the rules.
    """


@rules.command(
    epilog="""\b
Examples:
  mitml4 rules check rules.toml
  mitml4 rules check rules/*.toml && echo good
"""
)
@click.argument("files", nargs=-1, required=True, metavar="FILE…", type=File(parse_readable))
@click.pass_obj
def check(console: Console, files: tuple[Path, ...]) -> None:
    """Check files of rules, and say what is wrong, with the line and the column.

    Exits with 2 if a file has an error.
    """
    for path in files:
        found = parse_rules(str(path), path.read_bytes(), Folder.open(path.parent))
        count = len(found)
        console.data(f"{path}: {count} {'rule' if count == 1 else 'rules'}\n")
