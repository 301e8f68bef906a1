"""QUIC is refused, and clients that would use it fall back to TCP."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mitml4.lab.certificates import Identity
from mitml4.lab.network import CLIENT_V4, SERVER_V4
from tests.e2e.caddy import caddy
from tests.e2e.conftest import HOST, Machine

# A server that has said that it speaks HTTP/3 is asked by it from then on.
ASKING = """
<html><body><script>
(async () => {
    for (let i = 0; i < 6; i++) {
        const answer = await fetch('/protocol?' + i);
        document.body.append(await answer.text(), ' ');
        await new Promise(done => setTimeout(done, 100));
    }
})()
</script></body></html>
"""


@pytest.fixture(scope="module")
def http3(serve: Callable[..., None], identity: Identity, files: Path) -> None:
    """A server on port 443 that says by which protocol it is asked."""
    argv = caddy(443, identity, files)
    config = json.loads(Path(argv[-1]).read_text())
    server = config["apps"]["http"]["servers"]["one"]
    answers = {"handler": "static_response", "headers": {"Content-Type": ["text/html"]}}
    server["protocols"] = ["h1", "h3"]
    server["routes"] = [
        {"match": [{"path": ["/"]}], "handle": [answers | {"body": ASKING}]},
        {"handle": [answers | {"body": "{http.request.proto}"}]},
    ]
    Path(argv[-1]).write_text(json.dumps(config))
    serve(*argv, port=443)


def digest(certificate: Path) -> str:
    """That of a certificate's public key, as Chromium takes it."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(info).digest()).decode()


def protocols(machine: Machine, trusted: Path, profile: Path) -> set[str]:
    """By which protocols Chromium asks the server."""
    seen = machine.run(
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"),
        f"--host-resolver-rules=MAP {HOST} {SERVER_V4}",
        f"--ignore-certificate-errors-spki-list={digest(trusted)}",
        # It takes QUIC from an authority of the user's for such hosts only; the port is another's.
        f"--origin-to-force-quic-on={HOST}:9",
        *("--virtual-time-budget=5000", "--dump-dom", f"https://{HOST}/"),
    )
    said = seen.text.rpartition("</script>")[2].partition("</body>")[0].split()
    assert len(said) == 6, seen.text + seen.err
    return set(said)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="only Debian has it as a package")
def test_chromium_asks_by_tcp_what_it_would_ask_by_quic(
    http3, intercept, client, beside, identity, tmp_path
) -> None:
    assert "HTTP/3.0" in protocols(beside, identity.certificate, tmp_path / "beside")
    session = intercept()
    assert protocols(client, session.ca, tmp_path / "client") == {"HTTP/1.1"}
    assert session.stop() == 0
    told = session.of_type("quic.refused")
    assert {(each["sni"], *each["alpn"]) for each in told} == {(HOST, "h3")}
    assert {each["client"]["ip"] for each in told} == {CLIENT_V4}
    assert {each["destination"]["port"] for each in told} == {443}
    assert all(each["ja4"].startswith("q13d") for each in told)
