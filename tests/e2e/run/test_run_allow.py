"""`mitml4 run --allow`: what is allowed works, and each way around it is tried."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Sequence

import pytest

from mitml4.lab.network import ROUTER_WAN_V4, SERVER_V4, SERVER_V6

HELLO = "hello from nginx\n"
WEB = "https://www.example/"
# By IPv4 alone: a connection that is slow to open would get a second one beside it (RFC 8305).
CURL_OF_BOTH_VERSIONS = ("curl", "--silent", "--show-error", "--max-time", "10")
CURL = (*CURL_OF_BOTH_VERSIONS, "-4")
UNKNOWN_HOST, REFUSED, RESET_IN_TLS, RESET = 6, 7, 35, 56  # curl(1)
ENDS = {RESET_IN_TLS, RESET, 52, 16, 92}
"""How curl may see the end of a connection that is not allowed any more."""


def allowing(*hosts: str) -> list[str]:
    return [part for host in hosts for part in ("--allow", host)]


def visit(host, *arguments: str, allow: tuple[str, ...] = ("www.example",), options=(), **settings):
    return host.run(*CURL, *arguments, options=[*allowing(*allow), *options], **settings)


def reasons(ended) -> list[str]:
    return [event["reason"] for event in ended.of_type("flow.close")]


@pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
def test_what_is_allowed_works_and_other_names_do_not_exist(host, nginx, resolver, root) -> None:
    resolver.clear()
    script = f"{shlex.join((*CURL, WEB, 'http://www.example/'))}; curl -sS https://other.example/"
    ended = host.run("sh", "-c", script, options=allowing("www.example"), root=root)
    assert (ended.code, ended.out) == (UNKNOWN_HOST, 2 * HELLO)
    assert set(reasons(ended)) == {"closed"}
    assert {event["name"] for event in ended.of_type("dns.refused")} == {"other.example"}
    assert set(resolver) == {"www.example"}


def test_a_name_of_the_hosts_file_counts_as_an_answer(host, nginx) -> None:
    """Also where DNS has given the same address for another name."""
    script = "; ".join(
        shlex.join((*CURL, f"http://{name}.example/")) for name in ("byfile", "www", "byfile")
    )
    options = allowing("byfile.example", "www.example")
    ended = host.run("sh", "-c", script, options=options)
    assert (ended.out, set(reasons(ended))) == (3 * HELLO, {"closed"})
    ended = visit(host, "http://byfile.example/")
    assert (ended.code, reasons(ended)) == (REFUSED, ["denied"])


def test_a_glob_is_every_name_below_it(host, nginx) -> None:
    assert visit(host, WEB, allow=("*.example",)).out == HELLO
    assert visit(host, WEB, allow=("*.www.example",)).code == UNKNOWN_HOST
    assert visit(host, WEB, allow=("www.example:80",)).code == REFUSED


ASK = """
import socket, struct, sys
question = b"".join(bytes([len(each)]) + each.encode() for each in sys.argv[1].split("."))
query = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + question + b"\\0\\0\\1\\0\\1"
for resolver in ("127.0.0.53", "9.9.9.9", "2001:db8::53"):
    family = socket.AF_INET6 if ":" in resolver else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.connect((resolver, 53))
        sock.send(query)
        print(sock.recv(4096)[3] & 15)
    with socket.socket(family) as sock:
        sock.settimeout(10)
        sock.connect((resolver, 53))
        sock.sendall(struct.pack("!H", len(query)) + query)
        print(sock.recv(4096)[5] & 15)
"""


def test_no_resolver_answers_for_other_names_by_udp_or_tcp(host, nginx, resolver) -> None:
    resolver.clear()
    allow = allowing("www.example")
    ended = host.run("/usr/bin/python3", "-c", ASK, "secret.other.example", options=allow)
    assert ended.out.split() == 6 * ["5"]
    assert len(ended.of_type("dns.refused")) == 6
    assert resolver == []


CONNECT = """
import socket, sys
for each in sys.argv[1:]:
    host, _, port = each.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.settimeout(10)
        try:
            sock.connect((host, int(port)))
            print("connected")
        except OSError as error:
            print(type(error).__name__)
