"""TLS stacks in both roles, directly and through mitml4: both come to the same.

Each stack tries the cipher suites and groups that both it and the bridge have. As a client it
visits a server that answers with what was agreed, and with the hello's fingerprints. As a server it
is visited by OpenSSL. Go is there as rclone and Caddy: its compiler costs more than all others
together. wolfSSL is a module of lighttpd, and the library that comes with it.
"""

import json
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from OpenSSL import SSL
from OpenSSL._util import lib

from mitml4.lab.network import SERVER_V4
from mitml4.protocols.tls.fingerprints import ja3, ja3s, ja4, ja4s
from mitml4.protocols.tls.hello import parse_client_hello, parse_server_hello

from .caddy import caddy
from .conftest import QUICK_JAVA

HERE = Path(__file__).parent / "interop"
WOLFSSL = Path("/usr/lib/lighttpd/mod_wolfssl.so")
REQUEST = b"GET / HTTP/1.0\r\n\r\n"
TIMEOUT_S = 5
GROUPS = (
    *("X25519", "X448", "P-256", "P-384", "P-521"),
    *("X25519MLKEM768", "SecP256r1MLKEM768", "SecP384r1MLKEM1024"),
)
OLD_GROUPS = GROUPS[:5]
SUITES = (
    *("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"),
    *("TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"),
)
OLD_SUITES = [
    f"ECDHE-{signer}-{cipher}"
    for signer in ("ECDSA", "RSA")
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
] + ["ECDHE-ECDSA-AES128-CCM", "ECDHE-ECDSA-AES256-CCM", "ECDHE-ECDSA-AES128-CCM8"]


def set_time_limit(raw: socket.socket) -> None:
    """Blocking for no longer: a timeout of Python's makes a socket non-blocking, for OpenSSL."""
    raw.setblocking(True)
    for side in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        raw.setsockopt(socket.SOL_SOCKET, side, struct.pack("ll", TIMEOUT_S, 0))


def context_of_all(groups: str) -> SSL.Context:
    """OpenSSL with all that it has."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    context.set_tls13_ciphersuites(":".join(SUITES).encode())
    assert lib.SSL_CTX_set1_curves_list(context._context, groups.encode()) == 1
    return context


# --- stacks as clients ---------------------------------------------------------------------------


class Recorder:
    """Answers with version, cipher suite and group, and with JA3 and JA4 of the hello."""

    def __init__(self, namespace, identities):
        self.context = context_of_all(":".join(GROUPS))
        self.context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        for identity in identities:
            self.context.use_certificate_chain_file(str(identity.certificate))
            self.context.use_privatekey_file(str(identity.key))
        self.listener = namespace.socket()
        self.listener.bind((SERVER_V4, 0))
        self.listener.listen()
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        with suppress(OSError):
            while True:
                accepted, _ = self.listener.accept()
                with accepted, suppress(OSError, SSL.Error):
                    set_time_limit(accepted)
                    self.serve(accepted)

    def serve(self, accepted):
        hello = None
        while hello is None:
            if not (seen := accepted.recv(65536, socket.MSG_PEEK)):
                return
            hello = parse_client_hello(seen)
        tls = SSL.Connection(self.context, accepted)
        tls.set_accept_state()
        request = tls.recv(4096)
        assert request.startswith(b"GET ")
        agreed = tls.get_protocol_version_name(), tls.get_cipher_name(), tls.get_group_name()
        words = " ".join([*map(str, agreed), ja3(hello), ja4(hello)])
        tls.sendall(f"HTTP/1.0 200 OK\r\n\r\n{words}\n".encode())
        if b"/wait" not in request:
            tls.shutdown()
            accepted.shutdown(socket.SHUT_WR)
        with suppress(SSL.Error):
            tls.recv(1)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()


@pytest.fixture(scope="module")
def identities(authority):
    """Of both kinds of keys."""
    return [authority.issue("www.example", SERVER_V4, key=key) for key in ("ec", "rsa")]


@pytest.fixture(scope="module")
def recorder(lab, identities):
    server = Recorder(lab.server, identities)
    yield server
    server.close()


@dataclass
class Tools:
    """What the clients need."""

    port: int
    bundle: Path
    files: Path
    java: Path


@pytest.fixture(scope="module")
def java(files):
    """Where Peer.class is."""
    subprocess.run(["javac", f"-J{QUICK_JAVA}", "-d", files, HERE / "Peer.java"], check=True)
    return files


@pytest.fixture(autouse=True)
def skip_what_is_missing(request):
    name = request.node.callspec.params["name"]
    if name == "Mbed TLS":
        pytest.importorskip("mbedtls", reason="no wheels for this Python")
    if name == "wolfSSL" and not WOLFSSL.exists():
        pytest.skip("no package of this release")


@pytest.fixture
def tools(recorder, bundle, files, java):
    return Tools(recorder.port, bundle, files, java)


def said_to(machine, argv):
    """All that a program writes which is given a request, and sees no end of that: some leave
    before they have the answer."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with machine.namespace.popen(argv, **pipes) as process:
        process.stdin.write(REQUEST)
        process.stdin.flush()
        return process.stdout.read().decode()


