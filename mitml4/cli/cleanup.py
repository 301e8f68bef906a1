"""`mitml4 cleanup`: what killed sessions have left, shown and removed."""

from __future__ import annotations

import shlex

import click

from mitml4.cli.console import Console
from mitml4.errors import MitmError

__all__ = ["cleanup"]


@click.command(
    epilog="""\b
Examples:
  sudo mitml4 cleanup --dry-run
  sudo mitml4 cleanup
"""
)
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and change nothing.")
@click.pass_obj
def cleanup(console: Console, /, *, dry_run: bool) -> None:
    """Remove what killed sessions have left.

    A session takes its rules with it, however it ends; only if its guard process was killed as
    well are policy rules and routes left, and the files of a demo that was killed. They are removed
    by names and marks that only mitml4 uses, in this network namespace. Sessions that run, and what
    is theirs, are left alone. Needs root.
    """
    import trio

    trio.run(_clean_up, console, dry_run)


async def _clean_up(console: Console, dry_run: bool) -> None:
    from mitml4.lab.scratch import abandoned_directories, remove_abandoned
    from mitml4.net.rules.cleanup import find_remains, remove_leftover

    remains = await find_remains()
    directories = abandoned_directories()
    for table in remains.running:
        console.say(f"# {table}: a session is running, and left alone")
    say = click.echo if dry_run else console.say
    for leftover in remains.left:
        say(f"# {leftover.identity.table}: its session was killed")
        for line in leftover.shown:
            say(line)
        if not dry_run and not await remove_leftover(leftover):
            say(f"# {leftover.identity.table}: a session has come to it")
    for directory in directories:
        say(f"rm -r {shlex.quote(str(directory))}")
        if not dry_run:
            try:
                remove_abandoned(directory)
            except OSError as error:
                raise MitmError(f"cannot remove {directory}: {error.strerror}") from error
    if not remains.left and not directories:
        console.say("there is nothing to clean up")
    elif not dry_run and (left := (await find_remains()).left):
        raise MitmError(
            f"could not be removed: {'; '.join(left[0].shown)}", hint="mitml4 cleanup --dry-run"
        )
