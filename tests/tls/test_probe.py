"""The defects of --probe-clients: each leaf has its own, and OpenSSL refuses each for it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from mitml4.protocols.tls.hello import ClientHello, Extension
from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.pinning import Client
from mitml4.tls.probe import Case, Probes, outcome_for

HELLO = ClientHello(
    legacy_version=0x0303,
    random=bytes(32),
    cipher_suites=(0x1301, 0xC02B),
    supported_versions=(0x0A0A, 0x0304, 0x0303),
    signature_algorithms=(0x0403, 0x0804, 0x0401),
    alpn=(b"h2", b"http/1.1"),
)
REASONS = {
    Case.SELF_SIGNED: "self-signed certificate",
    Case.UNKNOWN_ISSUER: "self-signed certificate in certificate chain",
    Case.WRONG_NAME: "hostname mismatch",
    Case.EXPIRED: "certificate has expired",
    Case.NOT_YET_VALID: "certificate is not yet valid",
    Case.LEAF_AS_ISSUER: "invalid CA certificate",
    Case.WEAK_KEY: "EE certificate key too weak",
    Case.SHA1: "CA signature digest algorithm too weak",
}


def verified(leaf, ca: CertificateAuthority, directory: Path) -> str:
    """What openssl verify says of it, for www.example at the usual security level."""
    for name, certificates in (
        ("leaf", [leaf.certificate]),
        ("chain", leaf.chain),
        ("root", [ca.certificate]),
    ):
        pem = b"".join(each.public_bytes(Encoding.PEM) for each in certificates)
        (directory / name).write_bytes(pem)
    argv = ["openssl", "verify", "-auth_level", "2", "-verify_hostname", "www.example"]
    argv += ["-CAfile", "root", *(["-untrusted", "chain"] if leaf.chain else []), "leaf"]
    done = subprocess.run(argv, cwd=directory, capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.mark.parametrize("key", ["ec-p256", "rsa3072"])
async def test_each_leaf_has_its_defect_and_no_other(tmp_path: Path, key: str) -> None:
    ca = CertificateAuthority.generate(key=key)
    probes = Probes(ca)
    for case in Case:
        leaf = await probes.leaf(case, "www.example", HELLO, 0x0304)
        said = verified(leaf, ca, tmp_path)
        if case in REASONS:
            assert REASONS[case] in said, (case, said)
            # Who signs without being an authority exceeds the path length of ours, too.
            most = 4 if case is Case.LEAF_AS_ISSUER else 2
            assert said.count("error ") <= most, (case, said)
        else:
            assert said == "leaf: OK\n", (case, said)
        assert bool(leaf.staple) == (case is Case.REVOKED)


async def test_the_revoked_leaf_has_a_response_that_says_so() -> None:
    ca = CertificateAuthority.generate()
    leaf = await Probes(ca).leaf(Case.REVOKED, "192.0.2.7", HELLO, 0x0304)
    response = ocsp.load_der_ocsp_response(leaf.staple)
    assert response.certificate_status is ocsp.OCSPCertStatus.REVOKED
    assert response.next_update_utc > datetime.now(UTC)
    key: Any = ca.key.public_key()
    key.verify(response.signature, response.tbs_response_bytes, ECDSA(SHA256()))


def test_each_client_meets_each_case_once_at_each_name() -> None:
    probes = Probes(CertificateAuthority.generate())
    one, other = Client("192.0.2.1", "a"), Client("192.0.2.1", "b")
    assert list(probes.cases(one, "a.example")) == list(Case)
    assert not probes.is_due(one, "a.example")
    assert list(probes.cases(one, "a.example")) == []
    assert probes.is_due(other, "a.example")
    assert next(probes.cases(one, "b.example")) is Case.SELF_SIGNED
    assert next(probes.cases(one, "b.example")) is Case.UNKNOWN_ISSUER


def test_what_a_hello_offers_decides() -> None:
    assert not Case.OLD_VERSION.is_offered(HELLO)
    assert not Case.REVOKED.is_offered(HELLO)
    assert Case.REVOKED.is_offered(replace(HELLO, extensions=(Extension.STATUS_REQUEST,)))
    assert outcome_for(Case.EXPIRED, HELLO).version == 0x0304
    assert outcome_for(Case.EXPIRED, HELLO).alpn == b"http/1.1"
    without_list = replace(HELLO, supported_versions=(), alpn=None)
    assert outcome_for(Case.OLD_VERSION, without_list).version == 0x0302
    assert outcome_for(Case.EXPIRED, without_list).version == 0x0303
    assert outcome_for(Case.EXPIRED, without_list).alpn == b""
    old = replace(without_list, legacy_version=0x0301)
    assert outcome_for(Case.OLD_VERSION, old).version == 0x0301
    assert not Case.EXPIRED.is_offered(old)


@pytest.mark.parametrize(
    "name", ["a" * 5000, "\udcff.example", "straße.example", "\0", " ", "fe80::1"]
)
async def test_whatever_a_client_names_gets_a_leaf(name: str) -> None:
    probes = Probes(CertificateAuthority.generate())
    for case in (Case.EXPIRED, Case.SHA1, Case.SELF_SIGNED):
        leaf = await probes.leaf(case, name, HELLO, 0x0304)
        assert leaf.chain_der[0] == leaf.certificate.public_bytes(Encoding.DER)