def one_by_one(command, cases):
    """A client whose program does one visit. `command` makes its arguments."""

    def visit(machine, tools):
        answers = []
        for case in cases:
            out = said_to(machine, list(map(str, command(tools, case))))
            _, head, rest = out.partition("HTTP/1.0 200 OK\r\n\r\n")
            answers.append(rest.splitlines()[0] if head else f"error: {out}")
        return answers

    return visit


def all_at_once(command, cases):
    """A client whose program does all visits, and prints a line for each."""

    def visit(machine, tools):
        outcome = machine.run(*map(str, command(tools, cases)))
        answers = outcome.text.splitlines()
        assert len(answers) == len(cases), outcome
        return answers

    return visit


def python(name, cases):
    def command(tools, cases):
        argv = [sys.executable, HERE / "peer.py", name, "client", SERVER_V4, tools.port]
        return [*argv, json.dumps(cases)]

    return all_at_once(command, cases)


def s_client(tools, case):
    connect = ["openssl", "s_client", "-quiet", "-connect", f"{SERVER_V4}:{tools.port}"]
    return [*connect, "-servername", "www.example", *case.split()]


def gnutls_cli(tools, case):
    suite, group, version = case.split()
    mac = "SHA1" if suite.endswith("CBC") else "AEAD"
    priority = f"NONE:+VERS-TLS{version}:+{suite}:+{mac}:+GROUP-{group}:+SIGN-ALL:+COMP-NULL"
    return [
        *("gnutls-cli", "--no-ca-verification", "--sni-hostname", "www.example"),
        *("--priority", f"{priority}:+ECDHE-ECDSA:+ECDHE-RSA:+CTYPE-ALL"),
        *("-p", tools.port, SERVER_V4),
    ]


def tstclnt(tools, case):
    suite, group, version = case.split()
    request = tools.files / "request"  # it does not see the end of a pipe
    request.write_bytes(REQUEST)
    argv = ["tstclnt", "-D", "-o", "-h", SERVER_V4, "-p", tools.port, "-a", "www.example"]
    return [
        *argv,
        "-A",
        request,
        "-V",
        f"tls{version}:tls{version}",
        "-c",
        f":{suite}",
        "-I",
        group,
    ]


def botan_client(tools, case):
    policy = tools.files / "policy.txt"
    cipher, group = case.split()
    policy.write_text(f"ciphers = {cipher}\nmacs = AEAD\nkey_exchange_groups = {group}\n")
    return [
        *("botan", "tls_client", SERVER_V4, f"--port={tools.port}", f"--policy={policy}"),
        *("--tls1.2", "--skip-system-cert-store", f"--trusted-cas={tools.bundle}"),
    ]


def java_client(tools, cases):
    argv = ["java", QUICK_JAVA, "-cp", tools.java, "Peer", "client"]
    return [*argv, SERVER_V4, tools.port, *cases]


def node_client(tools, cases):
    argv = ["node", HERE / "peer.js", "client", SERVER_V4, tools.port]
    return [*argv, json.dumps(cases)]


