"""Client – router – server in three network namespaces, and the server's programs.

    client 10.77.1.2 ── 10.77.1.1 router 10.77.2.1 ── 10.77.2.2 server
                                   (the proxy)           nginx :443 (TLS), opaque.py :9000

Files are on tmpfs; programs get a separate environment, without the caller's settings for proxies
or CAs.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trustme

from bench.processes import stop
from mitml4.errors import MachineError
from mitml4.net.netns import NetNamespace, connect_with_veth

__all__ = [
    "CHECK_BYTES",
    "CLIENT_INTERFACE",
    "CLIENT_IP",
    "CONGESTION_CONTROL",
    "OPAQUE_PORT",
    "SERVER_IP",
    "SERVER_NAME",
    "TLS_PORT",
    "Lab",
    "wait_until",
]

CLIENT_IP: Final = "10.77.1.2"
ROUTER_CLIENT_IP: Final = "10.77.1.1"
ROUTER_SERVER_IP: Final = "10.77.2.1"
SERVER_IP: Final = "10.77.2.2"
SERVER_NAME: Final = "server.bench.test"
TLS_PORT: Final = 443
OPAQUE_PORT: Final = 9000
CLIENT_INTERFACE: Final = "to-client"
SERVER_INTERFACE: Final = "to-server"
ENVIRONMENT: Final = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}

CONGESTION_CONTROL: Final = "reno"
"""Without pacing, present in every kernel, and permitted in every namespace."""

BLOCK_BYTES: Final = 1 << 20
CHECK_BYTES: Final = 8 << 20
"""Size of the file whose digest is compared before anything is measured."""

_HERE: Final = Path(__file__).parent
_TCP_SETTING: Final = Path("/proc/sys/net/ipv4/tcp_congestion_control")

_NGINX: Final = """\
user root;
worker_processes auto;
daemon off;
error_log {where}/nginx.log warn;
pid {where}/nginx.pid;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    default_type application/octet-stream;
    sendfile on;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    client_body_temp_path {where}/uploads;
    proxy_temp_path {where}/tmp-proxy;
    fastcgi_temp_path {where}/tmp-fastcgi;
    uwsgi_temp_path {where}/tmp-uwsgi;
    scgi_temp_path {where}/tmp-scgi;
    server {{
        listen {ip}:{port} ssl http2;
        server_name {name};
        ssl_certificate {where}/server.pem;
        ssl_certificate_key {where}/server.key;
        ssl_protocols TLSv1.2 TLSv1.3;
        root {where}/www;
        location = /tls {{ return 200 "$ssl_protocol $ssl_cipher\\n"; }}
        location /upload/ {{ dav_methods PUT; root {where}/uploaded; }}
    }}
}}
"""


def wait_until(ready: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    """Check every 20 ms. Raises MachineError with the name of what did not become ready."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > deadline:
            raise MachineError(f"{what} within {timeout_s:g} s")
        time.sleep(0.02)


