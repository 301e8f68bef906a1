"""`mitml4 run --via`: the command's connections go through real proxies."""

from __future__ import annotations

import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from mitml4.lab.certificates import Identity, LabAuthority
from mitml4.lab.network import ROUTER_WAN_V4, SERVER_V4
from mitml4.lab.snapshot import difference, take_snapshot
from tests.e2e.proxies import serve_dante, serve_inside_tls, serve_ssh_d, serve_tinyproxy

HTTP, HTTP_WITH_USER, TLS, NARROW, SQUID = 3128, 3129, 3130, 3131, 3132
SOCKS, SOCKS_WITH_USER, DANTE, SSH_D = 1080, 1081, 1082, 1083
WEB, SECURE, CLOSED, NO_PROXY = 80, 443, 9, 10
LOGIN = "alice:s3cret"
CURL = ("curl", "-4", "--silent", "--show-error", "--max-time", "20")
REFUSED, UNREACHABLE = 7, 7  # curl(1)


@pytest.fixture(scope="module")
def proxies(serve, files: Path, identity, sshd) -> None:
    """Servers that tell who has connected to them, and proxies on the same machine, whose
    connections come from another address than the router's."""
    config = files / "nginx.conf"
    config.write_text(f"""
        daemon off; master_process off; worker_processes 1; pid {files}/nginx.pid;
        error_log stderr crit;
        events {{ worker_connections 256; }}
        http {{
            access_log off; default_type text/plain;
            ssl_certificate {identity.certificate}; ssl_certificate_key {identity.key};
            server {{
                listen {WEB}; listen {SECURE} ssl http2;
                location / {{ return 200 "$remote_addr\\n"; }}
            }}
        }}
    """)
    serve("nginx", "-c", str(config), "-p", str(files), port=SECURE)
    serve("microsocks", "-i", SERVER_V4, "-p", str(SOCKS), port=SOCKS)
    user, password = LOGIN.split(":")
    serve(
        *("microsocks", "-i", SERVER_V4, "-p", str(SOCKS_WITH_USER), "-u", user, "-P", password),
        port=SOCKS_WITH_USER,
    )
    serve_dante(serve, files, DANTE)
    serve_ssh_d(serve, sshd, SSH_D)
    serve_tinyproxy(serve, files, HTTP)
    serve_tinyproxy(serve, files, HTTP_WITH_USER, f"BasicAuth {user} {password}")
    serve_tinyproxy(serve, files, NARROW, "ConnectPort 443")
    squid = files / "squid.conf"
    squid.write_text(f"""
        http_port {SERVER_V4}:{SQUID}
        pid_filename none
        cache_log /dev/null
        access_log none
        cache deny all
        shutdown_lifetime 0 seconds
        acl usual port {SECURE} {WEB}
        http_access deny CONNECT !usual
        http_access allow all
    """)
    serve("squid", "-N", "-f", str(squid), port=SQUID)
    serve_inside_tls(serve, identity, TLS, HTTP)


pytestmark = pytest.mark.usefixtures("proxies")

KINDS = (
    (f"http://{SERVER_V4}:{HTTP}",),
    (f"http://{LOGIN}@{SERVER_V4}:{HTTP_WITH_USER}",),
    (f"http://{SERVER_V4}:{SQUID}",),
    (f"https://www.example:{TLS}",),
    (f"socks4://{SERVER_V4}:{DANTE}",),
    (f"socks4a://{SERVER_V4}:{SSH_D}",),
    (f"socks5://{SERVER_V4}:{SOCKS}",),
    (f"socks5h://{LOGIN}@{SERVER_V4}:{SOCKS_WITH_USER}",),
    (f"socks5h://{SERVER_V4}:{DANTE}",),
    (f"socks5h://{SERVER_V4}:{SSH_D}",),
    (f"socks5h://{SERVER_V4}:{SOCKS}", f"http://{SERVER_V4}:{HTTP}"),
    (f"http://{SERVER_V4}:{HTTP}", f"https://www.example:{TLS}", f"socks4a://{SERVER_V4}:{SSH_D}"),
    (f"https://www.example:{TLS}", f"https://www.example:{TLS}"),
)


