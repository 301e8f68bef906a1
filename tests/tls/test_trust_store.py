"""Roots are gathered from everywhere, each once, and Java's stores are read and written."""

from __future__ import annotations

import ssl
import struct
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from hypothesis import given
from hypothesis import strategies as st

from mitml4.tls import trust_store
from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.java_keystore import (
    jks_order,
    read_truststore,
    reorder_jks,
    write_jks,
    write_truststore,
)
from mitml4.tls.trust_store import (
    BUNDLE_VARIABLES,
    java_roots,
    merged_bundle,
    roots,
    trust_variables,
    write_trust,
)

AUTHORITIES = [CertificateAuthority.generate(name=name).certificate for name in "abcd"]
A, B, C, D = DERS = [each.public_bytes(Encoding.DER) for each in AUTHORITIES]


def jks(*certificates: bytes, key: bytes | None = None) -> bytes:
    def block(form: str, content: bytes) -> bytes:
        return struct.pack(form, len(content)) + content

    entries = [
        struct.pack(">I", 2) + block(">H", b"x") + bytes(8) + block(">H", b"X.509") + block(">I", c)
        for c in certificates
    ]
    if key is not None:
        chain = struct.pack(">I", 1) + block(">H", b"X.509") + block(">I", b"not to be trusted")
        entries.insert(
            0, struct.pack(">I", 1) + block(">H", b"k") + bytes(8) + block(">I", key) + chain
        )
    head = b"\xfe\xed\xfe\xed" + struct.pack(">II", 2, len(entries))
    return head + b"".join(entries) + bytes(20)


