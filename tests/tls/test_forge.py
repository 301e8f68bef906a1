"""The mirrored leaf: what it copies, what it never does, and who accepts it."""

from __future__ import annotations

import ipaddress
import ssl
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import (
    AuthorityInformationAccessOID,
    ExtendedKeyUsageOID,
    ExtensionOID,
    NameOID,
)
from cryptography.x509.verification import PolicyBuilder, Store
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from mitml4.errors import CertificateError
from mitml4.tls import forge as forge_module
from mitml4.tls.ca import CA_KEYS, CertificateAuthority
from mitml4.tls.context import Contexts, Outcome
from mitml4.tls.der import BIT_STRING, INTEGER, OCTET_STRING, OID, SEQUENCE, elements, tlv
from mitml4.tls.forge import MAX_LEAF_LIFE, MAX_VALIDITY, Forge, Leaf
from mitml4.tls.keys import KeyType, LeafKeys
from mitml4.tls.original import Original, key_type_of
from mitml4.tls.sent_chain import Part
from mitml4.tls.staple import Staple, read_staple
from mitml4.tls.verify import Issuer, Unknown

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
KNOWN: Issuer = frozenset({0})
SIGNER = ec.generate_private_key(ec.SECP256R1())
ISSUER = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A real authority")])
SUBJECT = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "example.com")])
NAMES = x509.SubjectAlternativeName(
    [
        x509.DNSName("example.com"),
        x509.DNSName("*.example.com"),
        x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
        x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
    ]
)


def original(
    *extensions: x509.ExtensionType,
    subject: x509.Name = SUBJECT,
    not_before: datetime = NOW - timedelta(minutes=10),
    not_after: datetime = NOW + 90 * DAY,
    key: Any = SIGNER,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ISSUER)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(SIGNER, SHA256())