@pytest.fixture(scope="module")
def identity(authority: LabAuthority) -> Identity:
    """With a name for each of the kinds."""
    return authority.issue("www.example", *map(host_of, range(len(KINDS))), SERVER_V4)


@pytest.fixture(scope="module")
def hosts(files: Path) -> Path:
    """The proxies know them too."""
    path = files / "hosts"
    names = " ".join(["www.example", *map(host_of, range(len(KINDS)))])
    path.write_text(f"127.0.0.1 localhost\n{SERVER_V4} {names}\n")
    return path


def host_of(kind: int) -> str:
    return f"kind{kind}.example"


def test_tls_is_opened_inside_the_tunnel(host) -> None:
    """Through each kind of proxy, and chains of them, in one session."""
    options, urls, said = [], [], []
    for kind, chain in enumerate(KINDS):
        options += [part for url in chain for part in ("--via", f"{host_of(kind)}={url}")]
        urls += [f"https://{host_of(kind)}/", f"http://{host_of(kind)}/"]
        told = " › ".join(url.replace(f"{LOGIN}@", "") for url in chain)
        said.append(f"{host_of(kind)}={told}")
    ended = host.run(*CURL, *urls, options=options)
    assert (ended.code, ended.out) == (0, f"{SERVER_V4}\n" * len(urls))
    assert sorted(ended.stacks) == [["http/1"]] * len(KINDS) + [["tls", "http/2"]] * len(KINDS)
    layers = [each for each in ended.of_type("flow.layer") if each["protocol"] == "tls"]
    assert [each["action"] for each in layers] == ["intercepted"] * len(KINDS)
    names = list(map(host_of, range(len(KINDS))))
    assert [each["details"]["sni"] for each in layers] == names
    (start,) = ended.of_type("session.start")
    assert start["via"] == said
    assert not ended.of_type("flow.error")
    assert "s3cret" not in f"{ended.events} {ended.err}"


def test_only_the_hosts_that_are_named_go_through_it(host) -> None:
    url = f"socks5://{SERVER_V4}:{SOCKS}"
    visits = ("http://a.example/", "http://b.example/", "http://c.b.example/")
    for options, seen in (
        (["--via", f"*.b.example={url}"], [ROUTER_WAN_V4, ROUTER_WAN_V4, SERVER_V4]),
        (["--via", url, "--no-via", "b.example"], [SERVER_V4, ROUTER_WAN_V4, SERVER_V4]),
        (["--via", url, "--no-via", SERVER_V4], [ROUTER_WAN_V4] * 3),
    ):
        script = "".join(f"{' '.join(CURL)} --no-keepalive {each}\n" for each in visits)
        ended = host.run("sh", "-c", script, options=options)
        assert ended.out.split() == seen, options


def test_the_name_is_asked_for_that_the_command_has_looked_up(host, lab) -> None:
    """What a SOCKS5 proxy of ours is asked for."""
    asked: list[bytes] = []
    server = lab.server.call(lambda: socket.create_server((SERVER_V4, 0)))

    def serve() -> None:
        for _ in range(3):
            client, _ = server.accept()
            with client:
                client.recv(3)
                client.sendall(b"\x05\x00")
                asked.append(client.recv(512)[3:])
                client.sendall(b"\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00")

    thread = threading.Thread(target=serve)
    thread.start()
    with server:
        port = server.getsockname()[1]
        script = f"for each in byfile.example some.example {SERVER_V4}; do "
        script += f"{' '.join(CURL)} http://$each:81/; done; exit 0"
        host.run("sh", "-c", script, options=["--via", f"socks5h://{SERVER_V4}:{port}"])
        thread.join(20)
    last = b"\x03\x0csome.example\x00Q"
    assert asked == [b"\x03\x0ebyfile.example\x00Q", last, last]


