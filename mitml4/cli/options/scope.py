"""Which traffic a session concerns."""

from __future__ import annotations

from typing import Final

import click

from mitml4.cli.options.sections import choice, option
from mitml4.cli.values import (
    File,
    Interface,
    NetworkNamespace,
    Parsed,
    RunningContainer,
    parse_network,
)
from mitml4.net.rules.scope import PortRange

__all__ = ["COMMAND_SCOPE", "SCOPE"]

PORTS: Final = Parsed("ports", PortRange.parse_list)
CIDR: Final = Parsed("cidr", parse_network)
SCOPE: Final = (
    option(
        "Scope",
        "--iface",
        type=Interface(),
        multiple=True,
        help="Intercept the traffic of this interface; repeatable. This, or one of the next three, "
        "is required.",
    ),
    option(
        "Scope",
        "--container",
        type=RunningContainer(),
        metavar="NAME",
        help="Intercept the connections of a running container instead, which docker, podman, "
        "nerdctl or crictl knows.",
    ),
    option(
        "Scope",
        "--pid",
        type=click.IntRange(min=1),
        metavar="PID",
        help="Intercept the connections of the network namespace of this process instead.",
    ),
    option(
        "Scope",
        "--netns",
        type=NetworkNamespace(),
        metavar="NAME|PATH",
        help="Intercept the connections of this network namespace instead, which `ip netns` knows.",
    ),
    option(
        "Scope",
        "--reset-existing",
        is_flag=True,
        help="With these three: end the connections that are open already, so that programs "
        "connect again, through mitml4.",
    ),
    choice(
        "Scope",
        "--direction",
        "both",
        "forwarded",
        "local",
        help="Intercept connections that this host forwards, that it starts itself, or both.",
    ),
    option(
        "Scope",
        "--port",
        type=PORTS,
        multiple=True,
        help="Only these destination ports, such as 443,8000-8999; repeatable.",
    ),
    option(
        "Scope",
        "--exclude-port",
        type=PORTS,
        multiple=True,
        help="Exclude these destination ports; repeatable.",
    ),
    option(
        "Scope",
        "--to",
        type=CIDR,
        multiple=True,
        help="Only connections to this network; repeatable.",
    ),
    option(
        "Scope",
        "--from",
        type=CIDR,
        multiple=True,
        help="Only connections from this network; repeatable.",
    ),
    choice(
        "Scope",
        "--quic",
        "block",
        "allow",
        help="QUIC (UDP/443): block refuses it, so that clients fall back to TCP; allow lets it "
        "pass unseen.",
    ),
    option(
        "Scope",
        "--spoof-source",
        is_flag=True,
        help="Connect to servers from the client's address, instead of this host's.",
    ),
    option(
        "TLS",
        "--trust/--no-trust",
        default=True,
        show_default=True,
        help="With --container, --pid and --netns: cover the files of roots there with copies that "
        "have the certificate authority too, until the session ends.",
    ),
    option(
        "TLS",
        "--ca-dir",
        type=File(),
        metavar="DIR",
        help="Directory of the certificate authority; created on first use. "
        "Default: $XDG_DATA_HOME/mitml4.",
    ),
)
COMMAND_SCOPE: Final = (
    option(
        "Scope",
        "--loopback",
        is_flag=True,
        help="Also intercept the command's connections to 127.0.0.1 and ::1.",
    ),
    choice(
        "Scope",
        "--udp",
        "drop",
        "pass",
        help="Drop UDP other than DNS and QUIC, or let it pass unseen. DNS is answered by the "
        "host's resolvers. QUIC (UDP/443) is refused: the command's second send fails with EPERM, "
        "and clients fall back to TCP.",
    ),
    option(
        "TLS",
        "--trust/--no-trust",
        default=True,
        show_default=True,
        help="Make the command trust the session's certificate authority.",
    ),
)
