"""`mitml4 cleanup`: what a killed demo has left, shown and removed."""

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
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and change nothing.")
@click.pass_obj
def cleanup(console: Console, /, *, dry_run: bool) -> None:
    """Remove what killed sessions have left.

    The rules of a session end with it, however it ends. What can be left are the files of a demo
    that was killed. Demos that run, and what is theirs, are left alone.
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
