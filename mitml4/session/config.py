"""The options of a session, parsed."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Literal, TypeAlias

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.filter.expression import Filter
from mitml4.net.rules.scope import Scope
from mitml4.protocols.payload import Shown
from mitml4.session.destinations.policy import Policy
from mitml4.session.destinations.routes import Routes
from mitml4.sinks.tcp_reader import TcpReader

__all__ = ["Attach", "Display", "InterceptConfig", "ProxyConfig", "RunConfig", "SessionConfig"]

Display: TypeAlias = Literal[
    "table", "json", "table-on-tty", "final-table", "json-on-stderr", "lines", "none"
]
"""What is displayed. `table` and `json`: on standard output. With `run`, where standard output is
the command's: a table on the terminal, or at the end on standard error; JSON lines or a line for
each flow on standard error; or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """Options of every session."""

    policy: Policy = field(default_factory=Policy)
    tls_engine: Literal["auto", "bridge", "openssl"] = "auto"
    on_pinned: Literal["passthrough", "fail"] = "passthrough"
    upstream: Literal["mirror", "reject", "ignore"] = "mirror"
    probe_clients: bool = False
    """Show each client defective certificates first."""
    ca_page: bool = True
    """Answer http://192.0.2.1/ with the page of the CA."""
    routes: Routes = field(default_factory=Routes)
    """Through which other proxies connections go."""
    upstream_ca: Path | None = None
    client_cert: Path | None = None
    """PEM file with a certificate, its chain and its key."""

    output: Display = "json"
    color: Literal["auto", "always", "never"] = "auto"
    verbosity: int = 0
    """-1: only errors; 0: also notes; 1 and 2: also the developers' log."""
    events_file: Path | None = None
    packets: Path | None = None
    har: Path | None = None
    plain: Path | TcpReader | None = None
    """Where the opened bytes go as packets."""
    keylog: Path | None = None
    shown: Shown = field(default_factory=Shown)
    """What events show of what is said."""
    filter: Filter | None = None
    """What is displayed and written, except packets and secrets; None: everything."""

    rules: tuple[Path, ...] = ()
    """Files of rules, which are read again when they change."""
    scripts: tuple[Path, ...] = ()
    """Files of hooks, which are read again when they change."""
    script_timeout_s: float = 5.0
    """How long a hook may take."""
    edit_limit: int = 16 << 20
    """Bytes of a body that is edited; larger ones stream by."""

    workers: int = 1
    """How many processes carry flows, of which the session is one."""
    alone_up_to: int = 0
    """The session starts the others once it carries more flows than these."""
    duration_s: float | None = None
    """The session ends after this time."""
    max_flows: int | None = None
    """The session ends when this many flows have closed."""
    detect_timeout_s: float = 0.5
    """How long a client's bytes are held back while they could still become TLS."""
    drain_s: float = 5.0
    """How long open flows may go on once the session ends."""


@dataclass(frozen=True, slots=True)
class Attach:
    """Whose connections a session intercepts, as the user names it."""

    kind: Literal["container", "pid", "netns"]
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InterceptConfig(SessionConfig):
    """Options of `mitml4 intercept`."""

    scope: Scope
    attach: Attach | None = None
    """None: the interfaces of the scope, on this host."""
    trust: bool = True
    """Let the programs that it is attached to trust the CA."""
    reset_existing: bool = False
    """Reset the connections that are open there."""
    ca_dir: Path
    dry_run: bool = False
    """Print the rules and their undo; change nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig(SessionConfig):
    """Options of `mitml4 run`."""

    argv: tuple[str, ...]
    loopback: bool = False
    """Intercept connections to 127.0.0.1 and ::1 as well."""
    trust: bool = True
    """Let the command trust the session's CA."""
    udp: Literal["drop", "pass"] = "drop"
    """What to do with datagrams that are neither DNS nor QUIC."""
    wait: bool = True
    """The session lasts until the descendants of the command have ended, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyConfig(SessionConfig):
    """Options of `mitml4 proxy`."""

    listen: tuple[Address, ...]
    """Where clients connect."""
    auth: tuple[bytes, ...] = ()
    """The pairs `user:password` of which clients have to name one; none: everybody is let in."""
    ca_dir: Path
