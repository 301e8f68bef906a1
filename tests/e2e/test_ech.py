"""A client that encrypts its ClientHello (RFC 9849) is refused that, and comes again without: as at
a server that has no such keys any more. One server here has none, and one has (Caddy, by Go)."""

import base64
import json
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mitml4.lab.network import SERVER_V4

from .caddy import caddy

PEER = Path(__file__).parent / "interop" / "peer.py"
PUBLIC_NAME = b"public.example"
ROUNDS = 3
"""A client that ends so many connections would be taken for one with pins."""


class AnyError:
    def __eq__(self, answer):
        return "error" in answer


ANY_ERROR = AnyError()


def vector(width, content):
    return len(content).to_bytes(width, "big") + content


def config_list():
    """An ECHConfigList of DHKEM(X25519, HKDF-SHA256) with AES-128-GCM (RFC 9849 §4)."""
    key = X25519PrivateKey.generate().public_key().public_bytes_raw()
    suites = bytes.fromhex("00010001")
    contents = b"\x07" + bytes.fromhex("0020") + vector(2, key) + vector(2, suites)
    contents += b"\x00" + vector(1, PUBLIC_NAME) + vector(2, b"")
    return vector(2, bytes.fromhex("fe0d") + vector(2, contents))


@pytest.fixture(scope="module")
def port(serve, authority):
    identity = authority.issue("www.example", PUBLIC_NAME.decode(), SERVER_V4)
    argv = [sys.executable, PEER, "ssl", "server", "20443", identity.certificate, identity.key]
    serve(*map(str, argv), port=20443)
    return 20443


def visits(machine, library, port, cases):
    argv = [sys.executable, PEER, library, "client", SERVER_V4, port, json.dumps(cases)]
    outcome = machine.run(*map(str, argv))
    answers = outcome.text.splitlines()
    assert len(answers) == len(cases), outcome
    return answers


@pytest.mark.parametrize("library", ["utls", "rtls"])
def test_it_comes_again_without(port, client, beside, session, library):
    cases = [{"ech": config_list().hex()}, {}] * ROUNDS
    direct = visits(beside, library, port, cases)
    assert direct[1::2] == ["ok"] * ROUNDS
    assert all("error" in answer for answer in direct[::2])
    watch = session.watch()
    assert visits(client, library, port, cases) == direct
    flows = watch.flows(len(cases))
    assert {flow.layer("tls")["action"] for flow in flows} == {"intercepted"}
    for refused, again in zip(flows[::2], flows[1::2], strict=True):
        assert refused.layer("tls")["details"]["sni"] == PUBLIC_NAME.decode()
        assert "ech_required" in {error["reason"] for error in refused.errors}
        assert again.layer("tls")["details"]["sni"] == "www.example"
        assert (again.stack, again.errors) == (["tls", "http/1"], [])


def test_nss_comes_again_without(port, client, beside, session):
    config = base64.b64encode(config_list()).decode()
    argv = ["tstclnt", "-D", "-o", "-Q", "-h", SERVER_V4, "-p", str(port), "-a", "www.example"]
    direct = [beside.run(*argv, *more).code for more in (["-N", config], [])]
    assert [code == 0 for code in direct] == [False, True]
    watch = session.watch()
    assert [client.run(*argv, *more).code for more in (["-N", config], [])] == direct
    flows = watch.flows(2)
    assert {flow.layer("tls")["action"] for flow in flows} == {"intercepted"}
    assert "ech_required" in {error["reason"] for error in flows[0].errors}


@pytest.fixture(scope="module")
def keys(serve, authority, files):
    """The port of a server with keys, and its ECHConfigList."""
    port = 20444
    identity = authority.issue("www.example", PUBLIC_NAME.decode(), SERVER_V4)
    names = {"configs": [{"public_name": PUBLIC_NAME.decode()}]}
    serve(*caddy(port, identity, files, encrypted_client_hello=names), port=port)
    (published,) = files.glob(f"caddy-{port}/ech/configs/*/config.bin")
    return port, vector(2, published.read_bytes())


def test_a_server_with_keys_is_one_without(keys, client, beside, session):
    """It does not get the client's own, and the client is not told what it has instead."""
    port, config = keys
    cases = [{"ech": config.hex()}, {"ech": config_list().hex()}, {}] * ROUNDS
    assert visits(beside, "utls", port, cases) == ["ok", ANY_ERROR, "ok"] * ROUNDS
    watch = session.watch()
    assert visits(client, "utls", port, cases) == [ANY_ERROR, ANY_ERROR, "ok"] * ROUNDS
    flows = watch.flows(len(cases))
    assert {flow.layer("tls")["action"] for flow in flows} == {"intercepted"}
    refused, stale, again = flows[:3]
    for flow in (refused, stale):
        assert flow.layer("tls")["details"]["sni"] == PUBLIC_NAME.decode()
        assert "ech_required" in {error["reason"] for error in flow.errors}
    assert (again.stack, again.errors) == (["tls", "http/1"], [])
