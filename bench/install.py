"""Install the server and the peers, from Debian's archive and from PyPI; no service is started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.peers import MITMPROXY_VENV
from bench.readers import DPKT_VENV
from mitml4.errors import MachineError

__all__ = ["install"]

_PACKAGES: Final = {
    "nginx": "nginx-light",
    "curl": "curl",
    "sslsplit": "sslsplit",
    "squid": "squid-openssl",
    "ss": "iproute2",
    "nft": "nftables",
    "wrk": "wrk",
    "h2load": "nghttp2-client",
    "tshark": "tshark",
    "ndpiReader": "libndpi-bin",
}
"""Program → Debian package."""
_OPTIONAL: Final = {
    "sslsplit": {"sslsplit"},
    "squid": {"squid"},
    "tshark": {"tshark", "tshark-protocols"},
    "ndpiReader": {"ndpiReader"},
}
"""Program → the peers that need it; all others are always needed."""
_POLICY: Final = Path("/usr/sbin/policy-rc.d")


def install(peers: list[str]) -> None:
    """Install what is missing for these peers. Raises MachineError if that fails."""
    wanted = {
        program
        for program in _PACKAGES
        if program not in _OPTIONAL or not _OPTIONAL[program].isdisjoint(peers)
    }
    missing = sorted(program for program in wanted if not shutil.which(program))
    if missing:
        _apt([_PACKAGES[program] for program in missing])
    if (
        any(name.startswith("mitmproxy") for name in peers)
        and not (MITMPROXY_VENV / "bin" / "mitmdump").exists()
    ):
        _venv(MITMPROXY_VENV, "mitmproxy")
    if "dpkt" in peers and not DPKT_VENV.exists():
        _venv(DPKT_VENV, "dpkt")


def _apt(packages: list[str]) -> None:
    if not shutil.which("apt-get"):
        raise MachineError(
            f"not installed: {', '.join(packages)}",
            hint="install these Debian packages' equivalents, or leave peers out with --peers",
        )
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with _no_service_starts():
        for argv in (["update", "-qq"], ["install", "-qq", "--no-install-recommends", *packages]):
            _run(["apt-get", "-y", *argv], environment)
    if shutil.which("systemctl"):  # also not at the next boot
        units = [name for name in ("nginx", "squid") if any(name in p for p in packages)]
        subprocess.run(["systemctl", "disable", "-q", *units], check=False, capture_output=True)


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Uses Debian's hook (invoke-rc.d(8)): 101 means that the action is forbidden by policy."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def _venv(where: Path, package: str) -> None:
    """A venv for packages that mitml4 does not need, and that require specific versions of its
    dependencies."""
    _run([sys.executable, "-m", "venv", str(where)], dict(os.environ))
    pip = str(where / "bin" / "pip")
    _run([pip, "install", "-q", "--disable-pip-version-check", package], dict(os.environ))


def _run(argv: list[str], environment: dict[str, str]) -> None:
    print(f"$ {' '.join(argv)}", file=sys.stderr, flush=True)
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MachineError(
            f"`{' '.join(argv)}` failed: {done.stderr.strip()[-300:]}",
            hint="leave peers out with --peers, for example --peers direct,mitml4",
        )
