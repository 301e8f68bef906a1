"""What a session is asked to do: the command line's options, parsed, and nothing that runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from mitml4.net.rules.scope import Scope
from mitml4.session.policy import Policy

__all__ = ["Display", "InterceptConfig", "RunConfig", "SessionConfig"]

Display: TypeAlias = Literal[
    "table", "json", "table-on-tty", "final-table", "json-on-stderr", "lines", "none"
]
"""What is shown: a table or JSON lines on standard output. Where that is a command's own: a table
on the terminal, or one on standard error at the end; there JSON lines or a line for each flow; or
nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """What every session is told, wherever its connections come from."""

    policy: Policy = field(default_factory=Policy)
    on_pinned: Literal["passthrough", "fail"] = "passthrough"
    upstream: Literal["mirror", "reject", "ignore"] = "mirror"
    upstream_ca: Path | None = None
    client_cert: Path | None = None
    """PEM: a certificate (with its chain) and its key, which belong together."""

    output: Display = "json"
    color: Literal["auto", "always", "never"] = "auto"
    verbosity: int = 0
    """-1: only errors; 0: what a user should know; 1 and 2: the developers' log as well."""
    events_file: Path | None = None
    packets: Path | None = None
    har: Path | None = None
    keylog: Path | None = None
    headers: bool = False

    duration_s: float | None = None
    """The session ends by itself after so long."""
    max_flows: int | None = None
    """The session ends by itself when the last of so many flows has closed."""
    detect_timeout_s: float = 0.5
    """How long a client's bytes are held back when they could still be TLS."""
    drain_s: float = 5.0
    """How long open flows may go on once the session ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InterceptConfig(SessionConfig):
    """Everything that `mitml4 intercept` was told."""

    scope: Scope
    ca_dir: Path
    dry_run: bool = False
    """Print the rules and their undo; change nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig(SessionConfig):
    """Everything that `mitml4 run` was told."""

    argv: tuple[str, ...]
    loopback: bool = False
    """Intercept what is said to 127.0.0.1 and ::1 as well."""
    trust: bool = True
    """Let the command trust the session's authority."""
    udp: Literal["drop", "pass"] = "drop"
    """What happens to datagrams that are neither DNS nor QUIC."""
    wait: bool = True
    """The session lasts as long as anything that the command has started, not only the command."""
