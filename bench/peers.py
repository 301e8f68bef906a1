"""The proxies that run in the router, one at a time, each configured as its manual says.

Each gets its own CA, and only the lab's server CA as roots. All keys are EC P-256, also where a
peer would generate RSA keys by default, because they make its handshakes faster. Features that cost
time and are not interception (access logs, flow printing) are off.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

import trustme

from bench.lab import (
    CLIENT_INTERFACE,
    CLIENT_IP,
    OPAQUE_PORT,
    SERVER_IP,
    SERVER_NAME,
    TLS_PORT,
    Lab,
    wait_until,
)
from bench.processes import cpu_seconds, resident_bytes, stop
from mitml4.errors import MitmError

__all__ = [
    "MITMPROXY_VENV",
    "PEERS",
    "Mitml4",
    "Mitml4One",
    "NotMeasuredError",
    "Peer",
    "Prepared",
    "Proxy",
    "Standing",
    "first_line",
    "last_line",
]

MITMPROXY_VENV: Final = Path(__file__).parent / ".venv-mitmproxy"
_TLS_LISTENER: Final = 8443
_TCP_LISTENER: Final = 8080
_CERTGEN: Final = "/usr/lib/squid/security_file_certgen"


class NotMeasuredError(MitmError):
    """A figure that a peer cannot provide; the message is the reason in the report."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A running peer: what its clients trust, and its process (if any)."""

    trust: Path
    pid: int | None

    @property
    def cpu_s(self) -> float:
        return cpu_seconds(self.pid) if self.pid else 0.0

    @property
    def rss_bytes(self) -> int:
        return resident_bytes(self.pid) if self.pid else 0


class Peer(ABC):
    """The program, or its absence, between the client and the server."""

    name: ClassVar[str]

    @abstractmethod
    def version(self) -> str:
        """Its version string. Raises NotMeasuredError if it is not installed."""

    @abstractmethod
    def standing(self, lab: Lab) -> AbstractContextManager[Standing]:
        """Start it in the router; on exit, the router is clean again."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A proxy that can be started: its command line, what clients trust, the file of its output."""

    argv: list[str]
    trust: Path
    log: Path

    @contextmanager
    def started(self, lab: Lab) -> Iterator[subprocess.Popen[Any]]:
        """Start it in the router, and stop it."""
        process = lab.start(lab.router, self.argv, log=str(self.log.relative_to(lab.where)))
        try:
            yield process
        finally:
            stop(process)


class Proxy(Peer):
    """Setup, start and stop of one proxy."""

    @abstractmethod
    def prepare(self, lab: Lab, where: Path) -> tuple[list[str], Path]:
        """Write its files into an empty directory; returns its command line, and the CA that
        clients trust."""

    def rules(self) -> str:
        """nft statements that redirect the client's connections to it; it may add its own rules."""
        return _redirect(tls=_TLS_LISTENER, opaque=_TCP_LISTENER)

    def is_ready(self, lab: Lab, log: Path) -> bool:
        return {_TLS_LISTENER, _TCP_LISTENER} <= lab.listening(lab.router)

    @contextmanager
    def prepared(self, lab: Lab) -> Iterator[Prepared]:
        """Set up its files and the rules, so that it can be started. On exit, the router is clean
        again."""
        where = lab.where / self.name
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir(mode=0o755)
        argv, trust = self.prepare(lab, where)
        if self.rules():
            lab.router.run("nft", "-f", "-", input=self.rules())
        try:
            yield Prepared(argv, trust, where / "output")
        finally:
            lab.router.run("nft", "flush", "ruleset")

    @contextmanager
    def standing(self, lab: Lab) -> Iterator[Standing]:
        with self.prepared(lab) as prepared, prepared.started(lab) as process:
            log = prepared.log
            wait_until(
                lambda: process.poll() is not None or self.is_ready(lab, log),
                f"{self.name} was not ready",
            )
            if process.poll() is not None:
                raise NotMeasuredError(f"it ended at its start: {last_line(log)}")
            yield Standing(prepared.trust, process.pid)
            if process.poll() is not None:
                raise NotMeasuredError(f"it ended under the load: {last_line(log)}")