"""


@pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
def test_addresses_have_to_be_named(host, nginx, root) -> None:
    """Also that of a server which no name has led to; DNS over TLS and the like included."""
    addresses = (
        f"{SERVER_V4}:443", f"{SERVER_V6}:443", f"::ffff:{SERVER_V4}:443", f"{SERVER_V4}:853",
        "169.254.169.254:80", "10.0.0.1:80", "127.0.0.1:22", f"{ROUTER_WAN_V4}:22", "1.1.1.1:443",
    )  # fmt: skip
    argv = ("/usr/bin/python3", "-c", CONNECT, *addresses)
    ended = host.run(*argv, options=allowing("www.example"), root=root)
    assert ended.out.split() == ["ConnectionRefusedError"] * len(addresses)
    assert reasons(ended) == ["denied"] * len(addresses)
    assert all("not in --allow" in each["reason"] for each in ended.of_type("flow.error"))
    named = host.run("/usr/bin/python3", "-c", CONNECT, addresses[0], options=allowing(SERVER_V4))
    assert named.out.split() == ["connected"]


def test_a_name_that_leads_to_an_inner_address_is_not_enough(host, resolver) -> None:
    for name in ("private", "metadata", "loopback", "router"):
        ended = visit(host, "-4", f"http://{name}.example/", allow=("*.example",))
        assert (ended.code, reasons(ended)) == (REFUSED, ["denied"]), name


HELLOS = """
import socket, ssl, sys, threading, time
outgoing = ssl.MemoryBIO()
context = ssl.create_default_context()
tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="www.example")
try:
    tls.do_handshake()
except ssl.SSLWantReadError:
    hello = outgoing.read()
if sys.argv[1] == "ech":
    body = bytearray(hello[9:])
    at = 34 + 1 + body[34]
    at += 2 + int.from_bytes(body[at : at + 2], "big")
    at += 1 + body[at]
    length = int.from_bytes(body[at : at + 2], "big")
    more = b"\\xfe\\x0d\\0\\x0b\\0\\0\\1\\0\\1\\7\\0\\0\\0\\1x"
    body[at : at + 2] = (length + len(more)).to_bytes(2, "big")
    body += more
    body = b"\\1" + len(body).to_bytes(3, "big") + body
    hello = b"\\x16\\3\\1" + len(body).to_bytes(2, "big") + body


def say(first):
    with socket.create_connection(("www.example", 443), 10) as sock:
        port = sock.getsockname()[1]
        try:
            sock.sendall(hello[:first])
            time.sleep(2 if first else 0)
            sock.sendall(hello[first:])
            heard = len(sock.recv(5))
        except ConnectionError as error:
            heard = type(error).__name__
        sys.stdout.write(f"{port} {heard}\\n")


for first in map(int, sys.argv[2:]):
    threading.Thread(target=say, args=(first,)).start()
