"""`mitml4 intercept`: options → config → session → exit code."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import click

from mitml4.cli.configure import intercept_config
from mitml4.cli.console import Console
from mitml4.cli.options import Command, intercept_options
from mitml4.errors import ExitCode
from mitml4.screen.keyboard import keyboard
from mitml4.screen.keys import KEYS
from mitml4.screen.terminal import occupy_standard_descriptors

__all__ = ["intercept"]


@click.command(
    cls=Command,
    keys=KEYS,
    epilog="""\b
Examples:
  sudo mitml4 intercept --iface eth0
  sudo mitml4 intercept --container web
  sudo mitml4 intercept --iface eth0 --json | jq -c 'select(.type=="http.request") | .url'
""",
)
@intercept_options
@click.pass_obj
def intercept(console: Console, /, **options: Any) -> ExitCode:
    """Intercept TCP that crosses an interface, or that a container starts.

    mitml4 intercepts the connections that this host forwards or starts through the interface, or
    that a container, a process, a network namespace, a user or a cgroup starts; it names their
    protocols, and decrypts TLS. Connections to this host's own services, and connections that are
    already open, are not touched. The rules are removed when the session ends, even if it is
    killed. Needs root, or CAP_NET_ADMIN and CAP_NET_RAW; a rootless container needs only its user.
    """
    config = intercept_config(console, **options)
    occupy_standard_descriptors()

    # Keys that are typed during the setup are for the table, and must not be echoed before it.
    with keyboard() if config.output == "table" else nullcontext():
        import trio

        from mitml4.session.intercept import intercept

        return trio.run(intercept, config, console.say, console.error)