@dataclass(frozen=True, slots=True)
class Direct(Peer):
    """No proxy: the router forwards."""

    name: ClassVar[str] = "direct"

    def version(self) -> str:
        return "no proxy, routed"

    @contextmanager
    def standing(self, lab: Lab) -> Iterator[Standing]:
        yield Standing(lab.server_ca, None)


@dataclass(frozen=True, slots=True)
class Mitml4(Proxy):
    """`mitml4 intercept`, with its JSON lines written to a file."""

    name: ClassVar[str] = "mitml4"
    options: ClassVar[tuple[str, ...]] = ()
    python: tuple[str, ...] = field(default=(sys.executable,))
    """The interpreter and its options: may be a profiler."""

    def version(self) -> str:
        return first_line([sys.executable, "-m", "mitml4", "--version"])

    def prepare(self, lab: Lab, where: Path) -> tuple[list[str], Path]:
        argv = [*self.python, "-m", "mitml4", "intercept", "--json"]
        argv += ["--iface", CLIENT_INTERFACE, "--ca-dir", str(where / "ca")]
        made = [sys.executable, "-m", "mitml4", "ca", "generate", "--ca-dir", str(where / "ca")]
        subprocess.run(made, check=True, capture_output=True)
        argv += ["--upstream-ca", str(lab.server_ca), *self.options]
        return argv, where / "ca" / "mitml4-ca.pem"

    def rules(self) -> str:
        return ""

    def is_ready(self, lab: Lab, log: Path) -> bool:
        return '"type":"session.start"' in log.read_text()


@dataclass(frozen=True, slots=True)
class Mitml4One(Mitml4):
    """The same in one process, also under load."""

    name: ClassVar[str] = "mitml4-one"
    options: ClassVar[tuple[str, ...]] = ("--workers", "1")


@dataclass(frozen=True, slots=True)
class Mitml4Payload(Mitml4):
    """The same with `--payload`: bodies in the events, up to 64 KiB of each."""

    name: ClassVar[str] = "mitml4-payload"
    options: ClassVar[tuple[str, ...]] = ("--payload",)


@dataclass(frozen=True, slots=True)
class Mitml4Filter(Mitml4):
    """The same with a `--filter` that asks about each exchange, and that all of them match."""

    name: ClassVar[str] = "mitml4-filter"
    options: ClassVar[tuple[str, ...]] = ("--filter", "not status:5xx")


@dataclass(frozen=True, slots=True)
class Mitml4OpenSsl(Mitml4):
    """In one process, with OpenSSL's TLS on both sides, in place of the bridge."""

    name: ClassVar[str] = "mitml4-openssl"
    options: ClassVar[tuple[str, ...]] = ("--workers", "1", "--tls-engine", "openssl")


@dataclass(frozen=True, slots=True)
class Mitml4PcapPlain(Mitml4):
    """The same with `--pcap-plain`, to a file: a copy of all that moves in decrypted TLS."""

    name: ClassVar[str] = "mitml4-pcap-plain"

    def prepare(self, lab: Lab, where: Path) -> tuple[list[str], Path]:
        argv, trust = Mitml4.prepare(self, lab, where)
        return [*argv, "--pcap-plain", str(where / "plain.pcap")], trust


@dataclass(frozen=True, slots=True)
class Mitml4Rules(Mitml4):
    """The same with a rule that sets a header field of each request."""

    name: ClassVar[str] = "mitml4-rules"
    option: ClassVar[str] = "--rules"
    text: ClassVar[str] = '[[rule]]\nset-request-headers = { "X-Bench" = "1" }\n'

    def prepare(self, lab: Lab, where: Path) -> tuple[list[str], Path]:
        argv, trust = Mitml4.prepare(self, lab, where)
        path = where / ("edit.py" if self.option == "--script" else "edit.toml")
        path.write_text(self.text)
        return [*argv, self.option, str(path)], trust


