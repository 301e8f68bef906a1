"""The clients of the soak, and what each has to get.

A client that ends well has got all, byte for byte. One that was cut has got a beginning of it, and
not one byte of anything else.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mitml4.lab.network import SERVER_V4, SERVER_V6

from .servers import HOST, SIZES, Site

__all__ = ["KINDS", "KINDS_WITH_DATABASES", "Client", "Kind"]

_TIMEOUT_S: Final = 30
_TOOLS: Final = Path(__file__).parents[1]


@dataclass(slots=True)
class Client:
    """A program to run, what it is given, and what it should get."""

    argv: Sequence[str]
    expected: bytes | None = None
    """On its standard output; None: it says by its exit code whether it got that."""
    given: bytes = b""
    is_whole: Callable[[], str | None] = lambda: None
    """What is wrong about files that a client which ended well has written; None: nothing."""
    remove: Callable[[], object] = lambda: None
    knows_end: bool = True
    """Whether it ends with an error where the server has ended early."""
    cwd: Path = field(default=_TOOLS)

    def problem(self, got: bytes, *, is_well: bool, is_calm: bool) -> str | None:
        """What is wrong with what it got. In a calm, it has to end well."""
        if is_calm and not is_well:
            return "it failed while nothing was wrong"
        if self.expected is not None and not self.expected.startswith(got):
            return f"other bytes than were sent ({len(got)} of {len(self.expected)})"
        is_whole = is_well and (self.knows_end or is_calm)
        if is_whole and self.expected is not None and got != self.expected:
            return f"{len(got)} of {len(self.expected)} bytes"
        return self.is_whole() if is_well else None


Kind = Callable[[Site, Path, random.Random], Client]
"""Makes one, of the site, a file of roots to trust, and with some of the sizes."""


def _curl(roots: Path, *options: str, address: str = SERVER_V4) -> list[str]:
    names = [part for port in (25, 80, 443) for part in ("--resolve", f"{HOST}:{port}:{address}")]
    limits = ("--max-time", str(_TIMEOUT_S), "--connect-timeout", str(_TIMEOUT_S))
    return [
        "curl",
        "-sS",
        "--fail",
        "--fail-early",
        *limits,
        "--cacert",
        str(roots),
        *names,
        *options,
    ]


def _download(*options: str, url: str = f"https://{HOST}", address: str = SERVER_V4) -> Kind:
    def make(site: Site, roots: Path, rng: random.Random) -> Client:
        sizes = [rng.choice(SIZES) for _ in range(rng.choice((1, 1, 1, 4)))]
        argv = _curl(roots, *options, *(f"{url}/{size}" for size in sizes), address=address)
        return Client(argv, b"".join(site.content(size) for size in sizes))

    return make


def _parallel_downloads(site: Site, roots: Path, rng: random.Random) -> Client:
    sizes = rng.sample(SIZES[1:], 4)
    place = Path(tempfile.mkdtemp(prefix="parallel-", dir=site.files))
    each = [part for size in sizes for part in ("-o", str(place / str(size)))]
    urls = [f"https://{HOST}/{size}" for size in sizes]

    def compare() -> str | None:
        wrong = [size for size in sizes if (place / str(size)).read_bytes() != site.content(size)]
        return f"other bytes in files of {wrong}" if wrong else None

    return Client(
        _curl(roots, "--http2", "--parallel", *each, *urls),
        b"",
        is_whole=compare,
        remove=lambda: shutil.rmtree(place, ignore_errors=True),
    )


def _upload(*options: str, url: str = f"https://{HOST}") -> Kind:
    def make(site: Site, roots: Path, rng: random.Random) -> Client:
        size, name = rng.choice(SIZES[1:]), f"put/{rng.randrange(1 << 60)}"
        target = site.web / name

        def compare() -> str | None:
            if target.exists() and target.read_bytes() == site.content(size):
                return None
            return f"{size} bytes were uploaded, and the server has others"

        return Client(
            _curl(roots, *options, "-T", str(site.web / str(size)), f"{url}/{name}"),
            is_whole=compare,
            remove=lambda: target.unlink(missing_ok=True),
        )

    return make


def _echoed(*argv: str) -> Kind:
    """Bytes that nobody knows, and that come back."""

    def make(site: Site, roots: Path, rng: random.Random) -> Client:
        said = b"\xc0\xff" + rng.randbytes(rng.choice((1, 20_000, 500_000, 2_000_000)))
        return Client([part.format(roots=roots) for part in argv], said, said, knows_end=False)

    return make


def _ssh(site: Site, roots: Path, rng: random.Random) -> Client:
    said = rng.randbytes(rng.choice((1, 300_000)))
    options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null")
    timeouts = ("ConnectTimeout=20", "ServerAliveInterval=5", "ServerAliveCountMax=4")
    settings = [part for each in (*options, *timeouts, "LogLevel=ERROR") for part in ("-o", each)]
    key = ("-F", "none", "-i", str(site.files / "user_key"))
    return Client(["ssh", *key, *settings, f"root@{SERVER_V4}", "cat"], said, said)


def _mail(site: Site, roots: Path, rng: random.Random) -> Client:
    lines = [rng.randbytes(35).hex().encode() + b"\r\n" for _ in range(rng.choice((1, 2_000)))]
    letter = b"Subject: hello\r\n\r\n" + b"".join(lines)
    people = ("--mail-from", "me@example", "--mail-rcpt", "you@example")
    argv = _curl(roots, "--ssl-reqd", f"smtp://{HOST}/me", *people, "-T", "-")
    return Client(argv, given=letter)


def _redis(site: Site, roots: Path, rng: random.Random) -> Client:
    said = rng.randbytes(rng.choice((1, 5_000, 100_000))).hex().encode()
    argv = ["redis-cli", "-h", SERVER_V4, "-x", "ECHO"]
    return Client(argv, said + b"\n", said)


def _postgresql(site: Site, roots: Path, rng: random.Random) -> Client:
    count = rng.choice((1, 20_000))
    place = f"host={HOST} hostaddr={SERVER_V4} port=5432 user=postgres dbname=postgres"
    trust = f"sslmode=verify-full sslrootcert={roots} gssencmode=disable connect_timeout=20"
    argv = ["psql", f"{place} {trust}"]
    return Client([*argv, "-Atc", f"select repeat('six', {count})"], b"six" * count + b"\n")


def _mariadb(site: Site, roots: Path, rng: random.Random) -> Client:
    count = rng.choice((1, 20_000))
    place = ("-h", SERVER_V4, "-P", "3306", "-u", "me", "-psecret", "--connect-timeout=20")
    trust = ("--ssl", f"--ssl-ca={roots}", "--ssl-verify-server-cert")
    argv = ["mariadb", "--no-defaults", *place, *trust]
    return Client([*argv, "-Ne", f"select repeat('six', {count})"], b"six" * count + b"\n")


def _talk(site: Site, roots: Path, rng: random.Random) -> Client:
    argv = [sys.executable, "-m", "soaking.talk", "once", SERVER_V4, str(rng.randrange(1 << 30))]
    return Client(argv)


_WITHIN_TLS: Final = f"OPENSSL:{SERVER_V4}:7778,cafile={{roots}},commonname={HOST}"

KINDS: Final[dict[str, Kind]] = {
    "http": _download(url=f"http://{HOST}"),
    "http, upload": _upload(url=f"http://{HOST}"),
    "tls, http/1": _download("--http1.1"),
    "tls, http/1, upload": _upload("--http1.1"),
    "tls 1.2": _download("--http1.1", "--tls-max", "1.2"),
    "http/2, ipv6": _download("--http2", address=f"[{SERVER_V6}]"),
    "http/2, parallel": _parallel_downloads,
    "http/2, upload": _upload("--http2"),
    "socks5": _download("--proxy", f"socks5h://{SERVER_V4}:1080"),
    "connect": _download("--proxy", f"http://{SERVER_V4}:3128"),
    "proxied http": _download("--proxy", f"http://{SERVER_V4}:3128", url=f"http://{HOST}"),
    "starttls": _mail,
    "ssh": _ssh,
    "redis": _redis,
    "opaque": _echoed("socat", "-t30", "-T30", "-", f"TCP:{SERVER_V4}:7777"),
    "opaque in tls": _echoed("socat", "-t30", "-T30", "-", _WITHIN_TLS),
    "websocket, dns": _talk,
}
"""By the name of what they speak."""

KINDS_WITH_DATABASES: Final = KINDS | {"postgresql": _postgresql, "mariadb": _mariadb}
