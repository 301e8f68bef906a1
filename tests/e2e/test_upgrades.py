"""Protocols that turn into TLS in the middle, with Debian's own servers and clients."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from mitml4.lab.network import SERVER_V4

from .exim import serve_exim

HOST = "www.example"
PG_BIN = sorted(Path("/usr/lib/postgresql").glob("*/bin"))

MAIL = "From: a@www.example\r\nTo: root@www.example\r\nSubject: hello\r\n\r\nSTARTTLS\r\n"


def test_smtp(serve, session, client, identity, files: Path) -> None:
    port = 25025
    serve_exim(serve, files, identity, port)
    watch = session.watch()
    mail = files / "mail.txt"
    mail.write_text(MAIL)
    outcome = client.run(
        *("curl", "-sS", "--ssl-reqd", "--cacert", str(session.ca)),
        *("--resolve", f"{HOST}:{port}:{SERVER_V4}", f"smtp://{HOST}:{port}/client.example"),
        *("--mail-from", "a@www.example", "--mail-rcpt", "root@www.example", "-T", str(mail)),
    )
    assert outcome.code == 0, outcome.err
    flow = watch.flow()
    assert flow.stack == ["smtp", "tls", "smtp"]
    assert flow.actions == ["relayed", "intercepted", "relayed"]
    assert flow.layer("smtp")["details"]["upgraded"] is True
    assert "Exim" in flow.layer("smtp")["details"]["greeting"]


def serve_ftp(serve, identity, files: Path, port: int, *options: str) -> None:
    """It wants each data connection to resume the session of its control connection."""
    root, jail = files / f"ftp-{port}", files / "ftp-jail"
    root.mkdir()
    (root / "file.txt").write_text("by FTP\n")
    jail.mkdir(exist_ok=True)
    config = root / "vsftpd.conf"
    config.write_text(
        f"listen=YES\nlisten_port={port}\nbackground=NO\nanonymous_enable=YES\nanon_root={root}\n"
        f"no_anon_password=YES\nssl_enable=YES\nallow_anon_ssl=YES\nrequire_ssl_reuse=YES\n"
        f"force_anon_data_ssl=NO\nrsa_cert_file={identity.certificate}\n"
        f"rsa_private_key_file={identity.key}\nsecure_chroot_dir={jail}\nseccomp_sandbox=NO\n"
        "ssl_ciphers=HIGH\n"
        "pasv_min_port=30000\npasv_max_port=30100\nftp_username=daemon\nssl_tlsv1=YES\n"
        + "".join(f"{option}\n" for option in options)
    )
    serve("vsftpd", str(config), port=port)


def test_ftp(serve, session, client, identity, files: Path, bundle) -> None:
    port = 21021
    serve_ftp(serve, identity, files, port)
    url = f"ftp://{HOST}:{port}/file.txt"
    trust = ("--ssl-reqd", "--cacert", str(bundle), "--resolve", f"{HOST}:{port}:{SERVER_V4}")
    options = f"set ssl:ca-file {bundle}; set ftp:ssl-allow-anonymous yes; set ftp:ssl-force yes;"
    options += " set ftp:ssl-protect-data yes"
    curl, curl_12 = ("curl", "-sS", *trust, url), ("curl", "-sS", "--tls-max", "1.2", *trust, url)
    lftp = (
        "lftp",
        "-e",
        f"{options}; set net:max-retries 1; cat file.txt; bye",
        f"ftp://{SERVER_V4}:{port}",
    )
    for name, argv, action in (
        ("curl", curl, "intercepted"),
        # The server has asked for a client's certificate, and this client shows that it has none.
        ("curl again", curl, "passthrough"),
        ("curl, once more", curl, "intercepted"),
        ("curl 1.2", curl_12, "intercepted"),
        ("lftp", lftp, "intercepted"),
    ):
        watch = session.watch()
        outcome = client.run(*argv)
        assert (outcome.code, outcome.text) == (0, "by FTP\n"), f"{name}: {outcome.err}"
        control, data = watch.flows(2)
        assert control.actions[:2] == ["relayed", action], name
        assert data.actions[0] == action, name
        if action == "intercepted":
            assert control.stack == ["ftp", "tls", "ftp"], name
            assert data.stack == ["tls", "ftp-data"], name
            assert data.layer("tls")["details"]["resumed"] is True, name
        else:
            assert data.stack == ["tls"], name
    watch = session.watch()
    assert client.run("curl", "-sS", f"ftp://{SERVER_V4}:{port}/file.txt").text == "by FTP\n"
    assert [flow.stack for flow in watch.flows(2)] == [["ftp"], ["ftp-data"]]


def test_ftps(serve, session, client, identity, files: Path, bundle) -> None:
    """A data connection resumes the session of a control connection that was passed through."""
    port = 990
    serve_ftp(serve, identity, files, port, "implicit_ssl=YES")
    trust = ("--cacert", str(bundle), "--resolve", f"{HOST}:{port}:{SERVER_V4}")
    seen = set()
    for attempt in range(3):
        watch = session.watch()
        outcome = client.run("curl", "-sS", *trust, f"ftps://{HOST}:{port}/file.txt")
        assert (outcome.code, outcome.text) == (0, "by FTP\n"), f"{attempt}: {outcome.err}"
        control, data = watch.flows(2)
        assert control.actions[0] == data.actions[0], attempt
        seen.add(control.actions[0])
    assert seen == {"passthrough", "intercepted"}


def test_imap(serve, session, client, identity, files: Path) -> None:
    port = 14143
    home = files / "imap"
    home.mkdir()
    passwords = home / "passwd"
    passwords.write_text("me:{PLAIN}secret:65534:65534::/:/bin/false\n")
    config = home / "dovecot.conf"
    config.write_text(
        f"""\