def rclone(tools, _):
    url = f"https://{SERVER_V4}:{tools.port}/"
    return ["rclone", "--no-check-certificate", "-q", "copyurl", "--stdout", url]


def of_versions(versions, **cases):
    """Each value of each keyword, in all versions."""
    return [
        {"version": version, name: value}
        for version in versions
        for name, values in cases.items()
        for value in values
    ]


OPENSSL_CLI = [
    *(f"-tls1_3 -ciphersuites {suite}" for suite in SUITES),
    *(f"-tls1_3 -groups {group}" for group in OLD_GROUPS),
    "-tls1_3 -groups ffdhe2048:X448",  # another hello is asked for
    *(f"-tls1_2 -cipher {suite}:@SECLEVEL=0" for suite in OLD_SUITES),
    *(f"-tls1_2 -groups {group}:P-256" for group in OLD_GROUPS if group != "P-256"),
]
GNUTLS_CIPHERS = ("AES-128-GCM", "AES-256-GCM", "CHACHA20-POLY1305", "AES-128-CCM", "AES-128-CCM-8")
GNUTLS_GROUPS = ("X25519", "X448", "SECP256R1", "SECP384R1", "SECP521R1")
GNUTLS = [
    f"{cipher} {group} {version}"
    for version in ("1.2", "1.3")
    for cipher, group in (
        *((cipher, "X25519" if version == "1.3" else "SECP256R1") for cipher in GNUTLS_CIPHERS),
        *(("AES-256-GCM", group) for group in GNUTLS_GROUPS),
    )
]
NSS = [
    *(f"{suite} x25519 1.3" for suite in ("1301", "1302", "1303")),
    *(f"1301 {group} 1.3" for group in ("P256", "P384", "P521")),
    *(f"{suite} P256 1.2" for suite in ("C02B", "C02C", "CCA9", "C02F", "C030", "CCA8")),
    *(f"C02F {group} 1.2" for group in ("x25519", "P384", "P521")),
]
AEADS = ("aes128gcm", "aes256gcm", "chacha20-poly1305", "aes128ccm")
CURVES = ("x25519", "x448", "secp256r1", "secp384r1", "secp521r1")
MBEDTLS = [
    f"TLS-ECDHE-{signer}-WITH-{cipher}"
    for signer, ciphers in (
        ("RSA", ("AES-128-GCM-SHA256", "AES-256-GCM-SHA384", "CHACHA20-POLY1305-SHA256")),
        ("ECDSA", ("AES-128-GCM-SHA256", "AES-128-CCM", "AES-256-CCM", "AES-128-CCM-8")),
    )
    for cipher in ciphers
]
JAVA = [
    *(f"TLSv1.3:{suite}" for suite in SUITES[:3]),
    *(
        f"TLSv1.2:TLS_ECDHE_{signer}_WITH_{cipher}"
        for signer in ("ECDSA", "RSA")
        for cipher in ("AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256")
    ),
    "",
]
BORINGSSL_GROUPS = ("x25519", "prime256v1", "secp384r1")
PRESETS = ("chrome:131", "chrome:142", "chrome:152")
NODE = [
    *({"minVersion": "TLSv1.3", "ciphers": suite} for suite in SUITES[:3]),
    *({"minVersion": "TLSv1.3", "ecdhCurve": group} for group in OLD_GROUPS),
    *({"maxVersion": "TLSv1.2", "ciphers": suite} for suite in OLD_SUITES[:6]),
    {},
]
WOLFSSL_SUITES = ("TLS13-AES128-GCM-SHA256", "TLS13-AES256-GCM-SHA384")
CLIENTS = {
    "OpenSSL": one_by_one(s_client, OPENSSL_CLI),
    "GnuTLS": one_by_one(gnutls_cli, GNUTLS),
    "NSS": one_by_one(tstclnt, NSS),
    "BoringSSL": python(
        "utls",
        [
            *({"preset": preset} for preset in PRESETS),
            *of_versions(["1.3"], group=BORINGSSL_GROUPS),
            *of_versions(["1.2"], suite=OLD_SUITES[:6], group=BORINGSSL_GROUPS),
        ],
    ),
    "rustls": python(
        "rtls",
        [{}, *of_versions(["1.2"], suite=OLD_SUITES[:6])],
    ),
    "Python": python("ssl", [{}, *of_versions(["1.2", "1.3"], group=["prime256v1", "secp384r1"])]),
    "tlslite-ng": python("tlslite", of_versions(["1.2", "1.3"], suite=AEADS, group=CURVES)),
    "Mbed TLS": python("mbedtls", [{"suite": suite} for suite in MBEDTLS]),
    "Botan": one_by_one(
        botan_client,
        [
            *(f"{cipher} x25519" for cipher in ("AES-128/GCM", "AES-256/GCM", "ChaCha20Poly1305")),
            *(f"AES-256/GCM {group}" for group in ("secp256r1", "secp384r1", "secp521r1")),
        ],
    ),
    "wolfSSL": python(
        "wolfssl",
        [
            *of_versions(["1.3"], suite=WOLFSSL_SUITES, group=(23, 24, 25, 29)),
            *of_versions(["1.2"], suite=OLD_SUITES[:6]),
        ],
    ),
    "Java": all_at_once(java_client, JAVA),
    "Node": all_at_once(node_client, NODE),
    "Go": all_at_once(rclone, [None]),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_comes_to_the_same_as_directly(tools, client, beside, session, name):
    visit = CLIENTS[name]
    direct = visit(beside, tools)
    assert [answer for answer in direct if not answer.startswith("TLSv1.")] == []
    watch = session.watch()
    through = visit(client, tools)
    flows = watch.flows(len(direct))
    agreed = [answer.split()[:3] for answer in direct]
    assert [answer.split()[:3] for answer in through] == agreed
    for flow, answer in zip(flows, through, strict=True):
        details = flow.layer("tls")["details"]
        assert details["server_hello"] == "exact", (answer, details)
        assert answer.split()[3:] == [details["ja3"], details["ja4"]]
        assert flow.stack == ["tls", "http/1"]


# --- stacks as servers ---------------------------------------------------------------------------


VISITS = [
    *((SSL.TLS1_3_VERSION, suite, "X25519:P-256") for suite in SUITES),
    *((SSL.TLS1_3_VERSION, None, group) for group in GROUPS),
    (SSL.TLS1_3_VERSION, None, "*X448:X25519:P-256"),  # a server without X448 wants another hello
    (SSL.TLS1_3_VERSION, None, "*P-521:P-384"),
    *((SSL.TLS1_2_VERSION, suite, "X25519:P-256") for suite in OLD_SUITES),
    *((SSL.TLS1_2_VERSION, None, f"{group}:P-256") for group in OLD_GROUPS if group != "P-256"),
]


class Copied:
    """OpenSSL over a socket, with a copy of what the server has sent."""

    def __init__(self, raw, context):
        self.raw, self.received = raw, b""
        self.tls = SSL.Connection(context, None)
        self.tls.set_tlsext_host_name(b"www.example")
        self.tls.set_connect_state()

    def do(self, step, *arguments):
        while True:
            try:
                return step(*arguments)
            except SSL.WantReadError:
                self.send()
                data = self.raw.recv(65536)
                self.received += data
                if not data:
                    raise SSL.Error("closed") from None
                self.tls.bio_write(data)
            finally:
                self.send()

    def send(self):
        with suppress(SSL.WantReadError):
            self.raw.sendall(self.tls.bio_read(65536))


@cache
def context_for(version, suite, groups, *, alpn):
    context = context_of_all(groups)
    if alpn:
        context.set_alpn_protos([b"http/1.1"])
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    if suite and version == SSL.TLS1_3_VERSION:
        context.set_tls13_ciphersuites(suite.encode())
    elif suite:
        context.set_cipher_list(f"{suite}:@SECLEVEL=0".encode())
    return context


def ask(machine, port, version, suite, groups, *, alpn):
    """What OpenSSL and a server agree on, the fingerprints of the server's hellos, and how it
    answers; or why there is nothing."""
    with machine.connect(SERVER_V4, port) as raw:
        set_time_limit(raw)
        copied = Copied(raw, context_for(version, suite, groups, alpn=alpn))
        tls = copied.tls
        try:
            copied.do(tls.do_handshake)
            copied.do(tls.sendall, REQUEST)
            answer = copied.do(tls.recv, 4096)
            with suppress(SSL.Error, OSError):
                copied.do(tls.shutdown)
        except (SSL.Error, OSError) as error:
            return f"error: {error}"
    agreed = tls.get_protocol_version_name(), tls.get_cipher_name(), tls.get_group_name()
    shown = [
        fingerprint(hello)
        for hello in server_hellos(copied.received)
        for fingerprint in (ja3s, ja4s)
    ]
    return " ".join([*map(str, agreed), *shown, answer[:8].decode()])


def server_hellos(received):
    """One, or two after a HelloRetryRequest, which has a record of its own."""
    first = parse_server_hello(received)
    if not first.is_retry:
        return [first]
    rest = received
    while rest == received or rest[:1] == b"\x14":  # ChangeCipherSpec
        rest = rest[5 + int.from_bytes(rest[3:5]) :]
    return [first, parse_server_hello(rest)]


def key_files(identity):
    return identity.certificate, identity.key


def pkcs12(identity, files):
    path = files / f"{identity.key.stem}.p12"
    argv = ["openssl", "pkcs12", "-export", "-passout", "pass:changeit", "-name", "own"]
    argv += ["-in", identity.certificate, "-inkey", identity.key, "-out", path]
    subprocess.run(argv, check=True)
    return path


def selfserv(port, identity, tools):
    store = tools.files / f"nss-{port}"
    store.mkdir()
    path = pkcs12(identity, tools.files)
    subprocess.run(["certutil", "-N", "-d", store, "--empty-password"], check=True)
    argv = ["pk12util", "-i", path, "-d", store, "-W", "changeit"]
    subprocess.run(argv, check=True, capture_output=True)
    argv = ["selfserv", "-d", store, "-p", port, "-V", "tls1.2:tls1.3", "-n", "own"]
    return [*argv, "-I", "x25519,P256,P384,P521", "-c", NSS_SUITES]


NSS_SUITES = "".join(
    f":{suite}"
    for suite in ("1301", "1302", "1303", "C02B", "C02C", "CCA9", "C02F", "C030", "CCA8")
)


def s_server(port, identity, _):
    certificate, key = key_files(identity)
    return [
        *("openssl", "s_server", "-www", "-quiet", "-accept", port, "-cert", certificate),
        *("-key", key, "-cipher", "ALL:@SECLEVEL=0", "-ciphersuites", ":".join(SUITES)),
    ]


def gnutls_serv(port, identity, _):
    certificate, key = key_files(identity)
    return [
        *("gnutls-serv", "--http", "--quiet", "--disable-client-cert", "--port", port),
        *("--x509certfile", certificate, "--x509keyfile", key),
        *("--priority", "NORMAL:+AES-128-CCM-8:+AES-256-CCM-8"),
    ]


def python_server(name):
    return lambda port, identity, _: [
        *(sys.executable, HERE / "peer.py", name, "server", port, *key_files(identity))
    ]


def nginx_server(port, identity, tools):
    certificate, key = key_files(identity)
    files = tools.files
    config = files / f"interop-{port}.conf"
    config.write_text(f"""
        daemon off; master_process off; pid {files}/interop-{port}.pid; error_log stderr crit;
        events {{ worker_connections 64; }}
        http {{
            access_log off;
            client_body_temp_path {files}/body; proxy_temp_path {files}/proxy;
            fastcgi_temp_path {files}/fastcgi; uwsgi_temp_path {files}/uwsgi;
            scgi_temp_path {files}/scgi;
            server {{
                listen {port} ssl; ssl_protocols TLSv1.2 TLSv1.3; ssl_ciphers ALL:@SECLEVEL=0;
                ssl_certificate {certificate}; ssl_certificate_key {key};
                location / {{ return 200 "ok"; }}
            }}
        }}
    """)
    return ["nginx", "-c", config, "-p", files]


def lighttpd(port, identity, tools):
    (tools.files / "page").mkdir(exist_ok=True)
    (tools.files / "page" / "index.txt").write_text("ok")
    config = tools.files / f"wolfssl-{port}.conf"
    config.write_text(f"""
        server.document-root = "{tools.files}/page"
        index-file.names = ("index.txt")
        server.port = {port}
        server.modules = ("mod_wolfssl")
        ssl.engine = "enable"
        ssl.pemfile = "{identity.certificate}"
        ssl.privkey = "{identity.key}"
        ssl.openssl.ssl-conf-cmd = ("MinProtocol" => "TLSv1.2", "CipherString" => "ALL")
    """)
    return ["lighttpd", "-D", "-f", config]


SERVERS = {
    "OpenSSL": s_server,
    "GnuTLS": gnutls_serv,
    "NSS": selfserv,
    "BoringSSL": python_server("utls"),
    "rustls": python_server("rtls"),
    "Python": python_server("ssl"),
    "tlslite-ng": python_server("tlslite"),
    "Mbed TLS": python_server("mbedtls"),
    "Botan": lambda port, identity, _: [
        *("botan", "tls_server", *key_files(identity), f"--port={port}")
    ],
    "Java": lambda port, identity, tools: [
        *("java", QUICK_JAVA, "-cp", tools.java),
        *("Peer", "server", port, pkcs12(identity, tools.files)),
    ],
    "Node": lambda port, identity, _: [
        *("node", HERE / "peer.js", "server", port, *key_files(identity))
    ],
    "nginx": nginx_server,
    "wolfSSL": lighttpd,
    "Caddy": lambda port, identity, tools: caddy(port, identity, tools.files),
    "Go": lambda port, identity, tools: [
        *("rclone", "serve", "http", "--addr", f":{port}", "--cert", identity.certificate),
        *("--key", identity.key, tools.files),
    ],
}


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_comes_to_the_same_as_directly(
    tools, identities, serve_once, new_port, client, beside, session, name
):
    alpn = name != "Botan"  # whose program refuses it
    for identity in identities:
        port = new_port()
        serve_once(*map(str, SERVERS[name](port, identity, tools)), port=port)
        direct = [ask(beside, port, *visit, alpn=alpn) for visit in VISITS]
        watch = session.watch()
        through = [ask(client, port, *visit, alpn=alpn) for visit in VISITS]
        assert through == direct
        flows = watch.flows(len(VISITS))
        said = {flow.layer("tls")["details"]["server_hello"] for flow in flows if flow.layers}
        assert said <= {"exact", None}
        connected = [answer for answer in direct if answer.startswith("TLSv1.")]
        assert len(connected) >= 7, direct


# --- sessions ------------------------------------------------------------------------------------


def gnutls_again(tools, version):
    priority = f"NORMAL:-VERS-ALL:+VERS-TLS{version}"
    return [
        *("gnutls-cli", "--no-ca-verification", "--resume", "--waitresumption"),
        *("--sni-hostname", "www.example", "--priority", priority, "-p", tools.port, SERVER_V4),
    ]


def openssl_again(tools, version):
    """It makes five more connections; in TLS 1.3 it would have to wait for tickets."""
    connect = f"{SERVER_V4}:{tools.port}"
    return ["openssl", "s_client", "-connect", connect, "-reconnect", f"-tls{version}"]


AGAIN = {
    "GnuTLS 1.2": (gnutls_again, "1.2", "This is a resumed session", 2),
    "GnuTLS 1.3": (gnutls_again, "1.3", "This is a resumed session", 2),
    "OpenSSL 1.2": (openssl_again, "1_2", "Reused, TLSv1.2", 6),
}


@pytest.mark.parametrize("name", AGAIN)
def test_a_session_that_a_client_resumes_is_resumed_at_the_server(
    tools, client, beside, session, name
):
    command, version, words, connections = AGAIN[name]
    argv = list(map(str, command(tools, version)))
    direct = beside.run(*argv, input=REQUEST).text.count(words)
    assert direct == connections - 1
    watch = session.watch()
    through = client.run(*argv, input=REQUEST).text.count(words)
    flows = watch.flows(connections)
    resumed = [flow.layer("tls")["details"]["resumed"] for flow in flows]
    assert (through, resumed) == (direct, [False, *[True] * direct])
