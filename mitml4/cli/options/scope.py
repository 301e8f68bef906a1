"""Which traffic a session concerns."""

from __future__ import annotations

from typing import Final

from mitml4.cli.options.sections import choice, option
from mitml4.cli.values import (
    File,
    Interface,
    NetworkNamespace,
    Parsed,
    ProcessId,
    RunningContainer,
    parse_listen,
    parse_network,
)
from mitml4.layers.proxy.credentials import Credentials
from mitml4.net.rules.scope import PortRange

__all__ = ["CA_DIR", "COMMAND_SCOPE", "PROXY_SCOPE", "SCOPE"]

PORTS: Final = Parsed("ports", PortRange.parse_list)
CIDR: Final = Parsed("cidr", parse_network)
SCOPE: Final = (
    option(
        "Scope",
        "--iface",
        type=Interface(),
        multiple=True,
        help="Intercept the traffic of this interface; repeatable. This, or one of the next five, "
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
        type=ProcessId(min=1),
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
        "--user",
        metavar="NAME",
        multiple=True,
        help="Intercept the connections that programs of this user start on this host instead; "
        "repeatable.",
    ),
    option(
        "Scope",
        "--cgroup",
        metavar="PATH|UNIT",
        multiple=True,
        help="Intercept the connections that programs in this cgroup of this host start instead; "
        "of a systemd unit, its name is enough. Repeatable.",
    ),
    option(
        "Scope",
        "--reset-existing",
        is_flag=True,
        help="With --container, --pid and --netns: end the connections that are open already, "
        "so that programs connect again, through mitml4.",
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
)
CA_DIR: Final = (
    option(
        "TLS",
        "--ca-dir",
        type=File(),
        metavar="DIR",
        help="Directory of the certificate authority; created on first use. "
        "Default: $XDG_DATA_HOME/mitml4.",
    ),
)
PROXY_SCOPE: Final = (
    option(
        "Scope",
        "--listen",
        type=Parsed("place", parse_listen),
        multiple=True,
        default=[":8080"],
        show_default=True,
        metavar="[ADDR]:PORT",
        help="Where clients find the proxy; repeatable. Without ADDR, and with localhost: "
        "127.0.0.1 and ::1. [::] is all addresses of this host, 0.0.0.0 those of IPv4. Port 0 is "
        "a free one.",
    ),
    option(
        "Scope",
        "--auth",
        type=Parsed("credentials", Credentials.parse),
        multiple=True,
        metavar="USER:PASSWORD",
        help="Serve only clients that send this user and password; repeatable. SOCKS4, which has "
        "none, is then refused. Other users of this host can read command lines: "
        "MITML4_PROXY_AUTH takes the same.",
    ),
    option(
        "Scope",
        "--open",
        is_flag=True,
        help="Serve everybody who can connect. Addresses other than loopback need this or --auth.",
    ),
    option(
        "Scope",
        "--env",
        is_flag=True,
        help="Start nothing, and print lines for a shell whose programs are to use the proxy and "
        "trust its authority, and a function that undoes them.",
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