@dataclass(slots=True)
class Lab:
    """The three hosts, with the server's programs running; created by `Lab.open`."""

    where: Path
    client: NetNamespace
    router: NetNamespace
    server: NetNamespace
    size: int
    """Bytes of /big, the file for downloads and uploads."""
    server_ca: Path
    check_sha256: str

    @classmethod
    @contextmanager
    def open(cls, size: int, congestion_control: str) -> Iterator[Lab]:
        """Create the lab, and always remove it. Needs root.

        Every connection of the three hosts uses the given congestion control. Raises MachineError
        if the kernel does not permit it in a namespace.
        """
        with ExitStack() as stack:
            where = Path(tempfile.mkdtemp(prefix="mitml4-bench-", dir=_tmpfs()))
            stack.callback(shutil.rmtree, where, ignore_errors=True)
            where.chmod(0o755)  # peers that drop root read their files here
            client, router, server = (stack.enter_context(NetNamespace()) for _ in range(3))
            _cable(client, router, server)
            for host in (client, router, server):
                _choose_congestion_control(host, congestion_control)
            lab = cls(
                where=where,
                client=client,
                router=router,
                server=server,
                size=size,
                server_ca=_certify(where),
                check_sha256=_fill(where / "www", size),
            )
            for process in lab._serve():
                stack.callback(stop, process)
            lab._wait_for_servers()
            yield lab

    def _serve(self) -> Iterator[subprocess.Popen[Any]]:
        config = self.where / "nginx.conf"
        config.write_text(
            _NGINX.format(where=self.where, ip=SERVER_IP, port=TLS_PORT, name=SERVER_NAME)
        )
        (self.where / "uploaded" / "upload").mkdir(parents=True)
        nginx = ["nginx", "-e", str(self.where / "nginx.log"), "-c", str(config)]
        yield self.start(self.server, nginx, log="nginx.log")
        opaque = [str(_HERE / "opaque.py"), "serve", SERVER_IP, str(OPAQUE_PORT)]
        big = str(self.where / "www" / "big")
        yield self.start(self.server, [sys.executable, *opaque, big], log="opaque.log")

    def _wait_for_servers(self) -> None:
        ports = {TLS_PORT, OPAQUE_PORT}
        wait_until(lambda: ports <= self.listening(self.server), "the servers did not start")

    def listening(self, host: NetNamespace) -> set[int]:
        """The TCP ports (IPv4 and IPv6) that are open in the namespace."""
        lines = host.run("ss", "-Hltn", env=ENVIRONMENT).stdout.splitlines()
        return {int(line.split()[3].rpartition(":")[2]) for line in lines}

    def start(
        self, host: NetNamespace, argv: list[str], *, log: str, **options: Any
    ) -> subprocess.Popen[Any]:
        """Start a program whose output goes to a file of the lab; the caller ends it."""
        with (self.where / log).open("ab") as output:
            settings: dict[str, Any] = {
                "stdin": subprocess.DEVNULL,
                "stdout": output,
                "stderr": subprocess.STDOUT,
                "env": ENVIRONMENT,
            }
            return host.popen(argv, **settings | options)

    def curl(self, trust: Path, *options: str, path: str) -> list[dict[str, Any]]:
        """curl's report for each transfer (its `%{json}`), trusting only the given CA."""
        limit_s = 120 + self.size // 5_000_000
        shown = self.client.run(
            "curl",
            *("-sS", "--cacert", str(trust), "--max-time", str(limit_s)),
            *("--resolve", f"{SERVER_NAME}:{TLS_PORT}:{SERVER_IP}"),
            *("-o", "/dev/null", "-w", "%{json}\\n", *options),
            f"https://{SERVER_NAME}{path}",
            env=ENVIRONMENT,
        ).stdout
        return [json.loads(line) for line in shown.splitlines()]

    def sha256_by_curl(self, trust: Path, path: str) -> str:
        """The digest of a file as the client receives it."""
        resolve = f"{SERVER_NAME}:{TLS_PORT}:{SERVER_IP}"
        argv = ["curl", "-sS", "--cacert", str(trust), "--max-time", "60", "--resolve", resolve]
        body = self.client.run(
            *argv, f"https://{SERVER_NAME}{path}", env=ENVIRONMENT, text=False
        ).stdout
        return hashlib.sha256(body).hexdigest()  # type: ignore[arg-type]

    def script(self, name: str, *arguments: str) -> Any:
        """Run one of the client's scripts; returns the JSON that it prints."""
        argv = [sys.executable, str(_HERE / name), *arguments]
        return json.loads(self.client.run(*argv, env=ENVIRONMENT).stdout)

    def fresh(self, trust: Path, command: str, **options: int) -> list[str]:
        """The arguments of fresh.py."""
        place = ["--ip", SERVER_IP, "--port", str(TLS_PORT), "--name", SERVER_NAME]
        more = [part for key, value in options.items() for part in (f"--{key}", str(value))]
        return [command, *place, "--trust", str(trust), *more]


def _tmpfs() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _cable(client: NetNamespace, router: NetNamespace, server: NetNamespace) -> None:
    connect_with_veth(client, "eth0", router, CLIENT_INTERFACE)
    connect_with_veth(server, "eth0", router, SERVER_INTERFACE)
    ends = [
        (client, "eth0", CLIENT_IP),
        (router, CLIENT_INTERFACE, ROUTER_CLIENT_IP),
        (router, SERVER_INTERFACE, ROUTER_SERVER_IP),
        (server, "eth0", SERVER_IP),
    ]
    for host, interface, address in ends:
        host.run("ip", "link", "set", "lo", "up")
        host.run("ip", "address", "add", f"{address}/24", "dev", interface)
        host.run("ip", "link", "set", interface, "up")
    client.run("ip", "route", "add", "default", "via", ROUTER_CLIENT_IP)
    server.run("ip", "route", "add", "default", "via", ROUTER_SERVER_IP)
    router.call(lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))
    # Many new connections must not run out of ports in TIME-WAIT.
    client.call(lambda: Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("10000 65000"))
    router.call(lambda: Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("10000 65000"))


def _choose_congestion_control(host: NetNamespace, name: str) -> None:
    try:
        host.call(lambda: _TCP_SETTING.write_text(name))
    except OSError:
        raise MachineError(
            f"no namespace may choose the congestion control {name}",
            hint="cat /proc/sys/net/ipv4/tcp_allowed_congestion_control says which it may",
        ) from None


def _certify(where: Path) -> Path:
    """The server's EC P-256 certificate; returns the file of the CA that signed it."""
    authority = trustme.CA(organization_name="bench server CA")
    leaf = authority.issue_cert(SERVER_NAME)
    leaf.private_key_pem.write_to_path(where / "server.key")
    for part in leaf.cert_chain_pems:
        part.write_to_path(where / "server.pem", append=True)
    authority.cert_pem.write_to_path(where / "server-ca.pem")
    return where / "server-ca.pem"


def _fill(www: Path, size: int) -> str:
    """Write /small, /check and /big, which repeat one incompressible block."""
    www.mkdir()
    block = random.Random(4).randbytes(BLOCK_BYTES)
    (www / "small").write_bytes(block[:1024])
    check = block * (CHECK_BYTES // BLOCK_BYTES)
    (www / "check").write_bytes(check)
    with (www / "big").open("wb") as big:
        for start in range(0, size, BLOCK_BYTES):
            big.write(block[: size - start])
    return hashlib.sha256(check).hexdigest()
