"""Exim, which takes every mail and drops it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mitml4.lab.certificates import Identity
from mitml4.lab.network import SERVER_V4

__all__ = ["serve_exim"]


def serve_exim(serve: Callable[..., Any], files: Path, identity: Identity, port: int) -> None:
    """Start it, with STARTTLS."""
    spool = files / "exim"
    spool.mkdir()
    shutil.chown(spool, "Debian-exim", "Debian-exim")
    key = spool / "key.pem"
    shutil.copy(identity.key, key)
    shutil.chown(key, "Debian-exim", "Debian-exim")
    config = spool / "exim.conf"
    config.write_text(
        f"""\
primary_hostname = www.example
spool_directory = {spool}
log_file_path = {spool}/%slog
pid_file_path = {spool}/pid
local_interfaces = {SERVER_V4}
daemon_smtp_ports = {port}
tls_advertise_hosts = *
tls_certificate = {identity.certificate}
tls_privatekey = {key}
acl_smtp_rcpt = everybody
host_lookup =
rfc1413_hosts =
begin acl
everybody:
  accept
begin routers
nowhere:
  driver = redirect
  data = :blackhole:
"""
    )
    serve("exim4", "-bdf", "-C", str(config), port=port)
