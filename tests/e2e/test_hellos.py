"""The hello that a server gets is the client's. By OpenSSL it is as close as OpenSSL can make it,
and what is not alike is named."""

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from contextlib import suppress
from functools import cache

import pytest

from mitml4.lab.network import SERVER_V4
from mitml4.protocols.tls.differences import differences
from mitml4.protocols.tls.fingerprints import ja3, ja4
from mitml4.protocols.tls.hello import parse_client_hello
from mitml4.protocols.tls.names import is_grease
from tests.e2e.conftest import intercepting

PAGE = f"https://{SERVER_V4}:PORT/"
CARELESS = "['ssl' => ['verify_peer' => false, 'verify_peer_name' => false]]"
CLIENTS = {
    "curl": [
        "curl",
        "-sk",
        "--resolve",
        f"www.example:PORT:{SERVER_V4}",
        "https://www.example:PORT/",
    ],
    "curl, TLS 1.2": ["curl", "-sk", "--tls-max", "1.2", PAGE],
    "ruby": ["ruby", "-ropen-uri", "-e", f"print URI.open('{PAGE}', ssl_verify_mode: 0).read"],
    "php": ["php", "-r", f"readfile('{PAGE}', false, stream_context_create({CARELESS}));"],
    "node": [
        *("node", "-e"),
        f"require('https').get('{PAGE}', {{rejectUnauthorized: false}},"
        " answer => answer.pipe(process.stdout))",
    ],
    "openssl": ["openssl", "s_client", "-quiet", "-connect", f"{SERVER_V4}:PORT"],
    "gnutls": ["gnutls-cli", "--no-ca-verification", "-p", "PORT", SERVER_V4],
}
OPENSSL = "by OpenSSL: as asked"


@pytest.fixture(scope="module", params=["auto", "openssl"])
def engine(request):
    return request.param


@pytest.fixture(scope="module")
def session(lab, authority, tmp_path_factory, engine):
    options = ["--tls-engine", engine]
    directory = tmp_path_factory.mktemp(engine)
    with intercepting(lab, directory, *options, roots=[authority.root]) as session:
        yield session


class RecordingServer:
    """Answers every request by TLS with `ok`, and keeps the hellos."""

    def __init__(self, namespace, identity):
        self.hellos = []
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(identity.certificate, identity.key)
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
                with accepted, suppress(OSError):
                    self.serve(accepted)

    def serve(self, accepted):
        accepted.settimeout(10)
        hello = None
        while hello is None:
            hello = parse_client_hello(accepted.recv(65536, socket.MSG_PEEK))
        self.hellos.append(hello)
        with self.context.wrap_socket(accepted, server_side=True) as tls:
            tls.recv(65536)
            tls.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
            tls.unwrap()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()


@pytest.fixture(scope="module")
def recorder(lab, identity):
    server = RecordingServer(lab.server, identity)
    yield server
    server.close()


def is_alike(one, other):
    """Whether a server cannot tell them apart by what every hello of a client has."""
    return ja3(one) == ja3(other) and ja4(one) == ja4(other)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_server_cannot_tell_a_clients_library_from_ours(
    recorder, client, beside, session, engine, name
):
    argv = [word.replace("PORT", str(recorder.port)) for word in CLIENTS[name]]
    request = b"GET / HTTP/1.0\r\n\r\n"
    assert b"ok" in beside.run(*argv, input=request).out
    watch = session.watch()
    outcome = client.run(*argv, input=request)
    assert b"ok" in outcome.out, outcome
    details = watch.flow().layer("tls")["details"]
    direct, got = recorder.hellos[-2:]
    assert got.sni == direct.sni == details["sni"]
    assert ja4(direct) == details["ja4"]
    if engine == "auto":
        assert is_alike(direct, got)
        assert details["server_hello"] == "exact"
        return
    unlike = [] if details["server_hello"] == "exact" else details["server_hello"]
    named = [each for each in unlike if each.startswith(("cipher", "extension "))]
    if name == "gnutls":
        # It says of renegotiation by an extension what OpenSSL says by a cipher suite, and limits
        # the size of records.
        assert {"extension record_size_limit", "extension renegotiation_info"} <= set(named)
    else:
        assert named == []
        assert ja4(got) == details["ja4"]


BROWSERS = {
    "chromium": (
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir=DIR", "URL"],
        {"grease", "extension compress_certificate", "extension application_settings"},
    ),
    "firefox": (
        ["firefox-esr", "--headless", "--no-remote", "--profile", "DIR", "URL"],
        {"extension delegated_credential", "extension record_size_limit"},
    ),
}


@pytest.fixture(scope="module")
def said_first(client, tmp_path_factory):
    """The hello of a browser, which is started once for both engines."""

    @cache
    def say(name):
        return hello_of_browser(client, BROWSERS[name][0], tmp_path_factory.mktemp(name))

    return say


@pytest.mark.parametrize("name", BROWSERS)
def test_what_a_browsers_hello_loses_is_named(recorder, client, session, engine, said_first, name):
    argv, lost = BROWSERS[name]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"only Debian has {argv[0]} as a package")
    hello = said_first(name)
    watch = session.watch()
    with client.connect(SERVER_V4, recorder.port) as sock:
        sock.sendall(hello)
        assert sock.recv(1)
    details = watch.flow().layer("tls")["details"]
    sent, got = parse_client_hello(hello), recorder.hellos[-1]
    assert details["ja4"] == ja4(sent)
    if engine == "auto":
        assert is_alike(sent, got)
        assert got.extensions == sent.extensions
        assert details["server_hello"] == "exact"
        return
    assert details["server_hello"] == [OPENSSL, *differences(sent, got)]
    assert lost <= set(details["server_hello"])
    named = {each for each in details["server_hello"] if each.startswith("extension ")}
    types = {kind for kind in sent.extensions if not is_grease(kind)}
    assert len(named) == len(types ^ set(got.extensions))


def hello_of_browser(client, argv, directory):
    """What a browser says first to a server on its own machine."""
    with client.namespace.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(60)
        url = f"https://localhost:{listener.getsockname()[1]}/"
        words = {"DIR": str(directory), "URL": url}
        command = [re.sub("DIR|URL", lambda word: words[word[0]], each) for each in argv]
        settings = {"start_new_session": True, "env": os.environ | {"HOME": str(directory)}}
        with client.namespace.popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **settings
        ) as browser:
            try:
                accepted, _ = listener.accept()
                with accepted:
                    accepted.settimeout(10)
                    data = b""
                    while parse_client_hello(data) is None:
                        data += accepted.recv(65536)
                    return data
            finally:
                os.killpg(browser.pid, signal.SIGKILL)
