"""What a session is asked to do: the command line's options, parsed, and nothing that runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mitml4.net.ruleset import Scope
from mitml4.session.policy import Policy

__all__ = ["InterceptConfig", "SessionConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """What every session is told, wherever its connections come from."""

    policy: Policy = field(default_factory=Policy)
    on_pinned: Literal["passthrough", "fail"] = "passthrough"
    upstream: Literal["mirror", "reject", "ignore"] = "mirror"
    upstream_ca: Path | None = None
    client_cert: Path | None = None
    """PEM: a certificate (with its chain) and its key, which belong together."""

    output: Literal["table", "json"] = "json"
    """What goes to standard output."""
    color: Literal["auto", "always", "never"] = "auto"
    verbosity: int = 0
    """-1: only errors; 0: what a user should know; 1 and 2: the developers' log as well."""
    events_file: Path | None = None
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
