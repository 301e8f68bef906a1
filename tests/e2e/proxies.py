"""Proxies of others, on the server's machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mitml4.lab.certificates import Identity
from mitml4.lab.network import SERVER_V4


def serve_dante(serve: Callable[..., Any], files: Path, port: int) -> None:
    """SOCKS4 and SOCKS5."""
    config = files / "danted.conf"
    config.write_text(f"""
        logoutput: {files}/danted.log
        internal: {SERVER_V4} port = {port}
        external: {SERVER_V4}
        socksmethod: none
        clientmethod: none
        user.privileged: root
        user.unprivileged: nobody
        client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
        socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
    """)
    serve("danted", "-f", str(config), "-p", str(files / "danted.pid"), port=port)


def serve_ssh_d(serve: Callable[..., Any], sshd: list[str], port: int) -> None:
    """`ssh -D`: SOCKS4a and SOCKS5."""
    serve("ssh", *sshd, "-N", "-D", f"{SERVER_V4}:{port}", f"root@{SERVER_V4}", port=port)


def serve_tinyproxy(serve: Callable[..., Any], files: Path, port: int, *lines: str) -> None:
    """HTTP; `lines`: more of its configuration."""
    config = files / f"tinyproxy-{port}.conf"
    config.write_text("\n".join([f"Port {port}", f"Listen {SERVER_V4}", *lines, ""]))
    serve("tinyproxy", "-d", "-c", str(config), port=port)


def serve_inside_tls(serve: Callable[..., Any], identity: Identity, port: int, inner: int) -> None:
    """What is on the port `inner`, inside TLS."""
    serve(
        "socat",
        f"OPENSSL-LISTEN:{port},fork,reuseaddr,verify=0,"
        f"cert={identity.certificate},key={identity.key}",
        f"TCP:{SERVER_V4}:{inner}",
        port=port,
    )
