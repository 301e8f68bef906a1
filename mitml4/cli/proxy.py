"""`mitml4 proxy`: options → config → session → exit code."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import click

from mitml4.cli.configure import proxy_config
from mitml4.cli.console import Console
from mitml4.cli.options import Command, proxy_options
from mitml4.errors import ExitCode
from mitml4.screen.keyboard import keyboard
from mitml4.screen.keys import KEYS
from mitml4.screen.terminal import occupy_standard_descriptors

__all__ = ["proxy"]


@click.command(
    cls=Command,
    keys=KEYS,
    epilog="""\b
Examples:
  mitml4 proxy --listen :8080
  eval "$(mitml4 proxy --listen :8080 --env)"; curl https://example.org; mitml4_proxy_off
  mitml4 proxy --listen 192.168.1.2:8080 --auth phone:secret
""",
)
@proxy_options
@click.pass_obj
def proxy(console: Console, /, *, env: bool, **options: Any) -> ExitCode:
    """Intercept the connections of clients that use mitml4 as their proxy.

    One port serves HTTP proxying (CONNECT and http:// URLs), SOCKS5, SOCKS4 and SOCKS4a. mitml4
    names the protocols of the connections, and decrypts TLS. Root is not needed, and nothing on
    this host is changed. http://192.0.2.1/ through the proxy, and its own address in a browser,
    show a page with the certificate that clients have to trust.
    """
    config = proxy_config(console, **options)
    if env:
        from mitml4.session.proxy import environment

        for line in environment(config, console.say):
            click.echo(line)
        return ExitCode.DONE
    occupy_standard_descriptors()

    # Keys that are typed during the setup are for the table, and must not be echoed before it.
    with keyboard() if config.output == "table" else nullcontext():
        import trio

        from mitml4.session.proxy import proxy

        return trio.run(proxy, config, console.say, console.error)