"""


def test_tls_that_comes_slowly_or_with_ech_does_not_stay_closed(host, nginx) -> None:
    def say(how: str, *firsts: int, options: Sequence[str]) -> list[tuple[str, str]]:
        """For each connection: what it heard, and what was done with its TLS."""
        argv = ("/usr/bin/python3", "-c", HELLOS, how, *map(str, firsts))
        ended = host.run(*argv, options=options)
        heard = dict(line.split() for line in ended.out.splitlines())
        flows = {event["flow"]: event["client"]["port"] for event in ended.of_type("flow.open")}
        layers = ended.of_type("flow.layer")
        assert len(layers) == len(firsts)
        return [(heard[str(flows[each["flow"]])], each["action"]) for each in layers]

    allow, passed = allowing("www.example"), ["--passthrough", "www.example"]
    assert say("ech", 0, options=passed) == [("5", "passthrough")]
    assert say("plain", 0, options=[*allow, *passed]) == [("5", "passthrough")]
    assert say("ech", 0, options=[*allow, *passed]) == [("ConnectionResetError", "relayed")]
    expected = {("ConnectionResetError", "relayed"), ("5", "intercepted")}
    assert set(say("plain", 1, 5, 6, 100, options=allow)) <= expected


def test_an_address_of_another_name_is_no_way_to_this_one(host, nginx) -> None:
    """The SNI is allowed, and the address too, but DNS gave it for another name."""
    there = ("--resolve", f"www.example:443:{SERVER_V4}")
    ended = visit(host, *there, WEB, allow=("www.example", "byfile.example"))
    assert ended.code in ENDS
    assert reasons(ended) == ["denied"]


FRONTS = (
    ("-H", "Host: other.example", "http://www.example/"),
    ("-H", "Host: other.example", "--http1.1", WEB),
    ("--connect-to", "other.example:443:www.example:443", "-k", "https://other.example/"),
    ("--proxy", "http://www.example:80", "http://other.example/"),
    ("--proxy", "http://www.example:80", "--proxytunnel", "http://other.example/"),
    ("--proxy", "https://www.example:443", "--proxytunnel", "http://other.example/"),
    ("--proxy", "socks4a://www.example:80", "http://other.example/"),
)


def test_a_server_that_is_allowed_is_no_front_for_another(host, nginx) -> None:
    for arguments in FRONTS:
        ended = visit(host, *arguments)
        assert ended.code not in (0, 22), arguments
        assert HELLO not in ended.out
        assert reasons(ended)[-1] == "denied", arguments


SOCKS = """
microsocks -i 127.0.0.1 -p 1080 & proxy=$!
for url in https://www.example/ https://other.example/ https://198.51.100.2/; do
  curl -sS --retry 20 --retry-connrefused --retry-delay 1 -m 20 -k \\
    --socks5-hostname 127.0.0.1:1080 $url
done
kill $proxy
"""


def test_a_proxy_is_asked_only_for_what_is_allowed(host, nginx) -> None:
    """What the proxy of the command connects to is checked again, as a connection of its own."""
    options = [*allowing("www.example", "127.0.0.1:1080"), "--loopback", "--no-wait"]
    ended = host.run("sh", "-c", SOCKS, options=options)
    assert ended.out == HELLO
    denied = [each["flow"] for each in ended.of_type("flow.close") if each["reason"] == "denied"]
    refused = [each["reason"] for each in ended.of_type("flow.error") if each["flow"] in denied]
    assert refused == [f"{each}:443 is not in --allow" for each in ("other.example", SERVER_V4)]


def test_dns_over_https_is_for_resolvers_that_are_named(host, nginx) -> None:
    for resolver, names, closed in (
        ("dns.example", {"dns.example"}, []),
        (SERVER_V4, set(), ["denied"]),
    ):
        asking = ("--doh-url", f"https://{resolver}/dns-query")  # of one version, it would fail
        argv = (*CURL_OF_BOTH_VERSIONS, *asking, "http://a.example/")
        ended = host.run(*argv, options=allowing("www.example"))
        assert (ended.code, ended.out) == (UNKNOWN_HOST, "")
        assert {event["name"] for event in ended.of_type("dns.refused")} == names
        assert sorted(set(reasons(ended))) == closed


def test_one_connection_may_serve_several_allowed_names(host, nginx) -> None:
    """HTTP/2 may (RFC 9113 §9.1.1). The first request of HTTP/1 is for the connection's host."""
    for version, expected in (("--http1.1", "denied"), ("--http2", "closed")):
        arguments = ("-H", "Host: another.example", version, WEB)
        ended = visit(host, *arguments, allow=("www.example", "another.example"))
        assert reasons(ended) == [expected]
    another = ("--next", *CURL[1:], "--http1.1", "-H", "Host: another.example", WEB)
    ended = visit(host, "--http1.1", WEB, *another, allow=("www.example", "another.example"))
    assert (ended.out, reasons(ended)) == (2 * HELLO, ["closed"])


