"""`mitml4 cleanup`: print and remove what killed sessions and demos have left."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

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
    """Remove what killed sessions and demos have left.

    The rules of a session are removed when it ends, even if it is killed. Only a killed demo leaves
    files; and if every process of a session is killed that was attached to a container, files of
    the container stay covered. What belongs to running demos and sessions is kept.
    """
    say = click.echo if dry_run else console.say
    is_clean = True
    for command, remove in _left():
        is_clean = False
        say(command)
        if not dry_run:
            try:
                remove()
            except OSError as error:
                raise MitmError(
                    f"{command}: {error.strerror}", hint="sudo mitml4 cleanup"
                ) from error
    if is_clean:
        console.say("there is nothing to clean up")


def _left() -> Iterator[tuple[str, Callable[[], None]]]:
    """Each thing that was left: the command that removes it, and a function that does so."""
    from functools import partial

    from mitml4.lab.scratch import abandoned_directories, remove_abandoned
    from mitml4.net.attach.leftovers import leftovers

    for directory in abandoned_directories():
        yield f"rm -r {shlex.quote(str(directory))}", partial(remove_abandoned, directory)
    for each in leftovers():
        command = f"nsenter --target {each.pid} --mount umount {shlex.quote(each.path)}"
        yield command, each.remove