REFUSALS = (
    (f"http://{SERVER_V4}:{NARROW}", WEB, "answers 403"),
    (f"http://{SERVER_V4}:{HTTP_WITH_USER}", WEB, "answers 407"),
    (f"http://{SERVER_V4}:{SQUID}", CLOSED, "answers 403 Forbidden"),
    (f"http://bob:s3cret@{SERVER_V4}:{HTTP_WITH_USER}", WEB, "answers 401"),
    (f"http://{SERVER_V4}:{HTTP}", CLOSED, "answers 500"),
    (f"socks5h://{SERVER_V4}:{SOCKS_WITH_USER}", WEB, "wants a user"),
    (f"socks5h://bob:s3cret@{SERVER_V4}:{SOCKS_WITH_USER}", WEB, "refuses the user"),
    (f"socks5h://{SERVER_V4}:{SOCKS}", CLOSED, "answers 5: connection refused"),
    (f"socks5h://{SERVER_V4}:{DANTE}", CLOSED, "answers 5: connection refused"),
    (f"socks4a://{SERVER_V4}:{SSH_D}", CLOSED, "closes the connection without an answer"),
    (f"http://{SERVER_V4}:{SOCKS}", WEB, "does not answer as a proxy for HTTP"),
    (f"socks5h://{SERVER_V4}:{SECURE}", WEB, "does not answer as a proxy for SOCKS"),
    (f"socks5h://{SERVER_V4}:{NO_PROXY}", WEB, "cannot be reached (Connection refused)"),
    (f"https://wrong.example:{TLS}", WEB, "breaks TLS (its certificate: hostname mismatch)"),
    ("http://nowhere.test:3128", WEB, "cannot be reached"),
)


def test_a_refusal_by_the_proxy_is_one_of_the_server_s(host) -> None:
    options, urls = [], []
    for kind, (url, port, _) in enumerate(REFUSALS):
        options += ["--via", f"{host_of(kind)}={url}"]
        urls.append(f"http://{host_of(kind)}:{port}/")
    shown = ("--write-out", "%{exitcode}\n")
    ended = host.run(*CURL, *shown, *urls, options=options)
    assert ended.out.split() == [str(REFUSED)] * len(REFUSALS)
    errors = ended.of_type("flow.error")
    for error in errors:
        assert (error["stage"], error["kind"]) == ("connect", "refused")
        assert error["reason"].startswith("proxy ")
    for error, (_, _, why) in zip(errors, REFUSALS, strict=True):
        assert why in error["reason"]
    assert {event["reason"] for event in ended.of_type("flow.close")} == {"refused"}
    assert "s3cret" not in f"{ended.events} {ended.err}"


def test_a_python_client_gets_the_errno(host) -> None:
    script = (
        "import socket\n"
        f"try: socket.create_connection(('{SERVER_V4}', {CLOSED}))\n"
        "except OSError as error: print(type(error).__name__)"
    )
    ended = host.run("python3", "-c", script, options=["--via", f"socks5h://{SERVER_V4}:{SOCKS}"])
    assert ended.out == "ConnectionRefusedError\n"


# --- the environment


def test_the_environment_s_proxies_are_used_by_programs_that_know_none(host) -> None:
    script = f"import socket; s = socket.socket(); s.connect(('www.example', {WEB})); "
    script += "s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n'); print(s.recv(4096).decode())"
    for env, options, seen in (
        ({"ALL_PROXY": f"socks5h://{SERVER_V4}:{SOCKS}"}, [], SERVER_V4),
        ({"http_proxy": f"{LOGIN}@{SERVER_V4}:{HTTP_WITH_USER}"}, [], SERVER_V4),
        ({"HTTPS_PROXY": f"http://{SERVER_V4}:{HTTP}"}, [], ROUTER_WAN_V4),
        ({"ALL_PROXY": f"http://{SERVER_V4}:{HTTP}"}, ["--no-via", "*"], ROUTER_WAN_V4),
        ({"ALL_PROXY": f"http://{SERVER_V4}:{HTTP}", "NO_PROXY": ".example"}, [], ROUTER_WAN_V4),
        ({"ALL_PROXY": f"http://{SERVER_V4}:{HTTP}", "NO_PROXY": "10.0.0.1,x"}, [], SERVER_V4),
    ):
        ended = host.run("python3", "-c", script, options=options, env=env)
        assert ended.out.rstrip().endswith(f"\n{seen}"), (env, ended.out, ended.err)
        assert ended.stacks == [["http/1"]]
        assert ("go through" in ended.err) == (not options)
        assert "s3cret" not in f"{ended.events} {ended.err}"


