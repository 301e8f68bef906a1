"""`mitml4 proxy` without any capability, and curl on another machine that uses it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mitml4.lab.certificates import LabAuthority
from mitml4.lab.network import ROUTER_LAN_V4, ROUTER_LAN_V6, SERVER_V4, SERVER_V6, LabNetwork
from tests.e2e.conftest import Interception, Machine, Outcome, intercepting
from tests.e2e.test_upgrades import serve_ftp

PORT = 8080
POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
PAGE = "hello from nginx\n"


@pytest.fixture(scope="module")
def proxy(lab: LabNetwork, files: Path, authority: LabAuthority) -> Iterator[Interception]:
    """At all addresses of the router, with a password."""
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("MITML4_PROXY_AUTH", "me:secret")
        with intercepting(
            *(lab, files, "--block", "203.0.113.0/24"),
            command=("proxy",),
            scope=("--listen", f"[::]:{PORT}"),
            roots=(authority.root,),
            wrapper=POWERLESS,
        ) as session:
            yield session


@pytest.fixture(scope="module")
def ask(proxy: Interception, client: Machine) -> Callable[..., Outcome]:
    def run(scheme: str, *options: str, user: str = "me:secret") -> Outcome:
        return client.run(
            *("curl", "-sS", "--max-time", "60", "--cacert", str(proxy.ca), "--noproxy", ""),
            *("-x", f"{scheme}://{user}@{ROUTER_LAN_V4}:{PORT}", *options),
        )

    return run


@pytest.mark.parametrize(
    ("scheme", "url", "stack"),
    [
        ("http", f"https://{SERVER_V4}/", ["http-connect", "tls", "http/2"]),
        ("http", f"https://[{SERVER_V6}]:443/", ["http-connect", "tls", "http/2"]),
        ("http", f"http://{SERVER_V4}/", ["http/1"]),
        ("socks5", f"https://{SERVER_V4}:444/", ["socks5", "tls", "http/1"]),
        ("socks5h", f"http://[{SERVER_V6}]/", ["socks5", "http/1"]),
    ],
)
def test_what_is_inside_is_what_intercept_would_find(
    proxy: Interception,
    ask: Callable[..., Outcome],
    nginx: Path,
    scheme: str,
    url: str,
    stack: list[str],
) -> None:
    watch = proxy.watch()
    got = ask(scheme, url)
    assert (got.code, got.text) == (0, PAGE), got.err
    flow = watch.flow()
    assert (flow.stack, flow.closed["reason"]) == (stack, "closed")
    assert all(each["action"] == "intercepted" for each in flow.layers if each["protocol"] == "tls")


def test_data_of_ftp_is_named_in_tunnels(
    proxy: Interception, ask: Callable[..., Outcome], serve, identity, files: Path
) -> None:
    port = 21121
    serve_ftp(serve, identity, files, port)
    for options in ((), ("--disable-epsv",)):
        watch = proxy.watch()
        got = ask("socks5h", *options, f"ftp://{SERVER_V4}:{port}/file.txt")
        assert got.text == "by FTP\n", got.err
        stacks = sorted(flow.stack for flow in watch.flows(2))
        assert stacks == [["socks5", "ftp"], ["socks5", "ftp-data"]]


def test_several_urls_on_one_connection(
    proxy: Interception, ask: Callable[..., Outcome], nginx: Path
) -> None:
    watch = proxy.watch()
    urls = (f"http://{SERVER_V4}/", f"http://[{SERVER_V6}]/", "http://192.0.2.1/mitml4-ca.pem")
    got = ask("http", *urls)
    assert got.text == PAGE * 2 + proxy.ca.read_text()
    flow = watch.flow()
    assert [event["url"] for event in flow.http if event["type"] == "http.request"] == list(urls)


def test_a_tunnel_after_requests_on_the_same_connection(
    proxy: Interception, client: Machine, nginx: Path
) -> None:
    watch = proxy.watch()
    fields = " HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n"
    with client.connect(ROUTER_LAN_V4, PORT) as sock, sock.makefile("rb") as got:
        for ask, last in (
            (f"GET http://{SERVER_V4}/{fields}", PAGE),
            (f"CONNECT {SERVER_V4}:80{fields}", "\r\n"),
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", PAGE),
        ):
            sock.sendall(ask.encode())
            assert last.encode() in iter(got.readline, b"")
    assert watch.flow().stack == ["http/1", "http-connect", "http/1"]


@pytest.mark.parametrize(
    ("scheme", "options", "code", "said", "reason"),
    [
        ("http", [f"http://127.0.0.1:{PORT}/"], 0, "the proxy itself", "blocked"),
        ("http", [f"http://[{ROUTER_LAN_V6}]:{PORT}/"], 0, "the proxy itself", "blocked"),
        ("http", ["http://127.0.0.1:22/"], 0, "a loopback address", "blocked"),
        ("http", ["http://169.254.169.254/"], 0, "a link-local address", "blocked"),
        ("http", ["https://203.0.113.1/"], 56, "response 403", "blocked"),
        ("http", [f"https://{SERVER_V4}:9/"], 56, "response 502", "refused"),
        ("socks5", [f"http://{SERVER_V4}:9/"], 97, "(5)", "refused"),
        ("socks5", ["http://203.0.113.1/"], 97, "(2)", "blocked"),
        ("socks4", [f"http://{SERVER_V4}/"], 97, "request rejected", "closed"),
    ],
)
def test_a_refusal_reaches_the_client(
    proxy: Interception,
    ask: Callable[..., Outcome],
    nginx: Path,
    scheme: str,
    options: list[str],
    code: int,
    said: str,
    reason: str,
) -> None:
    watch = proxy.watch()
    got = ask(scheme, *options)
    assert got.code == code
    assert said in got.text + got.err
    assert watch.flow().closed["reason"] == reason


def test_nobody_is_served_without_the_password(ask: Callable[..., Outcome], nginx: Path) -> None:
    assert "407" in ask("http", f"https://{SERVER_V4}/", user="me:wrong").err
    assert ask("socks5", f"https://{SERVER_V4}/", user="me:wrong").code == 97
    assert "password" in ask("http", f"http://{SERVER_V4}/", user="you:secret").text


def test_another_proxy_is_not_asked_to_look_a_name_up_again_for_another_machine(
    intercept, client: Machine, nginx: Path, serve, tmp_path: Path, monkeypatch
) -> None:
    """It could find an address that is not for this client."""
    port, socks = PORT + 2, 1081
    monkeypatch.delenv("MITML4_PROXY_AUTH", raising=False)  # of the other tests
    serve("microsocks", "-i", SERVER_V4, "-p", str(socks), port=socks)
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{SERVER_V4} moves.example\n")  # which the other proxy does not know
    mount = f'mount --bind {hosts} /etc/hosts && exec "$@"'
    session = intercept(
        *("--via", f"socks5h://{SERVER_V4}:{socks}"),
        command=("proxy",),
        scope=("--listen", f"[::]:{port}", "--open"),
        wrapper=("unshare", "--mount", "sh", "-c", mount, "sh"),
    )
    for scheme in ("http", "socks5h"):
        at = f"{scheme}://{ROUTER_LAN_V4}:{port}"
        got = client.run("curl", "-sS", "--noproxy", "", "-x", at, "http://moves.example/")
        assert (got.code, got.text) == (0, PAGE), got
    assert session.stop() == 0


PREFERENCES = """
user_pref("network.proxy.type", 1);
user_pref("network.proxy.ssl", "%(host)s");
user_pref("network.proxy.ssl_port", %(port)d);
"""


@pytest.mark.parametrize("browser", ["chromium", "firefox-esr"])
def test_a_browser_that_is_told_of_the_proxy_and_trusts_the_authority_loads_a_page(
    intercept, client: Machine, nginx: Path, tmp_path: Path, browser: str, monkeypatch
) -> None:
    if shutil.which(browser) is None:
        pytest.skip(f"only Debian has {browser} as a package")
    port = PORT + 1
    monkeypatch.delenv("MITML4_PROXY_AUTH", raising=False)  # of the other tests
    session = intercept(command=("proxy",), scope=("--listen", f"[::]:{port}", "--open"))
    profile = tmp_path / "profile"
    database = profile if browser == "firefox-esr" else tmp_path / ".pki/nssdb"
    for directory in (profile, database):
        directory.mkdir(parents=True, exist_ok=True)
    settings = PREFERENCES % {"host": ROUTER_LAN_V4, "port": port}
    (profile / "user.js").write_text(settings)
    store = ("certutil", "-d", f"sql:{database}")
    assert client.run(*store, "-N", "--empty-password").code == 0
    assert client.run(*store, "-A", "-n", "ca", "-t", "C,,", "-i", str(session.ca)).code == 0
    url = f"https://{SERVER_V4}/"
    argv = {
        "chromium": [
            *("--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"),
            *(f"--proxy-server=http://{ROUTER_LAN_V4}:{port}", "--dump-dom", url),
        ],
        "firefox-esr": [
            *("--no-remote", f"--profile={profile}", f"--screenshot={tmp_path}/page.png", url),
        ],
    }
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    got = client.run(browser, "--headless", *argv[browser], env=environ)
    assert got.code == 0, got.err
    assert session.stop() == 0
    asked = [event["flow"] for event in session.of_type("http.request") if event["url"] == url]
    (flow,) = [each for each in session.flows() if each.opened["flow"] in asked]
    assert flow.stack == ["http-connect", "tls", "http/2"]
    statuses = [each["status"] for each in flow.http if each["type"] == "http.response"]
    assert statuses[:2] == [200, 200]  # the proxy's, and the server's


@pytest.mark.usefixtures("nginx")
def test_a_rule_reaches_no_blocked_server(
    intercept: Callable[..., Interception],
    client: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in `intercept`."""
    monkeypatch.delenv("MITML4_PROXY_AUTH", raising=False)
    rules = tmp_path / "rules.toml"
    rules.write_text(
        f'[[rule]]\nmatch = "*/there"\nto = "http://{SERVER_V4}"\n'
        f'[[rule]]\nmatch = "*/elsewhere"\nto = "http://[{SERVER_V6}]"\n'
    )
    intercept(
        *("--open", "--rules", str(rules), "--block", SERVER_V6),
        command=("proxy",),
        scope=("--listen", f"{ROUTER_LAN_V4}:8081"),
    )
    for path, is_reached in (("there", True), ("elsewhere", False)):
        outcome = client.run(
            *("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--noproxy", ""),
            *("-x", f"http://{ROUTER_LAN_V4}:8081", f"http://{SERVER_V4}/{path}"),
        )
        assert (outcome.text == "404") == is_reached, (path, outcome)
