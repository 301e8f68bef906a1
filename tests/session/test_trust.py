"""What a command is given so that it trusts the session's authority."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.errors import MachineError
from mitml4.session import trust
from mitml4.session.trust import CommandTrust
from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.java_keystore import read_truststore


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority.generate()


@pytest.fixture
def system(tmp_path: Path, monkeypatch) -> Path:
    """A system whose roots are in a directory as Debian has it, behind a symbolic link."""
    directory = tmp_path / "extracted"
    (directory / "java").mkdir(parents=True)
    (directory / "java/cacerts").write_bytes(b"")
    (directory / "0a1b2c3d.0").write_text("")
    other = CertificateAuthority.generate(name="another root").certificate
    (directory / "bundle.pem").write_bytes(other.public_bytes(Encoding.PEM))
    link = tmp_path / "link.pem"
    link.symlink_to(directory / "bundle.pem")
    monkeypatch.setattr(trust, "system_bundle", lambda: link)
    return directory


def test_the_systems_bundle_is_replaced_where_it_really_is(system: Path, authority) -> None:
    given = CommandTrust.of(authority.certificate, {})
    assert given.directory == system
    assert given.environ["SSL_CERT_FILE"] == str(system / "bundle.pem")
    context = ssl.create_default_context(cadata=given.files["bundle.pem"].decode())
    subjects = [str(root["subject"]) for root in context.get_ca_certs()]
    assert any("mitml4 CA of" in subject for subject in subjects)


def test_what_the_environment_trusts_stays_trusted(system: Path, authority, tmp_path) -> None:
    company = CertificateAuthority.generate(name="a company's root").certificate
    file = tmp_path / "company.pem"
    file.write_bytes(company.public_bytes(Encoding.PEM))
    given = CommandTrust.of(authority.certificate, {"REQUESTS_CA_BUNDLE": str(file), "A": "b"})
    assert company.public_bytes(Encoding.PEM) in given.files["bundle.pem"]
    assert given.environ["REQUESTS_CA_BUNDLE"] == str(system / "bundle.pem")
    assert given.environ["A"] == "b"


def test_a_directory_of_roots_does_not_stand_beside_the_bundle(system: Path, authority) -> None:
    assert (
        "SSL_CERT_DIR" not in CommandTrust.of(authority.certificate, {"SSL_CERT_DIR": "/"}).environ
    )


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_finds_it_in_the_hashed_directory(system: Path, authority, tmp_path) -> None:
    given = CommandTrust.of(authority.certificate, {})
    place = tmp_path / "hashed"
    place.mkdir()
    (hashed,) = [name for name in given.files if name.endswith(".0")]
    (place / hashed).write_bytes(given.files[hashed])
    (place / "leaf.pem").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    argv = ["openssl", "verify", "-no-CAfile", "-CApath", str(place), str(place / "leaf.pem")]
    assert subprocess.run(argv, capture_output=True).returncode == 0


def test_javas_own_store_is_replaced_by_one_that_needs_no_password(system, authority) -> None:
    store = CommandTrust.of(authority.certificate, {}).files["java/cacerts"]
    assert authority.certificate.public_bytes(Encoding.DER) in read_truststore(store, "")


@pytest.mark.skipif(shutil.which("keytool") is None, reason="keytool is not installed")
@pytest.mark.parametrize("password", ["", "changeit"])
def test_java_reads_that_store(system: Path, authority, tmp_path: Path, password: str) -> None:
    file = tmp_path / "cacerts"
    file.write_bytes(CommandTrust.of(authority.certificate, {}).files["java/cacerts"])
    argv = ["keytool", "-list", "-keystore", str(file), "-storepass", password or "changeit"]
    if not password:
        argv[-2:] = []
    done = subprocess.run(argv, input="\n", capture_output=True, text=True, env=_environ())
    assert "trustedCertEntry" in done.stdout


def test_a_system_without_roots_gets_ours_in_a_directory_that_is_there(
    monkeypatch, authority
) -> None:
    monkeypatch.setattr(trust, "system_bundle", lambda: None)
    given = CommandTrust.of(authority.certificate, {})
    assert given.directory == Path("/etc/ssl")
    assert given.environ["CURL_CA_BUNDLE"] == "/etc/ssl/mitml4-bundle.pem"


def test_a_system_without_any_place_is_told_what_to_do(monkeypatch, authority, tmp_path) -> None:
    monkeypatch.setattr(trust, "system_bundle", lambda: None)
    monkeypatch.setattr(trust, "_WITHOUT_BUNDLE", tmp_path / "missing")
    with pytest.raises(MachineError) as raised:
        CommandTrust.of(authority.certificate, {})
    assert "--no-trust" in str(raised.value.hint)


def _environ() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LC_ALL": "C"}
