"""The command's environment names roots, and its programs trust the same servers as plainly."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from mitml4.lab.certificates import LabAuthority
from tests.e2e.run.conftest import TIMEOUT_S

VISITS = Path(__file__).with_name("roots_visits.py")
ENVIRONMENTS = [  # in each, some programs find nothing that is theirs
    {"CURL_CA_BUNDLE": "company", "NODE_EXTRA_CA_CERTS": "company"},
    {"SSL_CERT_FILE": "company", "GIT_SSL_CAINFO": "company"},
    {"SSL_CERT_DIR": "company-directory", "REQUESTS_CA_BUNDLE": "company-directory"},
    {"PIP_CERT": "company", "HTTPS_CA_DIR": "company-directory"},
    {"CURL_CA_BUNDLE": "missing", "SSL_CERT_FILE": "missing"},
]


@pytest.fixture
def roots(host, authority, serve_once):
    """A host whose system trusts one authority, and a company's another; a server of each."""
    company = LabAuthority(host.home, "Company Root")
    for port, name, issuer in ((443, "www.example", authority), (8443, "intra.example", company)):
        identity = issuer.issue(name)
        web = ("openssl", "s_server", "-accept", str(port), "-WWW", "-quiet")
        files = ("-cert", str(identity.certificate), "-key", str(identity.key))
        serve_once(*web, *files, "-cert_chain", str(identity.certificate), port=port, cwd=host.home)
    system = directory(host.home / "system", authority.root)
    (system / "ca-certificates.crt").write_bytes(authority.root.read_bytes())
    directory(host.home / "company-directory", company.root)
    (host.home / "company").write_bytes(company.root.read_bytes())
    (host.home / "both").write_bytes(company.root.read_bytes() + authority.root.read_bytes())
    return replace(host, root_certificate=None, roots=system)


def directory(path: Path, root: Path) -> Path:
    path.mkdir()
    (path / "root.pem").write_bytes(root.read_bytes())
    subprocess.run(["openssl", "rehash", str(path)], check=True)
    return path


def test_programs_trust_whom_they_trust_plainly(roots):
    python = ("env", "-u", "PYTHONPATH", "/usr/bin/python3")  # with Debian's modules alone
    visits = (*python, str(VISITS), "www.example", "intra.example:8443")
    seen = set()
    for named in ENVIRONMENTS:
        environ = {name: str(roots.home / file) for name, file in named.items()}
        plain = roots.popen(roots.shell(*visits), env=roots.environ | environ)
        inside = roots.run(*visits, options=("--on-pinned", "fail"), root=True, env=environ)
        directly = json.loads(plain.communicate(timeout=TIMEOUT_S)[0])
        assert json.loads(inside.out) == directly, (named, inside.err)
        layers = [each for each in inside.of_type("flow.layer") if each["protocol"] == "tls"]
        # curl connects before it finds that there is no such file; the server answers the end.
        assert {each["details"]["passthrough"] for each in layers} <= {None, "not openable"}
        seen |= set(directly.items())
    outcomes = {f"{client} {outcome}" for client, outcome in seen}
    assert {"curl intra.example:8443 accepted", "curl intra.example:8443 refused"} <= outcomes
    assert {"node intra.example:8443 accepted", "requests www.example refused"} <= outcomes
