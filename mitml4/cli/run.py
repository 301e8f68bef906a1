"""`mitml4 run`: options → config → session → the command's own exit code."""

from __future__ import annotations

from typing import Any, Final

import click

from mitml4.cli.configure import run_config
from mitml4.cli.console import Console
from mitml4.cli.options import Command, run_options
from mitml4.cli.values import Words

__all__ = ["run"]


_EXIT_STATUS: Final = (
    (
        "1 to 3",
        "mitml4 failed before it has run the command, and has said so: as for the other commands. "
        "1 also where the command ended with 0 and a file (-o, -w, --har, --keylog) could not be "
        "written to its end. The command itself may end with these as well.",
    ),
    ("126", "The command cannot be executed."),
    ("127", "The command was not found."),
    ("128+n", "The command was ended by signal n."),
    ("any other", "The command's own."),
)


@click.command(
    cls=Command,
    exit_status=_EXIT_STATUS,
    context_settings={"allow_interspersed_args": False},
    epilog="""\b
Examples:
  mitml4 run -- curl https://example.org
  mitml4 run -o events.jsonl -- npm install
  mitml4 run --loopback -- python -m pytest tests
""",
)
@run_options
@click.argument("argv", nargs=-1, required=True, metavar="COMMAND…", type=Words())
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
