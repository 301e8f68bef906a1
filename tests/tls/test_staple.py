"""Stapled OCSP responses: which of them are good, and what ours says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.staple import (
    Revocation,
    Staple,
    StapleFault,
    demands_staple,
    make_staple,
    read_staple,
)

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def certificate(
    key: Key, issuer: x509.Certificate | None, issuer_key: Key, *extensions: x509.ExtensionType
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A name")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - HOUR)
        .not_valid_after(NOW + HOUR)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, SHA256())


def key(kind: str) -> Key:
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1())


KEY, OTHER_KEY = key("ec"), key("ec")
ISSUER = certificate(KEY, None, KEY)
LEAF = certificate(OTHER_KEY, ISSUER, KEY)


def der(shown: x509.Certificate) -> bytes:
    return shown.public_bytes(Encoding.DER)


def response(
    *,
    leaf: x509.Certificate = LEAF,
    issuer: x509.Certificate = ISSUER,
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
    since: datetime = NOW - HOUR,
    until: datetime | None = NOW + HOUR,
    responder: x509.Certificate | None = None,
    responder_key: Key = KEY,
) -> bytes:
    revoked = status is ocsp.OCSPCertStatus.REVOKED
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=leaf,
        issuer=issuer,
        algorithm=SHA1(),
        cert_status=status,
        this_update=since,
        next_update=until,
        revocation_time=since if revoked else None,
        revocation_reason=None,
    )
    if responder:
        builder = builder.certificates([responder])
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, responder or issuer)
    return builder.sign(responder_key, SHA256()).public_bytes(Encoding.DER)


def read(stapled: bytes, issuer: x509.Certificate = ISSUER) -> Staple:
    return read_staple(stapled, der(LEAF), der(issuer), NOW)


def test_a_good_response_says_how_long_it_holds() -> None:
    assert read(response()) == Staple(NOW - HOUR, NOW + HOUR)


def test_a_revoked_one_says_since_when() -> None:
    revoked = read(response(status=ocsp.OCSPCertStatus.REVOKED))
    assert revoked == Staple(NOW - HOUR, NOW + HOUR, Revocation(NOW - HOUR))


@pytest.mark.parametrize(
    ("stapled", "fault"),
    [
        (lambda: response(status=ocsp.OCSPCertStatus.REVOKED, until=None), "revoked"),
        (lambda: response(status=ocsp.OCSPCertStatus.UNKNOWN), "OCSP status unknown"),
        (lambda: response(until=NOW - HOUR / 2), "OCSP response out of date"),
        (lambda: response(until=None), "OCSP response out of date"),
        (lambda: response(since=NOW + HOUR / 2), "OCSP response out of date"),
        (lambda: response(leaf=ISSUER), "invalid OCSP response"),
        (lambda: response()[:-8] + bytes(8), "invalid OCSP response"),
        (lambda: b"garbage", "invalid OCSP response"),
        (
            lambda: ocsp.OCSPResponseBuilder.build_unsuccessful(
                ocsp.OCSPResponseStatus.TRY_LATER
            ).public_bytes(Encoding.DER),
            "invalid OCSP response",
        ),
    ],
)
def test_any_other_is_a_fault(stapled: Callable[[], bytes], fault: str) -> None:
    with pytest.raises(StapleFault, match=fault):
        read(stapled())


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_who_may_sign_it(kind: str) -> None:
    own = key(kind)
    may = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
    authorised = certificate(own, ISSUER, KEY, may)
    assert read(response(responder=authorised, responder_key=own))
    issuer = certificate(own, None, own)
    assert read(response(issuer=issuer, responder_key=own), issuer)
    for forger in (certificate(own, ISSUER, KEY), certificate(own, None, own, may)):
        with pytest.raises(StapleFault):
            read(response(responder=forger, responder_key=own))


@pytest.mark.parametrize("kind", ["ec-p256", "ec-p384", "rsa2048"])
def test_ours_says_the_same(kind: str) -> None:
    authority = CertificateAuthority.generate(key=kind)
    leaf = certificate(OTHER_KEY, authority.certificate, authority.key)
    for revocation in (
        None,
        Revocation(NOW - HOUR),
        Revocation(NOW - HOUR, x509.ReasonFlags.key_compromise),
    ):
        staple = Staple(NOW - HOUR, NOW + HOUR, revocation)
        stapled = make_staple(staple, leaf, authority)
        assert read_staple(stapled, der(leaf), der(authority.certificate), NOW) == staple


def test_a_certificate_may_demand_one() -> None:
    feature = x509.TLSFeature([x509.TLSFeatureType.status_request])
    assert demands_staple(der(certificate(KEY, ISSUER, KEY, feature)))
    assert not demands_staple(der(LEAF))
    assert not demands_staple(b"garbage")