KEY_STORE = jks(A, key=b"secret")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system whose only root is A, and where no Java is."""
    bundle = tmp_path / "system.pem"
    bundle.write_bytes(b"# A root\n" + merged_bundle([A]))
    monkeypatch.setattr(trust_store, "_SYSTEM_BUNDLES", (tmp_path / "absent", bundle))
    monkeypatch.setattr(trust_store, "_JAVA_STORES", ())
    return bundle


def test_the_systems_and_all_inherited_roots_are_gathered_once(
    system: Path, tmp_path: Path
) -> None:
    (tmp_path / "company.pem").write_bytes(merged_bundle([B, A]))
    (tmp_path / "hashed").mkdir()
    (tmp_path / "hashed" / "deadbeef.0").write_bytes(merged_bundle([C]))
    (tmp_path / "hashed" / "README").write_bytes(merged_bundle([D]))
    environ = {
        "REQUESTS_CA_BUNDLE": str(tmp_path / "company.pem"),
        "CURL_CA_BUNDLE": str(tmp_path / "company.pem"),
        "PIP_CERT": str(tmp_path / "missing.pem"),
        "SSL_CERT_DIR": f":{tmp_path / 'absent'}:{tmp_path / 'hashed'}",
    }
    assert roots(environ) == [A, B, C]
    assert roots({}) == [A]
    assert roots(environ, besides=tmp_path / "company.pem") == [A, C]


def test_what_is_no_certificate_in_a_bundle_is_passed_over(system: Path) -> None:
    system.write_bytes(
        b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n" + merged_bundle([B])
    )
    assert roots({}) == [B]


def test_what_openssl_reads_as_trusted_for_everything_is_a_root(system: Path) -> None:
    limits = bytes.fromhex("300c300a06082b06010505070301")  # -addtrust serverAuth
    kinds = [(b"X509 CERTIFICATE", A), (b"TRUSTED CERTIFICATE", B)]
    kinds += [(b"TRUSTED CERTIFICATE", C + limits), (b"TRUSTED CERTIFICATE", b"A")]
    named = [merged_bundle([der]).replace(b"CERTIFICATE", kind) for kind, der in kinds]
    system.write_bytes(b"".join(named))
    assert roots({}) == [A, B]


def test_a_system_without_roots_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust_store, "_SYSTEM_BUNDLES", ())
    assert roots({}) == []


def test_a_merged_bundle_is_what_openssl_reads(tmp_path: Path) -> None:
    bundle = merged_bundle([A, B, A]).decode("ascii")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=bundle)
    assert context.cert_store_stats()["x509_ca"] == 2
    assert max(map(len, bundle.splitlines())) == 64


def test_every_variable_names_the_bundle() -> None:
    variables = trust_variables({}, bundle=Path("/d/b.pem"), truststore=Path("/d/t.p12"))
    assert {variables[name] for name in BUNDLE_VARIABLES} == {"/d/b.pem"}
    assert set(variables) == {*BUNDLE_VARIABLES, "JAVA_TOOL_OPTIONS"}


def test_javas_options_go_behind_those_that_stand_there_once() -> None:
    environ = {"JAVA_TOOL_OPTIONS": "-Xmx1g"}
    for _ in range(2):
        environ = trust_variables(environ, bundle=Path("/b"), truststore=Path("/a b/t.p12"))
    assert environ["JAVA_TOOL_OPTIONS"] == (
        '-Xmx1g -Djavax.net.ssl.trustStore="/a b/t.p12"'
        " -Djavax.net.ssl.trustStorePassword=changeit -Djavax.net.ssl.trustStoreType=PKCS12"
    )


class TestJavasRoots:
    def test_an_inherited_store_comes_first(self, system: Path, tmp_path: Path) -> None:
        (tmp_path / "company.p12").write_bytes(write_truststore([B], "secret"))
        home = tmp_path / "jdk"
        (home / "lib/security").mkdir(parents=True)
        (home / "lib/security/cacerts").write_bytes(jks(C, D))
        environ = {"JAVA_HOME": str(home), "PATH": ""}
        assert java_roots(environ) == [C, D]
        environ["JAVA_TOOL_OPTIONS"] = (
            f"-Djavax.net.ssl.trustStore={tmp_path}/company.p12"
            " -Djavax.net.ssl.trustStorePassword=secret"
        )
        assert java_roots(environ) == [B]
        assert java_roots(environ, besides=tmp_path / "company.p12") == [C, D]

    def test_without_java_there_are_none(self, system: Path) -> None:
        assert java_roots({"PATH": ""}) == []

    def test_a_store_that_cannot_be_read_is_passed_over(self, system: Path, tmp_path: Path) -> None:
        (tmp_path / "lib/security").mkdir(parents=True)
        (tmp_path / "lib/security/cacerts").write_bytes(b"what?")
        assert java_roots({"JAVA_HOME": str(tmp_path), "PATH": ""}) == []


class TestStores:
    def test_a_jks_gives_its_trusted_certificates_and_no_key(self) -> None:
        assert read_truststore(jks(A, B, key=b"secret")) == [A, B]

    def test_a_pkcs12_is_read_as_written(self) -> None:
        assert read_truststore(write_truststore([A, B, b"no certificate"])) == [A, B]
        with pytest.raises(ValueError, match="another password"):
            read_truststore(write_truststore([A], "secret"))

    def test_the_certificate_of_a_key_is_not_trusted(self) -> None:
        ca = CertificateAuthority.generate()
        encryption = BestAvailableEncryption(b"changeit")
        store = serialize_key_and_certificates(
            b"k", ca.key, ca.certificate, AUTHORITIES[:1], encryption
        )
        assert read_truststore(store) == [A]

    @given(
        st.binary(max_size=40) | st.integers(0, len(KEY_STORE) - 21).map(lambda n: KEY_STORE[:n])
    )
    def test_a_broken_store_is_a_value_error(self, data: bytes) -> None:
        with pytest.raises(ValueError, match=r"."):
            read_truststore(data)

    def test_java_trusts_each_certificate(self, tmp_path: Path) -> None:
        (tmp_path / "t.p12").write_bytes(write_truststore([A, B]))
        command = [
            "keytool",
            "-list",
            "-keystore",
            str(tmp_path / "t.p12"),
            "-storepass",
            "changeit",
        ]
        listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert listing.count("trustedCertEntry") == 2


def test_ours_is_in_the_bundle_and_in_javas_store(system: Path, tmp_path: Path) -> None:
    environ = {"PATH": ""}
    for ours in (C, D):  # what an earlier authority of ours left in the shell is no root
        certificate = AUTHORITIES[DERS.index(ours)]
        environ |= write_trust(certificate, tmp_path, environ)
        assert Path(environ["SSL_CERT_FILE"]).read_bytes() == merged_bundle([A, ours])
        store = (tmp_path / trust_store.TRUSTSTORE_FILE).read_bytes()
        assert read_truststore(store) == [A, ours]


class TestOrderOfAJks:
    def test_a_jks_is_put_back_into_its_order_byte_by_byte(self) -> None:
        store = write_jks([A, B, C])
        order = jks_order(store)
        assert order == ["mitml4-0", "mitml4-1", "mitml4-2"]
        shuffled = reorder_jks(store, reversed(order))
        assert read_truststore(shuffled) == [C, B, A]
        assert reorder_jks(shuffled, order) == store

    def test_what_came_in_between_stays_and_goes_to_the_end(self) -> None:
        store = write_jks([A, B, C])
        assert read_truststore(reorder_jks(store, ["mitml4-2"])) == [C, A, B]

    def test_a_store_with_another_password_is_not_touched(self) -> None:
        with pytest.raises(ValueError, match="another password"):
            reorder_jks(jks(A, B), [])

    def test_a_pkcs12_has_no_order_to_keep(self) -> None:
        assert jks_order(write_truststore([A])) is None