@dataclass(frozen=True, slots=True)
class Mitml4RulesNever(Mitml4Rules):
    """The same with a rule that may match each connection, and matches no request."""

    name: ClassVar[str] = "mitml4-rules-never"
    text: ClassVar[str] = f'[[rule]]\nmatch = "path:/never"\n{Mitml4Rules.text.splitlines()[1]}\n'


@dataclass(frozen=True, slots=True)
class Mitml4RulesElsewhere(Mitml4Rules):
    """The same with a rule for another host, which can match no connection."""

    name: ClassVar[str] = "mitml4-rules-elsewhere"
    text: ClassVar[str] = Mitml4RulesNever.text.replace("path:/never", "host:elsewhere.example")


@dataclass(frozen=True, slots=True)
class Mitml4Script(Mitml4Rules):
    """The same with a script whose hook sets a header field of each request."""

    name: ClassVar[str] = "mitml4-script"
    option: ClassVar[str] = "--script"
    text: ClassVar[str] = 'def request(flow, request):\n    request.headers["X-Bench"] = "1"\n'


@dataclass(frozen=True, slots=True)
class Mitmproxy(Proxy):
    """mitmdump in transparent mode, which keeps each body in memory until it is complete."""

    name: ClassVar[str] = "mitmproxy"
    settings: ClassVar[tuple[str, ...]] = ()

    def version(self) -> str:
        lines = _output([str(MITMPROXY_VENV / "bin" / "mitmdump"), "--version"]).splitlines()
        return ", ".join(line.partition(":")[2].strip() for line in lines[:3])

    def prepare(self, lab: Lab, where: Path) -> tuple[list[str], Path]:
        authority = trustme.CA(organization_name="bench mitmproxy CA")
        authority.private_key_pem.write_to_path(where / "mitmproxy-ca.pem")
        authority.cert_pem.write_to_path(where / "mitmproxy-ca.pem", append=True)
        authority.cert_pem.write_to_path(where / "ca.pem")
        settings = [
            f"confdir={where}",
            f"ssl_verify_upstream_trusted_ca={lab.server_ca}",
            *self.settings,
        ]
        argv = [str(MITMPROXY_VENV / "bin" / "mitmdump"), "-q", "--mode", "transparent"]
        argv += ["--listen-port", str(_TLS_LISTENER)]
        argv += [part for setting in settings for part in ("--set", setting)]
        return argv, where / "ca.pem"

    def rules(self) -> str:
        return _redirect(tls=_TLS_LISTENER, opaque=_TLS_LISTENER)

    def is_ready(self, lab: Lab, log: Path) -> bool:
        return _TLS_LISTENER in lab.listening(lab.router)


@dataclass(frozen=True, slots=True)
class MitmproxyStreaming(Mitmproxy):
    """The same, configured to stream bodies: its fastest way to move bytes."""

    name: ClassVar[str] = "mitmproxy-streaming"
    settings: ClassVar[tuple[str, ...]] = ("stream_large_bodies=1m",)


@dataclass(frozen=True, slots=True)
class Sslsplit(Proxy):
    """sslsplit with its netfilter NAT engine. It does not verify the server's certificate."""

    name: ClassVar[str] = "sslsplit"

    def version(self) -> str:
        return first_line(["sslsplit", "-V"])

    def prepare(self, lab: Lab, where: Path) -> tuple[list[str], Path]:
        authority = trustme.CA(organization_name="bench sslsplit CA")
        authority.private_key_pem.write_to_path(where / "ca.key")
        authority.cert_pem.write_to_path(where / "ca.pem")
        leaf = trustme.CA().private_key_pem
        leaf.write_to_path(where / "leaf.key")
        argv = ["sslsplit", "-u", "root", "-k", str(where / "ca.key"), "-c", str(where / "ca.pem")]
        argv += ["-K", str(where / "leaf.key")]
        # `tcp` would be the simpler type, but hangs if the client's first bytes arrive before the
        # server's connection is established.
        argv += ["ssl", "0.0.0.0", str(_TLS_LISTENER), "autossl", "0.0.0.0", str(_TCP_LISTENER)]
        return argv, where / "ca.pem"


