"""`mitml4 run`: options → config → session → the command's exit code."""

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
        "mitml4 failed before it ran the command, with the same codes as the other commands. 1 "
        "also if the command ended with 0 and an output file (-o, -w, --har, --pcap-plain, "
        "--keylog) could not be written completely. The command may end with these codes, too.",
    ),
    ("126", "The command cannot be executed."),
    ("127", "The command was not found."),
    ("128+n", "Signal n ended the command."),
    ("any other", "The exit code of the command."),
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

    The command runs in a separate network namespace: nothing on this host is changed, and root is
    not needed. The command keeps its user, directory, environment, terminal and exit code, and
    trusts a certificate authority that exists only for the session. For each connection that has
    closed, a line is printed on standard error.
    """
    config = run_config(console, argv, **options)

    from mitml4.session.run import run

    return run(config, console.say, console.error)
