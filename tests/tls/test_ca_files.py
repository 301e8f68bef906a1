"""The files of the certificate, read by those that they are for."""

from __future__ import annotations

import plistlib
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.ca_files import FORMATS, write_certificate

CA = CertificateAuthority.generate(name="Ünïcode <&> CA")
DER = CA.certificate.public_bytes(Encoding.DER)
PEM = CA.certificate.public_bytes(Encoding.PEM)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for form in FORMATS:
        found[form] = tmp_path / form
        found[form].write_bytes(write_certificate(CA.certificate, form))
    return found


def said(*argv: str | Path) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def test_openssl_reads_pem_der_and_p12(files: dict[str, Path]) -> None:
    for form, inform in (("pem", "PEM"), ("der", "DER")):
        argv = ("openssl", "x509", "-inform", inform, "-in", files[form], "-outform", "PEM")
        assert said(*argv).encode() == PEM
    p12 = said("openssl", "pkcs12", "-in", files["p12"], "-passin", "pass:changeit", "-nokeys")
    assert PEM.decode() in p12


def test_keytool_reads_pem_der_and_p12(files: dict[str, Path]) -> None:
    fingerprint = ":".join(CA.sha256[at : at + 2].upper() for at in range(0, 64, 2))
    for form in ("pem", "der"):
        assert fingerprint in said("keytool", "-printcert", "-file", files[form])
    listed = said("keytool", "-list", "-keystore", files["p12"], "-storepass", "changeit")
    assert fingerprint in listed
    assert "trustedCertEntry" in listed


def test_nss_takes_pem_and_der(files: dict[str, Path], tmp_path: Path) -> None:
    for form in ("pem", "der"):
        database = tmp_path / f"nss-{form}"
        database.mkdir()
        where = ("-d", f"sql:{database}")
        said("certutil", "-N", *where, "--empty-password")
        said("certutil", "-A", *where, "-t", "C,,", "-n", "mitml4", "-i", files[form])
        assert "C,," in said("certutil", "-L", *where)


def test_the_profile_has_one_root_and_replaces_itself(files: dict[str, Path]) -> None:
    content = files["mobileconfig"].read_bytes()
    profile = plistlib.loads(content)
    (root,) = profile["PayloadContent"]
    assert profile["PayloadType"] == "Configuration"
    assert (root["PayloadType"], root["PayloadContent"]) == ("com.apple.security.root", DER)
    assert root["PayloadDisplayName"] == "Ünïcode <&> CA"
    keys = {"PayloadType", "PayloadVersion", "PayloadIdentifier", "PayloadUUID"}
    for each in (profile, root):
        assert each.keys() >= keys
    assert len({each["PayloadUUID"] for each in (profile, root)}) == 2
    assert write_certificate(CA.certificate, "mobileconfig") == content
    other = CertificateAuthority.generate().certificate
    other = plistlib.loads(write_certificate(other, "mobileconfig"))
    assert other["PayloadUUID"] != profile["PayloadUUID"]


def test_no_file_contains_the_key(files: dict[str, Path]) -> None:
    secret = CA.key.private_numbers().private_value.to_bytes(32, "big")  # type: ignore[union-attr]
    for path in files.values():
        content = path.read_bytes()
        assert secret not in content
        assert b"PRIVATE" not in content