_SQUID: Final = """\
http_port 127.0.0.1:3128
http_port {tcp} intercept
https_port {tls} intercept ssl-bump generate-host-certificates=on dynamic_cert_mem_cache_size=4MB \
tls-cert={where}/ca.pem tls-key={where}/ca.key
sslcrtd_program {certgen} -s {where}/ssl_db -M 4MB
tls_outgoing_options cafile={server_ca}
acl step1 at_step SslBump1
ssl_bump peek step1
ssl_bump bump all
on_unsupported_protocol tunnel all
http_access allow all
cache deny all
hosts_file {where}/hosts
access_log none
cache_log {where}/cache.log
pid_filename {where}/squid.pid
coredump_dir {where}
pinger_enable off
shutdown_lifetime 0 seconds
"""


@dataclass(frozen=True, slots=True)
class Squid(Proxy):
    """squid-openssl, intercepting with ssl-bump; without cache and logs."""

    name: ClassVar[str] = "squid"

    def version(self) -> str:
        return first_line(["squid", "-v"])

    def prepare(self, lab: Lab, where: Path) -> tuple[list[str], Path]:
        authority = trustme.CA(organization_name="bench squid CA")
        authority.private_key_pem.write_to_path(where / "ca.key")
        authority.cert_pem.write_to_path(where / "ca.pem")
        # squid looks up both ends of every connection: with this file instead of a resolver.
        (where / "hosts").write_text(f"{SERVER_IP} {SERVER_NAME}\n{CLIENT_IP} client.bench.test\n")
        subprocess.run(
            [_CERTGEN, "-c", "-s", where / "ssl_db", "-M", "4MB"], check=True, capture_output=True
        )
        config = where / "squid.conf"
        config.write_text(
            _SQUID.format(
                where=where,
                tls=_TLS_LISTENER,
                tcp=_TCP_LISTENER,
                certgen=_CERTGEN,
                server_ca=lab.server_ca,
            )
        )
        subprocess.run(["chown", "-R", "proxy:proxy", where], check=True)
        return ["squid", "-N", "-f", str(config)], where / "ca.pem"


PEERS: Final[tuple[Peer, ...]] = (
    Direct(),
    Mitml4(),
    Mitml4OpenSsl(),
    Mitml4One(),
    Mitml4Payload(),
    Mitml4Filter(),
    Mitml4PcapPlain(),
    Mitml4Rules(),
    Mitml4RulesNever(),
    Mitml4RulesElsewhere(),
    Mitml4Script(),
    Mitmproxy(),
    MitmproxyStreaming(),
    Sslsplit(),
    Squid(),
)


def _redirect(*, tls: int, opaque: int) -> str:
    return f"""
        table ip bench {{
            chain prerouting {{
                type nat hook prerouting priority dstnat;
                iifname "{CLIENT_INTERFACE}" tcp dport {TLS_PORT} redirect to :{tls}
                iifname "{CLIENT_INTERFACE}" tcp dport {OPAQUE_PORT} redirect to :{opaque}
            }}
        }}
    """


def _output(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        raise NotMeasuredError(f"{argv[0]} is not installed") from None
    if done.returncode:
        raise NotMeasuredError(f"`{' '.join(argv)}` failed: {done.stderr.strip()[-200:]}")
    return done.stdout.strip() or done.stderr.strip()


def first_line(argv: list[str]) -> str:
    """The first line of a program's output. Raises NotMeasuredError if it is not installed, or
    fails."""
    return _output(argv).splitlines()[0]


def last_line(log: Path) -> str:
    """The last line of a program's output."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