def test_a_request_of_http_2_for_another_name_is_misdirected(host, nginx) -> None:
    """The connection goes on."""
    fronted = ("--http2", "-H", "Host: other.example", WEB)
    ended = visit(host, *fronted, "--next", *CURL[1:], "--http2", WEB)
    assert ended.out == f"mitml4: other.example:443 is not in --allow\n{HELLO}"
    assert reasons(ended) == ["denied"]
    assert [event["status"] for event in ended.of_type("http.response")] == [421, 200]
    (refused,) = ended.of_type("flow.error")
    assert "other.example" in refused["reason"]


def test_tls_stays_closed_only_where_the_user_asks_for_it(host, nginx) -> None:
    roots = ("--cacert", str(host.root_certificate), "--capath", str(host.home))
    refusing = shlex.join((*CURL, *roots, WEB))
    script = f"{refusing}; {refusing}"
    assert host.run("sh", "-c", script).out == HELLO  # the second time, as it has refused ours
    ended = host.run("sh", "-c", script, options=allowing("www.example"))
    assert (ended.out, reasons(ended)[-1]) == ("", "denied")
    assert "TLS that is not opened (pinned)" in ended.of_type("flow.error")[-1]["reason"]
    ended = visit(host, "-k", WEB, options=["--passthrough", "www.example"])
    assert (ended.out, reasons(ended)) == (HELLO, ["closed"])
    ended = visit(host, "-k", f"https://{SERVER_V4}/", options=["--passthrough", SERVER_V4])
    assert reasons(ended) == ["denied"]


def test_servers_have_to_verify(host, nginx) -> None:
    host.root_certificate = None
    ended = visit(host, "-k", WEB)
    assert ended.code not in (0, 22)
    assert HELLO not in ended.out


SENDS = """
import socket, sys
for family, address in ((socket.AF_INET, sys.argv[1]), (socket.AF_INET6, sys.argv[2])):
    for port in (443, 4433, 123):
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            try:
                sock.sendto(b"out", (address, port))
            except OSError:
                pass
"""


def test_no_datagram_and_no_ping_gets_out(host, nginx, lab) -> None:
    listening = lab.server.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    argv = ("/usr/bin/python3", "-c", SENDS, SERVER_V4, SERVER_V6)
    script = f"{shlex.join(argv)}; ping -c 1 -W 1 {SERVER_V4} >/dev/null || echo silent"
    with listening as sock:
        sock.bind(("", 4433))
        sock.setblocking(False)
        ended = host.run("sh", "-c", script, options=allowing("www.example"))
        assert ended.out.split() == ["silent"]
        with pytest.raises(BlockingIOError):
            sock.recv(100)


def test_a_namespace_within_leads_nowhere(host, nginx) -> None:
    inside = f"ip link set lo up; {shlex.join((*CURL, '-k', f'https://{SERVER_V4}/'))}"
    ended = host.run("unshare", "-Urn", "sh", "-c", inside, options=allowing("www.example"))
    assert ended.code == REFUSED
    undo = "nft flush ruleset; nft delete table inet mitml4; ip route flush table all"
    inside = f"({undo}) 2>/dev/null; {shlex.join((*CURL, '-k', f'https://{SERVER_V4}/'))}"
    ended = host.run("unshare", "-Urm", "sh", "-c", inside, options=allowing("www.example"))
    assert (ended.code, reasons(ended)) == (REFUSED, ["denied"])


def test_what_lets_anything_past_is_a_usage_error(host) -> None:
    for option, value in (("--udp", "pass"), ("--upstream", "ignore")):
        ended = host.run("true", options=[*allowing("www.example"), option, value])
        assert ended.code == 2
        assert f"{option} {value}" in ended.err


def test_the_page_of_the_ca_is_there_without_being_named(host) -> None:
    page = "http://192.0.2.1/"
    ended = visit(host, page)
    assert "certificate" in ended.out
    assert reasons(ended) == ["closed"]
    ended = visit(host, page, options=["--no-ca-page"])
    assert (ended.code, reasons(ended)) == (REFUSED, ["denied"])
    script = "; ".join(
        shlex.join((*CURL, *each))
        for each in (("https://192.0.2.1/",), ("-H", "Host: other.example", page))
    )
    ended = host.run("sh", "-c", script, options=allowing("www.example"))
    assert reasons(ended) == ["denied", "closed"]  # the page is all there is
