"""`mitml4 intercept --via`: what crosses the interface goes on through other proxies."""

from __future__ import annotations

import pytest

from mitml4.lab.network import SERVER_V4, SERVER_V6
from tests.e2e.proxies import serve_inside_tls, serve_tinyproxy

SOCKS, HTTP, TLS, CLOSED = 1080, 3128, 3130, 9
OLD = 444
URL = "https://www.example/"
REFUSED = 7  # curl(1)


@pytest.fixture(scope="module")
def proxies(serve, files, identity):
    serve("microsocks", "-i", "::", "-p", str(SOCKS), port=SOCKS)
    serve_tinyproxy(serve, files, HTTP, "BasicAuth alice s3cret")
    serve_inside_tls(serve, identity, TLS, HTTP)


pytestmark = pytest.mark.usefixtures("nginx", "proxies")


def curl(client, session, *options):
    return client.run(
        *("curl", "-sS", "--max-time", "20", "--cacert", str(session.ca)),
        *("--resolve", f"www.example:443:{SERVER_V4}", "--resolve", f"www.example:444:{SERVER_V4}"),
        *options,
    )


@pytest.fixture
def reachable(lab):
    """From now on, only these ports of the server can be reached from elsewhere."""

    def only(*ports: int) -> None:
        drop = f"iifname != lo tcp flags syn tcp dport != {{ {', '.join(map(str, ports))} }} reject"
        chain = "{ type filter hook input priority 0; }"
        lab.server.run("nft", "add", "table", "inet", "guard")
        lab.server.run("nft", "add", "chain", "inet", "guard", "input", chain)
        lab.server.run("nft", "add", "rule", "inet", "guard", "input", *drop.split())
        with lab.router.socket() as sock, pytest.raises(ConnectionRefusedError):
            sock.connect((SERVER_V4, 80))

    yield only
    lab.server.run("nft", "delete", "table", "inet", "guard", check=False)


def test_flows_go_through_the_proxy_and_packets_of_both_sides_are_written(
    intercept, client, reachable, tmp_path
) -> None:
    reachable(HTTP)
    packets = tmp_path / "packets.pcapng"
    proxy = f"http://alice:s3cret@{SERVER_V4}:{HTTP}"
    session = intercept("--iface", "wan", "--via", proxy, "-w", str(packets))
    watch = session.watch()
    outcomes = [curl(client, session, URL)]
    outcomes.append(curl(client, session, f"http://{SERVER_V4}/big", "-o", "/dev/null"))
    outcomes.append(curl(client, session, "https://www.example:444/"))
    assert [each.code for each in outcomes] == [0, 0, 0], outcomes
    flows = watch.flows(3)
    assert sorted(each.stack for each in flows) == [
        ["http/1"],
        ["tls", "http/1"],
        ["tls", "http/2"],
    ]
    assert session.of_type("session.start")[0]["via"] == [f"http://{SERVER_V4}:{HTTP}"]
    assert session.stop() == 0
    assert b"CONNECT 198.51.100.2:443" in packets.read_bytes()
    assert "s3cret" not in f"{session.events} {session.said()}"


def test_a_client_s_own_connection_to_the_proxy_is_direct(intercept, client) -> None:
    session = intercept("--via", f"socks5h://{SERVER_V4}:{SOCKS}")
    watch = session.watch()
    outcome = curl(client, session, "--socks5", f"{SERVER_V4}:{SOCKS}", URL)
    assert outcome.code == 0
    assert watch.flow().stack == ["socks5", "tls", "http/2"]


def test_exceptions_and_ipv6(intercept, client, reachable) -> None:
    reachable(SOCKS, OLD)
    session = intercept(
        *("--via", f"socks5://[{SERVER_V6}]:{SOCKS}", "--no-via", f"{SERVER_V4}:{OLD}"),
    )
    watch = session.watch()
    visits = (f"http://[{SERVER_V6}]/", f"http://{SERVER_V4}/", "https://www.example:444/")
    for url in visits:
        assert curl(client, session, url).code == 0
    watch.flows(3)


def test_refusals_reach_the_client(intercept, client) -> None:
    session = intercept(
        *("--via", f"{SERVER_V4}:80=http://{SERVER_V4}:{HTTP}"),
        *("--via", f"{SERVER_V4}:443=http://{SERVER_V4}:{CLOSED + 1}"),
        *("--via", f"socks5h://{SERVER_V4}:{SOCKS}"),
    )
    for url, why in (
        (f"http://{SERVER_V4}:80/", "answers 407"),
        (f"https://{SERVER_V4}:443/", "cannot be reached (Connection refused)"),
        (f"http://{SERVER_V4}:{CLOSED}/", "answers 5: connection refused"),
    ):
        watch = session.watch()
        assert curl(client, session, url).code == REFUSED
        flow = watch.flow()
        assert flow.closed["reason"] == "refused"
        (error,) = flow.errors
        assert why in error["reason"]


def test_tls_is_passed_through_the_tunnel_unopened(intercept, client, authority, pin) -> None:
    session = intercept("--via", f"socks5h://{SERVER_V4}:{SOCKS}", "--passthrough", "www.example")
    watch = session.watch()
    outcome = curl(client, session, "--cacert", str(authority.root), "--pinnedpubkey", pin, URL)
    assert outcome.code == 0
    assert watch.flow().layer("tls")["action"] == "passthrough"


def test_a_flow_that_is_passed_through_after_all_connects_again_by_the_proxy(
    intercept, client, authority, s_server, identity, reachable
) -> None:
    """The server asks for a certificate, which this client has."""
    port = s_server(identity, "-Verify", "1")
    reachable(SOCKS)
    session = intercept("--via", f"socks5h://{SERVER_V4}:{SOCKS}")
    watch = session.watch()
    outcome = client.run(
        *("curl", "-sS", "--max-time", "20", "--cacert", str(authority.root)),
        *("--cert", str(identity.certificate), "--key", str(identity.key)),
        *("--resolve", f"www.example:{port}:{SERVER_V4}", "-o", "/dev/null"),
        f"https://www.example:{port}/",
    )
    assert outcome.code == 0, outcome.err
    assert watch.flow().layer("tls")["action"] == "passthrough"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_much_goes_both_ways_through_it(
    intercept, client, nginx, reachable, scheme, tmp_path
) -> None:
    port = HTTP if scheme == "http" else TLS
    reachable(port)
    session = intercept("--via", f"{scheme}://alice:s3cret@{SERVER_V4}:{port}")
    watch = session.watch()
    for url in (URL, f"http://{SERVER_V4}/"):
        name = f"{scheme}-{len(url)}"
        got = tmp_path / name
        sent = ("-o", "/dev/null", "-T", str(nginx / "big"), f"{url}put/{name}")
        assert curl(client, session, "-o", str(got), f"{url}big").code == 0
        assert got.read_bytes() == (nginx / "big").read_bytes()
        assert curl(client, session, *sent).code == 0
        assert (nginx / "put" / name).read_bytes() == got.read_bytes()
    for flow in watch.flows(4):
        assert (flow.closed["reason"], flow.errors) == ("closed", [])
