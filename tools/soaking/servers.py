"""The servers of the soak: other projects' where there are any."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mitml4.lab.certificates import Identity, LabAuthority
from mitml4.lab.network import SERVER_V4, SERVER_V6

from .isolated_server import IsolatedServer
from .lab import Lab

__all__ = ["HOST", "SIZES", "Site", "start_databases", "start_servers", "start_web_and_echo"]

HOST: Final = "www.example"
SIZES: Final = (0, 1, 1_400, 40_000, 700_000, 3_000_000)
"""Of the files that the web server has, named by their size."""

_TOOLS: Final = Path(__file__).parents[1]
_POSTGRESQL: Final = sorted(Path("/usr/lib/postgresql").glob("*/bin"))

_NGINX: Final = """\
daemon off; master_process off; worker_processes 1; pid {files}/nginx.pid;
error_log /dev/null crit;
events {{ worker_connections 2048; }}
http {{
    access_log off; client_max_body_size 0; default_type application/octet-stream;
    client_body_temp_path {files}/body; proxy_temp_path {files}/proxy;
    fastcgi_temp_path {files}/fastcgi; uwsgi_temp_path {files}/uwsgi;
    scgi_temp_path {files}/scgi;
    ssl_certificate {identity.certificate}; ssl_certificate_key {identity.key};
    server {{
        listen 80; listen [::]:80; listen 443 ssl http2; listen [::]:443 ssl http2;
        ssl_protocols TLSv1.2 TLSv1.3; root {web};
        location /put/ {{ dav_methods PUT; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Site:
    """Where things are, and what clients trust."""

    files: Path
    web: Path
    hosts: Path
    authority: LabAuthority
    identity: Identity

    @classmethod
    def make(cls, files: Path, rng: random.Random) -> Site:
        """Files that any user may read; contents by the seed."""
        files.chmod(0o755)
        web = files / "web"
        (web / "put").mkdir(parents=True)
        for directory in (web, web / "put"):
            directory.chmod(0o777)
        for size in SIZES:
            (web / str(size)).write_bytes(rng.randbytes(size))
        hosts = files / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n{SERVER_V4} {HOST}\n")
        authority = LabAuthority(files)
        return cls(files, web, hosts, authority, authority.issue(HOST, SERVER_V4, SERVER_V6))

    def content(self, size: int) -> bytes:
        return (self.web / str(size)).read_bytes()


def start_web_and_echo(lab: Lab, site: Site) -> list[IsolatedServer]:
    """nginx on ports 80 and 443, and on port 7777 what sends back all that it gets."""
    files = site.files
    config = files / "nginx.conf"
    config.write_text(_NGINX.format(files=files, identity=site.identity, web=site.web))
    nginx = ("nginx", "-e", "/dev/null", "-c", str(config), "-p", str(files))
    echo = ("socat", "TCP6-LISTEN:7777,fork,reuseaddr,ipv6only=0,backlog=256", "EXEC:cat")
    return [
        IsolatedServer(lab.server, site.hosts, nginx, 443),
        IsolatedServer(lab.server, site.hosts, echo, 7777),
    ]


def start_servers(lab: Lab, site: Site) -> list[IsolatedServer]:
    """Those that start fast. They need not listen yet."""
    files, identity = site.files, site.identity
    proxy = files / "tinyproxy.conf"
    proxy.write_text(f"Port 3128\nListen {SERVER_V4}\nMaxClients 200\nTimeout 60\n")
    tls = (f"cert={identity.certificate}", f"key={identity.key}", "verify=0")
    mail = ("-m", "aiosmtpd", "-n", "-l", f"{SERVER_V4}:25")
    pair = ("--tlscert", str(identity.certificate), "--tlskey", str(identity.key))
    programs: list[tuple[int, tuple[str, ...]]] = [
        (22, ("/usr/sbin/sshd", "-D", "-e", "-f", str(_configure_sshd(files)))),
        (25, (sys.executable, *mail, *pair)),
        (6379, ("redis-server", "--port", "6379", "--save", "", "--protected-mode", "no")),
        (1080, ("microsocks", "-i", SERVER_V4, "-p", "1080")),
        (3128, ("tinyproxy", "-d", "-c", str(proxy))),
        (7778, ("socat", ",".join(("OPENSSL-LISTEN:7778,fork,reuseaddr", *tls)), "EXEC:cat")),
        (8765, (sys.executable, "-m", "soaking.talk", "serve", SERVER_V4)),
    ]
    servers = [
        IsolatedServer(lab.server, site.hosts, argv, port, cwd=_TOOLS) for port, argv in programs
    ]
    return [*start_web_and_echo(lab, site), *servers]


def start_databases(lab: Lab, site: Site) -> list[IsolatedServer]:
    """Those that need seconds to prepare."""
    return [_start_postgresql(lab, site), _start_mariadb(lab, site)]


def _configure_sshd(files: Path) -> Path:
    for name in ("host_key", "user_key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(files / name)], check=True
        )
    config = files / "sshd_config"
    config.write_text(
        f"Port 22\nHostKey {files}/host_key\nAuthorizedKeysFile {files}/user_key.pub\n"
        "StrictModes no\nPermitRootLogin prohibit-password\nPidFile none\nUsePAM no\n"
        "MaxStartups 100\n"
    )
    return config


def _copy_for(user: str, source: Path, target: Path) -> Path:
    shutil.copy(source, target)
    shutil.chown(target, user, user)
    target.chmod(0o600)
    return target


def _start_postgresql(lab: Lab, site: Site) -> IsolatedServer:
    data = site.files / "postgresql"
    data.mkdir()
    shutil.chown(data, "postgres", "postgres")
    as_user = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
    initdb = (
        *as_user,
        str(_POSTGRESQL[-1] / "initdb"),
        "-D",
        str(data),
        "-A",
        "trust",
        "--no-sync",
    )
    subprocess.run(initdb, check=True, capture_output=True)
    _copy_for("postgres", site.identity.certificate, data / "server.crt")
    _copy_for("postgres", site.identity.key, data / "server.key")
    (data / "pg_hba.conf").write_text("hostssl all all all trust\n")
    argv = (
        *("sh", "-c", 'rm -f "$1"/postmaster.pid; shift; exec "$@"', "sh", str(data)),
        *(*as_user, str(_POSTGRESQL[-1] / "postgres"), "-D", str(data), "-h", SERVER_V4),
        *("-p", "5432", "-c", "ssl=on", "-c", f"unix_socket_directories={data}", "-c", "fsync=off"),
    )
    return IsolatedServer(lab.server, site.hosts, argv, 5432)


def _start_mariadb(lab: Lab, site: Site) -> IsolatedServer:
    data = site.files / "mariadb"
    data.mkdir()
    shutil.chown(data, "mysql", "mysql")
    key = _copy_for("mysql", site.identity.key, data / "key.pem")
    install = ("mariadb-install-db", "--no-defaults", f"--datadir={data}/db", "--user=mysql")
    subprocess.run(install, check=True, capture_output=True)
    sql = data / "init.sql"
    sql.write_text("CREATE USER IF NOT EXISTS me@'%' IDENTIFIED BY 'secret' REQUIRE SSL;\n")
    argv = (
        *("mariadbd", "--no-defaults", "--user=mysql", f"--datadir={data}/db"),
        *(f"--socket={data}/s", f"--pid-file={data}/pid", f"--init-file={sql}"),
        *(f"--bind-address={SERVER_V4}", "--port=3306", "--max-connect-errors=100000"),
        *(f"--ssl-cert={site.identity.certificate}", f"--ssl-key={key}"),
    )
    return IsolatedServer(lab.server, site.hosts, argv, 3306)
