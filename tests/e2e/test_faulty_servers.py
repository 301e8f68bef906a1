"""A client accepts through mitml4 what it accepts directly, and nothing else.

Every fault alone in TLS 1.2 and 1.3, and the likeliest ones in pairs in one of them, for real
clients that have the same file of roots in both places. What a client does directly is the right
value.
"""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import rtls
from OpenSSL import SSL

from tests.e2e import forked
from tests.e2e.conftest import intercepting

PROGRAM = Path(__file__).with_name("faulty_server.py")
V4 = "198.51.100.2"
NAME = "www.example"
REQUEST = b"GET / HTTP/1.0\r\n\r\n"
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
OLD_VERSIONS = ("1.0", "1.1")


def words(text: str) -> list[str]:
    return text.split()


SHOWN = words("""
    sound leaf-rsa:2048 leaf-ed25519 wildcard wrong-order superfluous leaf-twice of-the-root
    of-the-root-with-staple staple-good staple-revoked
    dh-2048 rsa-key-exchange expired not-yet-valid wrong-name common-name-alone inner-wildcard
    name-with-nul address-as-name unknown-root unknown-root-sent intermediate-missing
    self-signed self-signed-as-root sloppy-root leaf-without-authority-key
    intermediate-without-authority-key intermediate-not-critically-one no-subject
    name-constraints-not-critical
""")
"""What our leaf shows, for the client to find by itself."""

HIDDEN = words("""
    leaf-rsa:512 leaf-rsa:1024 leaf-brainpoolp256r1 intermediate-rsa:512 intermediate-rsa:1024
    intermediate-secp192r1 intermediate-brainpoolp256r1 root-rsa-1024 leaf-md5 leaf-sha1
    leaf-sha224 intermediate-md5 intermediate-sha1 version-1 leaf-is-authority for-clients-only
    leaf-for-encipherment-only unknown-critical policies-critical wrong-authority-key
    intermediate-trusted intermediate-expired intermediate-is-none
    intermediate-without-constraints intermediate-may-not-sign intermediate-for-clients-only
    intermediate-for-netscape intermediate-unknown-critical intermediate-version-1
    compressed-key issuer-in-other-letters name-constraints name-constraints-kept
    subject-constraints-kept path-length old-cross-certificate must-staple
    intermediate-must-staple staple-unknown staple-old staple-forged never-valid
    dh-1024
""")
"""What it would hide, so that the client has to meet the server itself."""

IN_PAIRS = words("""
    expired wrong-name leaf-rsa:1024 leaf-sha1 intermediate-rsa:1024 unknown-root self-signed
    for-clients-only leaf-without-authority-key must-staple staple-revoked dh-1024
""")
PAIRS = list(map("+".join, combinations(IN_PAIRS, 2)))

IN_OLD_VERSIONS = words("sound leaf-rsa:2048 leaf-rsa:1024 rsa-key-exchange dh-1024 dh-2048")

Ports = Mapping[str, int]
Accepted = dict[str, Any]
"""By combination of faults: whether the client got its answer."""


@contextmanager
def faulty_servers(namespace, directory: Path, faults: Iterable[str]) -> Iterator[Ports]:
    argv = [sys.executable, str(PROGRAM), str(directory), V4, *faults]
    with namespace.popen(argv, stdout=subprocess.PIPE) as server:
        try:
            yield json.loads(server.stdout.readline())
        finally:
            server.kill()


# --- clients: each visits all ports from a machine


def curl(version: str, *options: str) -> Callable[..., Accepted]:
    """One process, and a request for each port."""

    def visit(machine, ports: Ports, roots: Path) -> Accepted:
        urls = {name: f"https://{NAME}:{port}/" for name, port in ports.items()}
        addresses = [
            part for port in ports.values() for part in ("--resolve", f"{NAME}:{port}:{V4}")
        ]
        outcome = machine.namespace.run(
            *("curl", "--silent", "--max-time", "10", "--output", "/dev/null"),
            *("--cacert", str(roots), "--capath", "/nowhere", *addresses, *options),
            *(f"--tlsv{version}", "--tls-max", version),
            *("--write-out", "%{stderr}%{url_effective} %{exitcode}\n", *urls.values()),
            check=False,
        )
        codes = dict(line.split() for line in outcome.stderr.splitlines())
        return {name: codes[url] == "0" for name, url in urls.items()}

    return visit