def handmade(
    *,
    subject: bytes = SUBJECT.public_bytes(),
    validity: Sequence[bytes] = (tlv(0x17, b"240101000000Z"), tlv(0x17, b"490101000000Z")),
    extensions: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """The DER of a certificate with parts that no builder would make; its signature is noise."""
    algorithm = tlv(SEQUENCE, tlv(OID, b"\x2a\x86\x48\xce\x3d\x04\x03\x02"))
    listed = [tlv(SEQUENCE, tlv(OID, oid), tlv(OCTET_STRING, value)) for oid, value in extensions]
    tbs = tlv(
        SEQUENCE,
        tlv(0xA0, tlv(INTEGER, b"\x02")),
        tlv(INTEGER, b"\xff\x01"),  # negative
        algorithm,
        ISSUER.public_bytes(),
        tlv(SEQUENCE, *validity),
        subject,
        Original.read(original()).spki,
        tlv(0xA3, tlv(SEQUENCE, *listed)),
    )
    return tlv(SEQUENCE, tbs, algorithm, tlv(BIT_STRING, b"\0noise"))


def mint(
    certificate: x509.Certificate | bytes | None,
    *,
    ca: CertificateAuthority | None = None,
    issuer: Issuer = KNOWN,
    key_type: KeyType = KeyType.EC_P256,
    name: str | None = None,
    **told: Any,
) -> Leaf:
    async def ask() -> Leaf:
        forge = Forge(ca or AUTHORITY)
        forge._keys = KEYS
        return await forge.leaf(certificate, issuer=issuer, key_type=key_type, name=name, **told)

    return trio.run(ask)


AUTHORITY = CertificateAuthority.generate()
KEYS = LeafKeys()
"""Of all leaves here: an RSA key takes up to seconds of CPU time."""


@cache
def authority(key: str) -> CertificateAuthority:
    return CertificateAuthority.generate(key=key)


def value(leaf: Leaf, kind: type[Any]) -> Any:
    return leaf.certificate.extensions.get_extension_for_class(kind).value


def verify_with_openssl(
    leaf: Leaf,
    ca: CertificateAuthority,
    directory: Path,
    host: str,
    *,
    strict: bool = True,
    others: Sequence[CertificateAuthority] = (),
) -> None:
    """`others` stand before the authority in the file of roots."""
    roots = [each.certificate.public_bytes(Encoding.PEM) for each in (*others, ca)]
    (directory / "ca.pem").write_bytes(b"".join(roots))
    (directory / "leaf.pem").write_bytes(leaf.certificate.public_bytes(Encoding.PEM))
    command = "openssl verify -purpose sslserver -verify_hostname"
    subprocess.run(
        [
            *command.split(),
            host,
            *(["-x509_strict"] if strict else []),
            "-CAfile",
            directory / "ca.pem",
            directory / "leaf.pem",
        ],
        check=True,
        capture_output=True,
    )


def verify_with_python_ssl(
    leaf: Leaf, ca: CertificateAuthority, directory: Path, host: str
) -> None:
    pem = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for certificate in (leaf.certificate, *leaf.chain):
        pem += certificate.public_bytes(Encoding.PEM)
    (directory / "server.pem").write_bytes(pem)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(directory / "server.pem")
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    client_context.load_verify_locations(
        cadata=ca.certificate.public_bytes(Encoding.PEM).decode("ascii")
    )
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(down, up, server_hostname=host)
    server = server_context.wrap_bio(up, down, server_side=True)
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue


def verify_with_cryptography(leaf: Leaf, ca: CertificateAuthority, host: str) -> None:
    verifier = PolicyBuilder().store(Store([ca.certificate]))
    verifier.build_server_verifier(x509.DNSName(host)).verify(leaf.certificate, [])


class TestWhatIsCopied:
    def test_subject_names_and_dates_come_through(self) -> None:
        certificate = original(NAMES)
        leaf = mint(certificate)
        assert leaf.certificate.subject == SUBJECT
        assert value(leaf, x509.SubjectAlternativeName) == NAMES
        assert leaf.certificate.not_valid_after_utc == certificate.not_valid_after_utc
        assert leaf.certificate.not_valid_before_utc == certificate.not_valid_before_utc
        assert leaf.mirrored == ("subject", "not_before", "not_after", "key", "san")
        assert leaf.not_mirrored == ()

    def test_no_name_is_added(self) -> None:
        leaf = mint(original(), name="asked-for.example")
        with pytest.raises(x509.ExtensionNotFound):
            value(leaf, x509.SubjectAlternativeName)

    def test_a_latin1_subject_is_copied_byte_for_byte(self) -> None:
        attribute = tlv(SEQUENCE, tlv(OID, b"\x55\x04\x03"), tlv(0x14, b"Z\xfcrich"))
        subject = tlv(SEQUENCE, tlv(0x31, attribute))
        leaf = mint(handmade(subject=subject))
        assert Original.read(leaf.certificate).subject == subject

    def test_names_that_are_no_der_are_copied_as_they_stand(self) -> None:
        garbage = b"\xff\x80garbage"
        leaf = mint(handmade(extensions=[(b"\x55\x1d\x11", garbage)]))
        assert Original.read(leaf.certificate).extension(b"\x55\x1d\x11") == garbage
        assert "san" in leaf.mirrored

    @pytest.mark.parametrize(
        ("shown", "given"),
        [
            ([], ["SERVER_AUTH"]),
            (["CLIENT_AUTH"], ["CLIENT_AUTH", "SERVER_AUTH"]),
            (["CLIENT_AUTH", "SERVER_AUTH"], ["CLIENT_AUTH", "SERVER_AUTH"]),
            (["SERVER_AUTH", "CODE_SIGNING"], ["SERVER_AUTH"]),
            (["ANY_EXTENDED_KEY_USAGE"], ["SERVER_AUTH"]),
        ],
    )
    def test_only_the_purposes_of_tls_are_copied(self, shown: list[str], given: list[str]) -> None:
        usages = [getattr(ExtendedKeyUsageOID, usage) for usage in shown]
        leaf = mint(original(x509.ExtendedKeyUsage(usages)) if usages else original())
        expected = [getattr(ExtendedKeyUsageOID, usage) for usage in given]
        assert list(value(leaf, x509.ExtendedKeyUsage)) == expected
        assert ("extended_key_usage" in leaf.mirrored) == (shown == given)

    def test_names_are_critical_exactly_when_there_is_no_subject(self) -> None:
        for subject, critical in ((x509.Name([]), True), (SUBJECT, False)):
            leaf = mint(original(NAMES, subject=subject))
            oid = ExtensionOID.SUBJECT_ALTERNATIVE_NAME
            assert leaf.certificate.extensions.get_extension_for_oid(oid).critical is critical


class TestDefectsStay:
    def test_expired_stays_expired(self) -> None:
        certificate = original(NAMES, not_before=NOW - 90 * DAY, not_after=NOW - DAY / 2)
        assert mint(certificate).certificate.not_valid_after_utc == NOW - DAY / 2

    def test_expired_before_our_authority_began_stays_expired(self) -> None:
        certificate = original(NAMES, not_before=NOW - 900 * DAY, not_after=NOW - 800 * DAY)
        leaf = mint(certificate)
        assert leaf.certificate.not_valid_after_utc == NOW - 800 * DAY
        assert leaf.certificate.not_valid_before_utc == NOW - 900 * DAY
        assert {"not_before", "not_after"} <= set(leaf.mirrored)

    def test_not_yet_valid_stays_not_yet_valid(self) -> None:
        for start in (NOW + 30 * DAY, NOW + 3000 * DAY):
            certificate = original(NAMES, not_before=start, not_after=start + 90 * DAY)
            assert mint(certificate).certificate.not_valid_before_utc == start

    @pytest.mark.parametrize(
        "validity",
        [
            (tlv(0x18, b"00000101000000Z"), tlv(0x18, b"99991231235959Z")),
            (tlv(0x18, b"00010101000000Z"), tlv(0x18, b"00010101000000Z")),
            (tlv(0x18, b"99991231235959Z"), tlv(0x18, b"99991231235959Z")),
            (tlv(0x17, b"491231235959Z"), tlv(0x17, b"500101000000Z")),
            (tlv(0x17, b"never"), tlv(0x17, b"")),
            (tlv(0x04, b"\xff"), tlv(0x18, b"20301301000000Z")),
        ],
        ids=["from-0-to-9999", "year-1", "year-9999", "upside-down", "words", "month-13"],
    )
    def test_dates_at_the_ends_of_time_make_a_leaf(self, validity: tuple[bytes, bytes]) -> None:
        certificate = mint(handmade(validity=validity)).certificate
        assert certificate.not_valid_before_utc <= certificate.not_valid_after_utc
        assert certificate.not_valid_after_utc - certificate.not_valid_before_utc <= MAX_VALIDITY

    def test_the_wrong_name_stays_wrong(self, tmp_path: Path) -> None:
        leaf = mint(original(NAMES))
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            verify_with_python_ssl(leaf, AUTHORITY, tmp_path, "wrong.example")

    @pytest.mark.parametrize(
        ("issuer", "error"),
        [
            (Unknown.ITSELF, "self-signed certificate \\("),
            (Unknown.ROOT, "self-signed certificate in certificate chain"),
            (Unknown.ISSUER, "unable to get local issuer certificate"),
        ],
    )
    @pytest.mark.parametrize("key_type", [KeyType.EC_P256, KeyType.RSA_2048, KeyType.ED25519])
    def test_an_unknown_issuer_is_as_unknown(
        self, issuer: Unknown, error: str, key_type: KeyType, tmp_path: Path
    ) -> None:
        leaf = mint(original(NAMES), issuer=issuer, key_type=key_type)
        with pytest.raises(ssl.SSLCertVerificationError, match=error):
            verify_with_python_ssl(leaf, AUTHORITY, tmp_path, "example.com")
        if issuer is Unknown.ITSELF:
            leaf.certificate.verify_directly_issued_by(leaf.certificate)
        else:
            assert "UNTRUSTED" in leaf.certificate.issuer.rfc4514_string()

    def test_what_strict_clients_refuse_is_refused_by_them_alone(self, tmp_path: Path) -> None:
        leaf = mint(original(NAMES), strict=False)
        verify_with_openssl(leaf, AUTHORITY, tmp_path, "example.com", strict=False)
        with pytest.raises(ssl.SSLCertVerificationError, match="Missing Authority Key"):
            verify_with_python_ssl(leaf, AUTHORITY, tmp_path, "example.com")

    def test_a_key_that_may_only_sign_may_not_encipher(self) -> None:
        key = rsa.generate_private_key(65537, 2048)
        for enciphers in (True, False):
            usage = x509.KeyUsage(True, False, enciphers, *[False] * 6)
            leaf = mint(original(NAMES, usage, key=key), key_type=KeyType.RSA_2048)
            shown = value(leaf, x509.KeyUsage)
            assert (shown.digital_signature, shown.key_encipherment) == (True, enciphers)

    def test_a_good_staple_stays_good(self) -> None:
        staple = Staple(NOW - DAY, NOW + DAY)
        leaf = mint(original(NAMES), staple=staple)
        response = leaf.staple
        authority = AUTHORITY.certificate.public_bytes(Encoding.DER)
        own = leaf.certificate.public_bytes(Encoding.DER)
        assert read_staple(response, own, authority, NOW) == staple
        assert mint(original(NAMES)).staple == b""
        assert mint(original(NAMES), staple=staple, issuer=Unknown.ITSELF).staple == b""


class TestWhatIsNeverCopied:
    def test_promises_of_the_real_issuer_are_dropped_and_named(self) -> None:
        point = x509.DistributionPoint(
            [x509.UniformResourceIdentifier("http://c.example")], None, None, None
        )
        access = x509.AccessDescription(
            AuthorityInformationAccessOID.OCSP,
            x509.UniformResourceIdentifier("http://o.example"),
        )
        leaf = mint(
            original(
                NAMES,
                x509.CRLDistributionPoints([point]),
                x509.FreshestCRL([point]),
                x509.AuthorityInformationAccess([access]),
                x509.TLSFeature([x509.TLSFeatureType.status_request]),
                x509.CertificatePolicies(
                    [x509.PolicyInformation(x509.ObjectIdentifier("2.23.140.1.2.1"), None)]
                ),
                x509.UnrecognizedExtension(
                    ExtensionOID.PRECERT_SIGNED_CERTIFICATE_TIMESTAMPS, b"\x04\x00"
                ),
                x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00"),
            )
        )
        assert leaf.not_mirrored == (
            "crl_distribution_points",
            "freshest_crl",
            "authority_information_access",
            "tls_feature",
            "certificate_policies",
            "signed_certificate_timestamps",
            "1.2.3.4.5",
        )
        assert {each.oid for each in leaf.certificate.extensions} == {
            ExtensionOID.BASIC_CONSTRAINTS,
            ExtensionOID.KEY_USAGE,
            ExtensionOID.EXTENDED_KEY_USAGE,
            ExtensionOID.SUBJECT_KEY_IDENTIFIER,
            ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
            ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        }

    def test_an_authority_becomes_a_leaf(self) -> None:
        leaf = mint(original(x509.BasicConstraints(ca=True, path_length=None)))
        assert value(leaf, x509.BasicConstraints).ca is False
        assert "basic_constraints" in leaf.not_mirrored

    def test_serials_are_positive_fresh_and_fit_20_octets(self) -> None:
        serials = {mint(original(NAMES)).certificate.serial_number for _ in range(20)}
        assert len(serials) == 20
        assert all(0 < serial < 1 << 159 for serial in serials)

    def test_a_second_extension_of_a_kind_is_not_copied(self) -> None:
        twice = [(b"\x55\x1d\x11", tlv(SEQUENCE, tlv(0x82, name))) for name in (b"a.b", b"c.d")]
        leaf = mint(handmade(extensions=twice))
        assert value(leaf, x509.SubjectAlternativeName).get_values_for_type(x509.DNSName) == ["a.b"]
        assert "san (repeated)" in leaf.not_mirrored

    def test_a_flood_of_extensions_is_named_in_part(self) -> None:
        flood = [(b"\x2a\x03" + bytes(divmod(n, 128)), b"") for n in range(256, 5000)]
        assert len(mint(handmade(extensions=flood)).not_mirrored) < 40

    def test_a_flood_of_names_is_copied(self) -> None:
        names = tlv(SEQUENCE, *(tlv(0x82, b"%d.example" % n) for n in range(5000)))
        leaf = mint(handmade(extensions=[(b"\x55\x1d\x11", names)]))
        assert len(list(value(leaf, x509.SubjectAlternativeName))) == 5000


@pytest.mark.parametrize("key_type", list(KeyType))
@pytest.mark.parametrize("ca_key", ["ec-p256", "ec-p384", "rsa2048"])
def test_strict_verifiers_accept_the_leaf(ca_key: str, key_type: KeyType, tmp_path: Path) -> None:
    ca = authority(ca_key)
    leaf = mint(original(NAMES), ca=ca, key_type=key_type)
    verify_with_openssl(leaf, ca, tmp_path, "www.example.com")
    verify_with_python_ssl(leaf, ca, tmp_path, "192.0.2.1")
    if key_type is not KeyType.ED25519:  # its web PKI profile knows no Ed25519
        verify_with_cryptography(leaf, ca, "www.example.com")


@pytest.mark.parametrize("subject", [SUBJECT, x509.Name([])], ids=["subject", "no-subject"])
def test_strict_verifiers_accept_a_leaf_for_a_long_lived_original(
    subject: x509.Name, tmp_path: Path
) -> None:
    certificate = original(
        NAMES, subject=subject, not_before=NOW - 3000 * DAY, not_after=NOW + 30000 * DAY
    )
    leaf = mint(certificate)
    verify_with_openssl(leaf, AUTHORITY, tmp_path, "example.com")
    verify_with_python_ssl(leaf, AUTHORITY, tmp_path, "2001:db8::1")
    verify_with_cryptography(leaf, AUTHORITY, "example.com")


def test_the_leaf_is_what_apple_demands() -> None:
    ca = CertificateAuthority.generate(days=8000)
    key = rsa.generate_private_key(65537, 1024)
    certificate = original(NAMES, not_before=NOW - 4000 * DAY, not_after=NOW + 4000 * DAY, key=key)
    leaf = mint(certificate, ca=ca, key_type=key_type_of(certificate))
    assert isinstance(leaf.key, rsa.RSAPrivateKey)
    assert leaf.key.key_size >= 2048
    assert isinstance(leaf.certificate.signature_hash_algorithm, SHA256)
    assert ExtendedKeyUsageOID.SERVER_AUTH in value(leaf, x509.ExtendedKeyUsage)
    begin, end = leaf.certificate.not_valid_before_utc, leaf.certificate.not_valid_after_utc
    assert end - begin <= timedelta(days=825)
    assert end - datetime.now(UTC) <= MAX_LEAF_LIFE
    assert {"key", "not_before", "not_after"} <= set(leaf.not_mirrored)


def test_the_leaf_never_shares_its_identifier_with_the_authority() -> None:
    leaf = mint(original(NAMES))
    own = value(leaf, x509.SubjectKeyIdentifier).digest
    issuers = value(leaf, x509.AuthorityKeyIdentifier).key_identifier
    ski = AUTHORITY.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    assert issuers == ski.value.digest != own


def test_a_leaf_leads_to_its_authority_among_those_of_one_name(tmp_path: Path) -> None:
    """A client may still trust the former one, which `ca generate --force` has replaced."""
    former, ca = (CertificateAuthority.generate(name="Lab") for _ in range(2))
    leaf = mint(original(NAMES), ca=ca)
    verify_with_openssl(leaf, ca, tmp_path, "www.example.com", others=[former])


def test_a_limited_authority_is_believed_within_its_domains_only(tmp_path: Path) -> None:
    ca = CertificateAuthority.generate(permit_domains=["example.com"])
    inside = mint(original(x509.SubjectAlternativeName([x509.DNSName("www.example.com")])), ca=ca)
    verify_with_python_ssl(inside, ca, tmp_path, "www.example.com")
    for name in (x509.DNSName("example.org"), x509.IPAddress(ipaddress.ip_address("192.0.2.1"))):
        outside = mint(original(x509.SubjectAlternativeName([name])), ca=ca)
        with pytest.raises(ssl.SSLCertVerificationError, match="subtree violation"):
            verify_with_python_ssl(outside, ca, tmp_path, str(name.value))


def test_without_an_original_the_leaf_stands_for_the_name(tmp_path: Path) -> None:
    for name in ("example.com", "192.0.2.1", "2001:db8::1"):
        leaf = mint(None, name=name)
        verify_with_python_ssl(leaf, AUTHORITY, tmp_path, name)
        assert leaf.mirrored == leaf.not_mirrored == ()
    assert mint(None).certificate.subject == x509.Name([])
    assert mint(None, name="b\udcffücher").certificate.subject == x509.Name([])


def test_a_leaf_has_the_bytes_that_are_sent() -> None:
    for issuer, count in ((KNOWN, 2), (Unknown.ITSELF, 1), (Unknown.ISSUER, 1), (Unknown.ROOT, 2)):
        leaf = mint(original(NAMES), issuer=issuer)
        sent = [each.public_bytes(Encoding.DER) for each in (leaf.certificate, *leaf.chain)]
        assert leaf.chain_der == tuple(sent)
        assert len(sent) == count


async def test_what_follows_a_leaf_is_part_of_it() -> None:
    forge = Forge(AUTHORITY)
    shown, other = original(NAMES), original().public_bytes(Encoding.DER)
    authority = AUTHORITY.certificate.public_bytes(Encoding.DER)
    for sent in ((), (Part.AUTHORITY,), (Part.LEAF, other, Part.AUTHORITY)):
        leaf = await forge.leaf(shown, issuer=KNOWN, key_type=KeyType.EC_P256, sent=sent)
        ours: dict[Part | bytes, bytes] = {Part.LEAF: leaf.chain_der[0], Part.AUTHORITY: authority}
        assert leaf.chain_der[1:] == tuple(ours.get(each, each) for each in sent)


class TestTheForgeRemembers:
    async def test_simultaneous_askers_get_one_leaf(self) -> None:
        forge = Forge(AUTHORITY)
        leaves: list[Leaf] = []
        certificate = original(NAMES)

        async def ask() -> None:
            leaves.append(await forge.leaf(certificate, issuer=KNOWN, key_type=KeyType.RSA_2048))

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(ask)
        assert len(leaves) == 30
        assert len({id(leaf) for leaf in leaves}) == 1

    async def test_a_large_leaf_is_not_kept(self) -> None:
        forge, contexts = Forge(AUTHORITY), Contexts()
        cipher = "TLS_AES_128_GCM_SHA256"
        outcome = Outcome(version=0x0304, cipher=cipher, alpn=b"", extended_master_secret=True)
        for count, is_kept in ((100, True), (2000, False)):
            names = [x509.DNSName(f"host-{number}.example") for number in range(count)]
            certificate = original(x509.SubjectAlternativeName(names))
            leaves = [
                await forge.leaf(certificate, issuer=KNOWN, key_type=KeyType.EC_P256)
                for _ in range(2)
            ]
            assert (leaves[0] is leaves[1]) == is_kept
            first, second = (contexts.client_side(leaves[0], outcome) for _ in range(2))
            assert (first is second) == is_kept

    async def test_a_cancelled_asker_does_not_break_the_others(self) -> None:
        forge = Forge(AUTHORITY)
        leaves: list[Leaf] = []
        certificate = original(NAMES)

        async def ask(scope: trio.CancelScope) -> None:
            with scope:
                leaves.append(
                    await forge.leaf(certificate, issuer=KNOWN, key_type=KeyType.RSA_3072)
                )

        first, second = trio.CancelScope(), trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, first)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask, second)
            await trio.testing.wait_all_tasks_blocked()
            first.cancel()
        assert first.cancelled_caught
        assert len(leaves) == 1

    async def test_keys_are_made_once_and_shared(self) -> None:
        forge = Forge(AUTHORITY)
        await forge.prepare(KeyType.EC_P256, KeyType.RSA_2048)
        one = await forge.leaf(original(NAMES), issuer=KNOWN, key_type=KeyType.RSA_2048)
        two = await forge.leaf(original(), issuer=KNOWN, key_type=KeyType.RSA_2048)
        assert one is not two
        assert one.key is two.key is not AUTHORITY.key

    async def test_trust_key_type_and_original_tell_leaves_apart(self) -> None:
        forge = Forge(AUTHORITY)
        certificate = original(NAMES)
        leaf = await forge.leaf(certificate, issuer=KNOWN, key_type=KeyType.EC_P256)
        der = certificate.public_bytes(Encoding.DER)
        assert leaf is await forge.leaf(der, issuer=KNOWN, key_type=KeyType.EC_P256)
        assert leaf is not await forge.leaf(der, issuer=Unknown.ISSUER, key_type=KeyType.EC_P256)
        assert leaf is not await forge.leaf(der, issuer=KNOWN, key_type=KeyType.EC_P384)
        assert leaf is not await forge.leaf(original(), issuer=KNOWN, key_type=KeyType.EC_P256)

    async def test_the_least_recently_used_leaf_is_forgotten(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(forge_module, "CACHE_SIZE", 2)
        forge = Forge(AUTHORITY)

        async def ask(name: str) -> Leaf:
            return await forge.leaf(None, issuer=KNOWN, key_type=KeyType.EC_P256, name=name)

        a, b = await ask("a"), await ask("b")
        assert await ask("a") is a
        await ask("c")
        assert await ask("a") is a
        assert await ask("b") is not b


BASES = [
    original(NAMES).public_bytes(Encoding.DER),
    original(
        NAMES,
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
        x509.BasicConstraints(ca=True, path_length=3),
        key=rsa.generate_private_key(65537, 1024),
    ).public_bytes(Encoding.DER),
    original(key=ed448.Ed448PrivateKey.generate()).public_bytes(Encoding.DER),
    handmade(extensions=[(b"\x55\x1d\x25", b"\x30\x80\x00\x00"), (b"", b"")]),
]
KEY = trio.run(Forge(AUTHORITY)._keys.get, KeyType.EC_P256)
MINTER = forge_module._Signer.of(AUTHORITY)


def must_load(leaf: Leaf) -> None:
    """OpenSSL must take the leaf to serve it."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(leaf.certificate)
    context.use_privatekey(leaf.key)


@settings(max_examples=150)
@given(data=st.data(), base=st.sampled_from(BASES))
def test_a_mutated_original_makes_a_leaf_or_a_certificate_error(
    data: st.DataObject, base: bytes
) -> None:
    mutated = bytearray(base)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        mutated[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    try:
        leaf = forge_module._mint(Original.read(bytes(mutated)), KEY, MINTER, NOW, strict=True)
        key_type_of(bytes(mutated))
    except CertificateError:
        return
    assert leaf.certificate.public_key() == KEY.private.public_key()
    must_load(leaf)


@settings(max_examples=100)
@given(
    subject=st.binary(max_size=60).map(lambda content: tlv(SEQUENCE, content)),
    extensions=st.lists(
        st.tuples(
            st.sampled_from([b"\x55\x1d\x11", b"\x55\x1d\x25", b"\x55\x1d\x13"])
            | st.binary(max_size=40),
            st.binary(max_size=60),
        ),
        max_size=8,
    ),
)
def test_garbage_in_one_part_spoils_no_other(
    subject: bytes, extensions: list[tuple[bytes, bytes]]
) -> None:
    der = handmade(extensions=extensions)
    leaf = forge_module._mint(Original.read(der), KEY, MINTER, NOW, strict=True)
    assert leaf.certificate.subject == SUBJECT
    must_load(leaf)
    names = dict(reversed(extensions)).get(b"\x55\x1d\x11")
    assert Original.read(leaf.certificate).extension(b"\x55\x1d\x11") == (names or None)
    leaf = forge_module._mint(
        Original.read(handmade(subject=subject)), KEY, MINTER, NOW, strict=True
    )
    must_load(leaf)
    kept = Original.read(leaf.certificate).subject
    assert (kept == subject) == ("subject" in leaf.mirrored)
    assert kept in (subject, tlv(SEQUENCE))


@given(st.binary(max_size=200))
def test_random_bytes_are_a_certificate_error_at_most(noise: bytes) -> None:
    try:
        Original.read(noise)
    except CertificateError as error:
        assert "\n" not in error.message  # noqa: PT017 — either outcome is right


def test_every_ca_key_can_be_named() -> None:
    assert set(CA_KEYS.values()) <= set(KeyType)


def test_der_lengths_of_every_size_are_read_as_written() -> None:
    for size in (0, 1, 127, 128, 255, 256, 65535, 65536):
        (element,) = elements(tlv(OCTET_STRING, bytes(size)))
        assert (element.tag, len(element.content)) == (OCTET_STRING, size)