def test_the_command_s_own_connection_to_the_proxy_is_carried_directly(host) -> None:
    for variable, url, stack in (
        ("HTTPS_PROXY", f"http://proxy.example:{HTTP}", ["http-connect", "tls", "http/2"]),
        ("ALL_PROXY", f"socks5h://{SERVER_V4}:{SOCKS}", ["socks5", "tls", "http/2"]),
        ("HTTPS_PROXY", f"https://www.example:{TLS}", ["tls", "http-connect", "tls", "http/2"]),
    ):
        ended = host.run(*CURL, "https://www.example/", env={variable: url})
        assert (ended.code, ended.out) == (0, f"{SERVER_V4}\n")
        assert ended.stacks == [stack]


def test_a_proxy_on_the_host_s_loopback_is_watched_and_used(host, lab) -> None:
    """As `ssh -D` makes one. Its connections come from the router."""
    argv = host.shell("microsocks", "-i", "127.0.0.1", "-p", "1085")
    with lab.router.popen(argv, stderr=subprocess.DEVNULL) as process:
        try:
            while True:
                with suppress(OSError):
                    lab.router.call(lambda: socket.create_connection(("127.0.0.1", 1085))).close()
                    break
            env = {"ALL_PROXY": "socks5://localhost:1085"}
            ended = host.run(*CURL, "https://www.example/", env=env)
            assert (ended.code, ended.out) == (0, f"{ROUTER_WAN_V4}\n")
            assert ended.stacks == [["socks5", "tls", "http/2"]]
            ended = host.run(*CURL, "--noproxy", "*", "https://www.example/", env=env)
            assert (ended.code, ended.out) == (0, f"{ROUTER_WAN_V4}\n")
            assert ended.stacks == [["tls", "http/2"]]
        finally:
            process.kill()


def test_what_is_not_allowed_does_not_get_to_a_proxy(host) -> None:
    """With --allow, a proxy in the environment is a way out only where it is named."""
    url = f"http://proxy.example:{HTTP}"
    visits = "; ".join(
        f"{' '.join(CURL)} https://{each}.example/; echo $?" for each in ("www", "x")
    )
    for options, env, said in (
        (["--allow", "www.example", "--via", url], {}, [SERVER_V4, "0"]),
        (["--allow", "www.example"], {"ALL_PROXY": url}, ["5"]),  # curl(1): no such proxy
        (
            ["--allow", "www.example", "--allow", "proxy.example", "--allow", SERVER_V4],
            {"HTTPS_PROXY": url},
            [SERVER_V4, "0"],
        ),
    ):
        ended = host.run("sh", "-c", visits, options=options, env=env)
        *first, last = ended.out.split()
        assert (first, last == "0") == (said, False), ended.err


def test_a_variable_that_names_no_proxy_is_an_error_before_the_command_runs(host) -> None:
    ended = host.run("echo", "ran", env={"ALL_PROXY": "ftp://u:s3cret@proxy.example"})
    assert (ended.code, ended.out) == (2, "")
    assert "ALL_PROXY" in ended.err
    assert "--no-via '*'" in ended.err
    assert "s3cret" not in ended.err


def test_passwords_are_not_in_the_process_s_title(host, lab) -> None:
    """Neither in mitml4's, nor in that of the keeper of the namespace."""
    before = lab.router.call(take_snapshot)
    url = f"socks5h://{LOGIN}@{SERVER_V4}:{SOCKS_WITH_USER}"
    argv = host.argv("sh", "-c", "echo ready; read line", options=["--via", url, f"--via=x={url}"])
    process = host.popen(argv, stdin=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n"
    titles = []
    for directory in Path("/proc").iterdir():
        with suppress(OSError):
            titles.append((directory / "cmdline").read_bytes())
    masked = f"socks5h://{'*' * len(LOGIN)}@{SERVER_V4}:{SOCKS_WITH_USER}".encode()
    ours = [title for title in titles if masked in title]
    assert len(ours) >= 2
    assert not [title for title in ours if b"s3cret" in title]
    process.communicate("\n", timeout=30)
    assert difference(before, lab.router.call(take_snapshot)) == ""