def gnutls(version: str, demands: str = "") -> Callable[..., Accepted]:
    def visit(machine, ports: Ports, roots: Path) -> Accepted:
        def accepts(port: int) -> bool:
            argv = ["gnutls-cli", "--x509cafile", str(roots), "--port", str(port), V4]
            argv += ["--sni-hostname", NAME, "--verify-hostname", NAME]
            argv += ["--priority", f"NORMAL:-VERS-ALL:+VERS-TLS{version}{demands}"]
            return machine.run(*argv, input=REQUEST).code == 0

        return {name: accepts(port) for name, port in ports.items()}

    return visit


def python(
    version: str, prepare: Callable[[ssl.SSLContext], None], module: Any = ssl
) -> Callable[..., Accepted]:
    """`module`: the standard library's, or another one that is used in the same way."""

    def visit(machine, ports: Ports, roots: Path) -> Accepted:
        context = module.create_default_context(cafile=roots)
        context.minimum_version = context.maximum_version = VERSIONS[version]
        prepare(context)

        def accepts(port: int) -> bool:
            with machine.connect(V4, port) as sock:
                try:
                    with context.wrap_socket(sock, server_hostname=NAME) as tls:
                        tls.sendall(REQUEST)
                        return bool(tls.recv(100))
                except OSError:
                    return False

        return {name: accepts(port) for name, port in ports.items()}

    return visit


def by_default(context: ssl.SSLContext) -> None:
    pass


def strictly(context: ssl.SSLContext) -> None:
    """As Python does from 3.13 on."""
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN


def whatever_the_name(context: ssl.SSLContext) -> None:
    context.check_hostname = False


def forgiving(version: str) -> Callable[..., Accepted]:
    """pyOpenSSL with a callback, which sees every error (OpenSSL's numbers): whoever forgives some
    of them still finds the others."""

    def visit(machine, ports: Ports, roots: Path) -> Accepted:
        return {name: errors(machine, port, roots) for name, port in ports.items()}

    def errors(machine, port: int, roots: Path) -> set[int] | str:
        found = set()
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_cipher_list(b"DEFAULT:@SECLEVEL=2")
        context.load_verify_locations(str(roots))
        context.set_min_proto_version(VERSIONS[version])
        context.set_max_proto_version(VERSIONS[version])
        context.set_verify(SSL.VERIFY_PEER, lambda *args: found.add(args[2]) or True)
        with machine.connect(V4, port) as sock:
            sock.setblocking(True)
            tls = SSL.Connection(context, sock)
            tls.set_tlsext_host_name(NAME.encode())
            tls.set_connect_state()
            try:
                tls.do_handshake()
                tls.sendall(REQUEST)
                tls.recv(100)
            except SSL.Error:
                return "no handshake"
        return found - {0, 21}  # 21 says again what 20 says: there is no issuer

    return visit


FOR_PAIRS = {"curl 1.2": curl("1.2"), "forgiving 1.3": forgiving("1.3")}
FOR_ONE = {
    "curl 1.3": curl("1.3"),
    "forgiving 1.2": forgiving("1.2"),
    "gnutls-cli 1.2": gnutls("1.2"),
    "python 1.3": python("1.3", by_default),
    "rustls 1.3": python("1.3", by_default, rtls),
    "strict python 1.3": python("1.3", strictly),
    "nameless python 1.2": python("1.2", whatever_the_name),
    "curl --cert-status 1.2": curl("1.2", "--cert-status"),
    "curl --cert-status 1.3": curl("1.3", "--cert-status"),
}
FOR_OLD = {
    f"{name} {version}": visit
    for version in OLD_VERSIONS
    for name, visit in {
        "curl": curl(version),
        "lax curl": curl(version, "--ciphers", "DEFAULT:@SECLEVEL=0"),
        "gnutls-cli": gnutls(version),
    }.items()
}


Visits = dict[str, tuple[Callable[..., Accepted], Ports]]
"""By name of a client: how it visits which ports."""


@pytest.fixture(scope="module")
def ports(lab, files) -> Iterator[Ports]:
    with faulty_servers(lab.server, files, [*SHOWN, *HIDDEN, *PAIRS]) as ports:
        yield ports