protocols = imap
base_dir = {home}/run
state_dir = {home}/state
listen = {SERVER_V4}
ssl = required
ssl_cert = <{identity.certificate}
ssl_key = <{identity.key}
disable_plaintext_auth = yes
log_path = /dev/stderr
mail_location = maildir:{home}/mail/%u
first_valid_uid = 1
passdb {{
  driver = passwd-file
  args = {passwords}
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={home}/mail
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
"""
    )
    mail = home / "mail"
    mail.mkdir()
    shutil.chown(mail, "nobody", "nogroup")
    serve("dovecot", "-F", "-c", str(config), port=port)
    watch = session.watch()
    outcome = client.run(
        *("curl", "-sS", "--ssl-reqd", "--cacert", str(session.ca), "-u", "me:secret"),
        *("--resolve", f"{HOST}:{port}:{SERVER_V4}", f"imap://{HOST}:{port}/"),
    )
    assert outcome.code == 0, outcome.err
    assert "INBOX" in outcome.text
    flow = watch.flow()
    assert flow.stack == ["imap", "tls", "imap"]
    assert flow.actions == ["relayed", "intercepted", "relayed"]


@pytest.fixture(scope="module")
def postgresql(serve, identity, files: Path, wait_until) -> int:
    """PostgreSQL, whose user `me` needs a password and all others none; returns its port."""
    port = 15432
    data = files / "postgresql"
    data.mkdir()
    shutil.chown(data, "postgres", "postgres")
    as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    subprocess.run(
        [*as_postgres, str(PG_BIN[-1] / "initdb"), "-D", str(data), "-A", "trust", "--no-sync"],
        check=True,
        capture_output=True,
    )
    for name, source in (("server.crt", identity.certificate), ("server.key", identity.key)):
        target = data / name
        shutil.copy(source, target)
        shutil.chown(target, "postgres", "postgres")
        target.chmod(0o600)
    (data / "pg_hba.conf").write_text(
        "hostssl all me all scram-sha-256\nhostssl all all all trust\n"
    )
    serve(
        *as_postgres,
        *(str(PG_BIN[-1] / "postgres"), "-D", str(data), "-p", str(port), "-h", SERVER_V4),
        *("-c", "ssl=on", "-c", f"unix_socket_directories={data}", "-c", "fsync=off"),
        port=port,
    )
    told = data / "postmaster.pid"  # it listens before it is ready, and refuses until then
    wait_until(lambda: told.read_text().rstrip().endswith("ready"), "PostgreSQL is ready")
    return port


def test_postgresql(postgresql, session, client) -> None:
    watch = session.watch()
    outcome = client.run(
        "psql",
        f"host={HOST} hostaddr={SERVER_V4} port={postgresql} user=postgres dbname=postgres "
        f"sslmode=verify-full sslrootcert={session.ca} gssencmode=disable",
        *("-Atc", "select 6 * 7"),
    )
    assert (outcome.code, outcome.text) == (0, "42\n"), outcome.err
    flow = watch.flow()
    assert flow.stack == ["postgresql", "tls", "postgresql"]
    assert flow.actions == ["relayed", "intercepted", "relayed"]


def test_a_login_that_is_bound_to_its_tls_works_the_second_time(
    postgresql, session, client, beside
) -> None:
    """psql uses channel binding where the server offers it; told not to, it is always opened."""

    def ask(machine, user: str, *, binds: bool = True, query: str = "select 6 * 7"):
        binding = "prefer" if binds else "disable"
        return machine.run(
            "psql",
            f"host={HOST} hostaddr={SERVER_V4} port={postgresql} user={user} dbname=postgres "
            f"password=secret sslmode=require gssencmode=disable channel_binding={binding}",
            *("-Atc", query),
        )

    made = ask(beside, "postgres", query="create role me login password 'secret'")
    assert made.code == 0, made.err
    for binds, code, actions in (
        (False, 0, ["relayed", "intercepted", "relayed"]),
        (False, 0, ["relayed", "intercepted", "relayed"]),
        (True, 2, ["relayed", "intercepted", "relayed"]),
        (True, 0, ["relayed", "passthrough"]),
        (True, 0, ["relayed", "passthrough"]),
    ):
        watch = session.watch()
        outcome = ask(client, "me", binds=binds)
        assert outcome.code == code, outcome.err
        assert ("channel binding check failed" in outcome.err) == bool(code)
        flow = watch.flow()
        assert flow.actions == actions
    assert flow.layer("tls")["details"]["passthrough"] == "channel binding"


def test_mysql(serve, session, client, beside, identity, files: Path) -> None:
    port = 13306
    data = files / "mysql"
    data.mkdir()
    shutil.chown(data, "mysql", "mysql")
    key = data / "key.pem"
    shutil.copy(identity.key, key)
    shutil.chown(key, "mysql", "mysql")
    key.chmod(0o600)
    subprocess.run(
        ["mariadb-install-db", "--no-defaults", f"--datadir={data}/db", "--user=mysql"],
        check=True,
        capture_output=True,
    )
    sql = data / "init.sql"
    sql.write_text("CREATE USER me@'%' IDENTIFIED BY 'secret' REQUIRE SSL;\n")
    serve(
        *("mariadbd", "--no-defaults", "--user=mysql", f"--datadir={data}/db"),
        *(f"--socket={data}/s", f"--pid-file={data}/pid", f"--init-file={sql}"),
        *(f"--bind-address={SERVER_V4}", f"--port={port}"),
        *(f"--ssl-cert={identity.certificate}", f"--ssl-key={key}"),
        port=port,
    )
    watch = session.watch()
    outcome = client.run(
        *("mariadb", "--no-defaults", "-h", SERVER_V4, "-P", str(port), "-u", "me", "-psecret"),
        *("--ssl", f"--ssl-ca={session.ca}", "--ssl-verify-server-cert"),
        *("-Ne", "select 6 * 7"),
    )
    assert (outcome.code, outcome.text) == (0, "42\n"), outcome.err
    flow = watch.flow()
    assert flow.stack == ["mysql", "tls", "mysql"]
    assert flow.actions == ["relayed", "intercepted", "relayed"]
