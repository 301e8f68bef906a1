"""`mitml4 run`: options → config → session → the command's own exit code."""

from __future__ import annotations

from typing import Any

import click

from mitml4.cli.configure import run_config
from mitml4.cli.console import Console
from mitml4.cli.options import Command, run_options

__all__ = ["run"]


@click.command(
    cls=Command,
    context_settings={"allow_interspersed_args": False},
    epilog="""\b
Examples:
  mitml4 run -- curl https://example.org
  mitml4 run -o events.jsonl -- npm install
  mitml4 run --loopback -- python -m pytest tests
""",
)
@run_options
@click.argument("argv", nargs=-1, required=True, metavar="COMMAND…")
@click.pass_obj
def run(console: Console, /, argv: tuple[str, ...], **options: Any) -> int:
    """Run a command, and intercept its connections.

    The command runs in a network namespace of its own: nothing on this host is changed, and no
    root is needed. It keeps its user, directory, environment, terminal and exit code, and trusts a
    certificate authority that lives as long as the session. A line on standard error tells of
    each connection that has closed.
    """
    config = run_config(console, argv, **options)

    from mitml4.session.run import run

    return run(config, console.say, console.error)
