"""`mitml4 cleanup`: print and remove the files of killed demos."""

from __future__ import annotations

import shlex

import click

from mitml4.cli.console import Console
from mitml4.errors import MitmError

__all__ = ["cleanup"]


@click.command(
    epilog="""\b
Examples:
  mitml4 cleanup --dry-run
  sudo mitml4 cleanup
"""
)
@click.option("--dry-run", is_flag=True, help="Print what would be removed; change nothing.")
@click.pass_obj
def cleanup(console: Console, /, *, dry_run: bool) -> None:
    """Remove the files of killed demos.

    The rules of a session are removed when it ends, even if it is killed. Only a killed demo leaves
    files. The files of running demos are kept.
    """
    from mitml4.lab.scratch import abandoned_directories, remove_abandoned

    directories = abandoned_directories()
    say = click.echo if dry_run else console.say
    for directory in directories:
        say(f"rm -r {shlex.quote(str(directory))}")
        if not dry_run:
            try:
                remove_abandoned(directory)
            except OSError as error:
                raise MitmError(f"cannot remove {directory}: {error.strerror}") from error
    if not directories:
        console.say("there is nothing to clean up")