@pytest.fixture(scope="module")
def roots(ports, files) -> Path:
    """Those of the servers and of mitml4, whose authority is in `files`."""
    forked.run(["ca", "generate", "--ca-dir", str(files / "ca")], cwd=files)
    path = files / "all-roots.pem"
    pems = (files / "ca/mitml4-ca.pem", files / "roots.pem")
    path.write_bytes(b"".join(pem.read_bytes() for pem in pems))
    return path


@pytest.fixture(scope="module")
def directly(ports, roots, beside) -> dict[str, Accepted]:
    """What each client accepts with nothing between; the same for every engine."""
    return visit_all(visits_of(ports, with_pairs=True), beside, roots)


def visits_of(ports: Ports, *, with_pairs: bool) -> Visits:
    alone = {name: port for name, port in ports.items() if "+" not in name}
    visits = {name: (visit, ports if with_pairs else alone) for name, visit in FOR_PAIRS.items()}
    visits |= {name: (visit, alone) for name, visit in FOR_ONE.items()}
    old = {name: ports[name] for name in IN_OLD_VERSIONS}
    return visits | {name: (visit, old) for name, visit in FOR_OLD.items()}


def visit_all(visits: Visits, machine, roots: Path) -> dict[str, Accepted]:
    with ThreadPoolExecutor(4) as workers:
        begun = {
            name: workers.submit(visit, machine, to, roots) for name, (visit, to) in visits.items()
        }
        return {name: accepted.result() for name, accepted in begun.items()}


@pytest.mark.parametrize("engine", ["auto", "openssl"])
def test_a_client_accepts_what_it_accepts_directly(
    lab, files, client, ports, roots, directly, engine
):
    options = ("--on-pinned", "fail", "--tls-engine", engine)
    with intercepting(lab, files, *options, roots=[files / "roots.pem"]) as session:
        visits = visits_of(ports, with_pairs=engine == "auto")
        wrong = [
            f"{name}, {faults}: directly {directly[name][faults]}, through {accepted}"
            for name, through in visit_all(visits, client, roots).items()
            for faults, accepted in through.items()
            if accepted != directly[name][faults]
        ]
        assert not wrong, "\n".join(wrong)
        session.wait_for(lambda: all(flow.closed for flow in session.flows()), "all flows close")
    by_port = {port: faults for faults, port in ports.items()}
    actions = {faults: set() for faults in ports}
    for flow in session.flows():
        faults = by_port.get(flow.opened["destination"]["port"])
        if faults and flow.layer("tls")["details"]["version"] not in ("TLSv1", "TLSv1.1"):
            actions[faults].add(flow.actions[0])
    assert {faults for faults in SHOWN if "passthrough" in actions[faults]} == set()
    assert {faults for faults in HIDDEN if "passthrough" not in actions[faults]} == set()


OLD = "NORMAL:-VERS-TLS1.3"
HANDSHAKES = {
    "sound": OLD,
    "no RFC 5746": f"{OLD}:%DISABLE_SAFE_RENEGOTIATION",
    "no RFC 7627": f"{OLD}:%NO_SESSION_HASH",
}


def master_secret(machine, ports: Ports, roots: Path) -> Accepted:
    """What `openssl s_client` says of RFC 7627."""
    said = {
        name: machine.run("openssl", "s_client", "-connect", f"{V4}:{port}", input=b"").text
        for name, port in ports.items()
    }
    return {name: re.findall("Extended master secret: .*", text) for name, text in said.items()}


def test_a_handshake_without_what_clients_may_want_stays_without(
    serve_once, identity, session, client, beside, bundle, new_port
):
    ports = {}
    pem = ("--x509certfile", str(identity.certificate), "--x509keyfile", str(identity.key))
    for name, priority in HANDSHAKES.items():
        port = ports[name] = new_port()
        options = ("--disable-client-cert", "--http", "--priority", priority, *pem)
        serve_once("gnutls-serv", "--port", str(port), *options, port=port)
    clients = (
        curl("1.2"),
        gnutls("1.2"),
        gnutls("1.2", ":%SAFE_RENEGOTIATION"),
        master_secret,
    )
    for visit in clients:
        watch = session.watch()
        assert visit(client, ports, bundle) == visit(beside, ports, bundle)
        flows = watch.flows(len(ports))
        assert {flow.actions[0] for flow in flows} == {"intercepted"}
