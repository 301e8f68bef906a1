"""One client's refusal is that client's: pins are learned of whom they concern, and no more."""

import re
import socket
import struct

import pytest

V4 = "198.51.100.2"
OTHER_CLIENT = "192.0.2.3"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@pytest.fixture(scope="module")
def other_client(client):
    """A second address of the client's machine."""
    client.run("ip", "address", "add", f"{OTHER_CLIENT}/24", "dev", "eth0")
    return OTHER_CLIENT


@pytest.fixture
def visit(client, session, bundle):
    """curl asks for a page; what came of it, and the flow."""

    def run(port, *options, name="www.example", trust=bundle):
        watch = session.watch()
        outcome = client.run(
            *("curl", "-sS", "--max-time", "10", "-o", "/dev/null", "--cacert", str(trust)),
            *("--resolve", f"{name}:{port}:{V4}", *options, f"https://{name}:{port}/"),
        )
        return outcome.code, watch.flow()

    return run


@pytest.fixture
def curls_hello(client):
    """What curl begins with when it visits www.example."""
    with client.namespace.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        command = ["curl", "-s", "--resolve", f"www.example:{port}:127.0.0.1"]
        with client.namespace.popen([*command, f"https://www.example:{port}/"]) as process:
            accepted, _ = listener.accept()
            with accepted:
                hello = accepted.recv(65536)
            process.wait()
    return hello


def test_a_killed_client_darkens_nothing(s_server, identity, client, session, visit, curls_hello):
    """A program that is killed once it has our certificate: the kernel ends its connection."""
    port = s_server(identity)

    def kill(reset):
        watch = session.watch()
        with client.connect(V4, port) as sock:
            sock.sendall(curls_hello)
            assert sock.recv(65536)[:1] == b"\x16"
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        (error,) = watch.flow().errors
        assert error["reason"].endswith("by the client after our certificate")

    for reset in (False, True, True):
        kill(reset)
        assert visit(port)[1].actions == ["intercepted", "relayed"]
    kill(reset=True)
    kill(reset=True)
    code, flow = visit(port)
    assert (code, flow.actions) == (0, ["passthrough"])  # two in a row: as a client that pins


def test_others_are_opened_where_one_client_refuses(
    s_server, authority, session, visit, other_client
):
    port = s_server(authority.issue("www.example"))
    mistrusts = {"trust": authority.root}
    assert visit(port, **mistrusts)[0] == 60
    code, flow = visit(port, **mistrusts)
    assert (code, flow.actions) == (0, ["passthrough"])
    assert flow.layer("tls")["details"]["passthrough"] == "pinned"
    for options in (["--interface", other_client], ["--tls-max", "1.2"]):  # a machine, a program
        code, flow = visit(port, *options)
        assert (code, flow.actions[0]) == (0, "intercepted")
    assert visit(port)[1].actions == ["passthrough"]


def test_machines_that_agree_speak_for_all_and_programs_of_one_do_not(
    s_server, authority, visit, client
):
    port = s_server(authority.issue("www.example"))
    machines = [f"192.0.2.{number}" for number in (10, 11, 12, 13)]
    for address in machines:
        client.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
    for options in ([], ["--tls-max", "1.2"], ["--http1.1"]):
        refused = visit(port, "--interface", machines[0], *options, trust=authority.root)
        assert refused[0] == 60
    for address in machines[1:3]:
        code, flow = visit(port, "--interface", address, trust=authority.root)
        assert (code, flow.actions) == (60, ["intercepted"])
    code, flow = visit(port, "--interface", machines[3])
    assert (code, flow.actions) == (0, ["passthrough"])


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_pin_that_is_checked_behind_the_handshake_is_learned(
    s_server, identity, pin, visit, version
):
    port = s_server(identity)
    options = ["--tls-max", version, "--pinnedpubkey", pin]
    visits = [visit(port, *options) for _ in range(4)]
    assert [code for code, _ in visits] == [90, 90, 0, 0]
    assert [flow.actions for _, flow in visits] == [["intercepted"]] * 2 + [["passthrough"]] * 2
    assert [len(flow.errors) for _, flow in visits] == [0, 1, 0, 0]


PAGE = f"https://{V4}:PORT/"
PROGRAMS = {
    "curl": ["curl", "-sS", "--cacert", "ROOT", PAGE],
    "wget": ["wget", "-q", "-O", "-", "--tries=1", "--ca-certificate=ROOT", PAGE],
    "openssl": [
        *("openssl", "s_client", "-quiet", "-verify_return_error", "-CAfile", "ROOT"),
        *("-connect", f"{V4}:PORT"),
    ],
    "gnutls": ["gnutls-cli", "--x509cafile", "ROOT", "-p", "PORT", V4],
    "python": [
        *("/usr/bin/python3", "-c"),
        "import ssl, urllib.request as u;"
        f"u.urlopen('{PAGE}', context=ssl.create_default_context(cafile='ROOT'))",
    ],
    "ruby": ["ruby", "-ropen-uri", "-e", f"URI.open('{PAGE}', ssl_ca_cert: 'ROOT').read"],
    "php": [
        *("php", "-r"),
        f"exit(readfile('{PAGE}', false, stream_context_create(['ssl' => ['cafile' => 'ROOT']]))"
        " ? 0 : 1);",
    ],
    "node": [
        *("node", "-e"),
        f"require('https').get('{PAGE}', {{ca: require('fs').readFileSync('ROOT')}}, () => {{}})",
    ],
    "rclone": ["rclone", "-q", "--ca-cert", "ROOT", "--retries", "1", "copyurl", "--stdout", PAGE],
}
"""They say by an alert that they do not trust a certificate, or end the connection."""


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_every_program_that_trusts_others_gets_through_at_its_third_try(
    s_server, authority, identity, client, session, name, version
):
    port = s_server(identity, version)
    words = {"PORT": str(port), "ROOT": str(authority.root)}
    argv = [re.sub("PORT|ROOT", lambda word: words[word[0]], each) for each in PROGRAMS[name]]
    request = b"GET / HTTP/1.0\r\n\r\n"
    assert client.run(*argv, input=request).code != 0
    client.run(*argv, input=request)
    watch = session.watch()
    outcome = client.run(*argv, input=request)
    assert outcome.code == 0, outcome
    assert watch.flow().layer("tls")["details"]["passthrough"] == "pinned"
