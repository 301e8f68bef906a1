"""What a command is given so that it trusts the session's authority."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.errors import MachineError
from mitml4.session.command import trust
from mitml4.session.command.roots import Authorities, CommandRoots
from mitml4.session.command.trust import CommandTrust
from mitml4.tls import trust_store
from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.java_keystore import read_truststore
from mitml4.tls.trust_store import certificates_in

ONE = "mitml4-roots/1.pem"


def trust_in(environ: Mapping[str, str]) -> tuple[CommandTrust, Authorities]:
    roots = CommandRoots(environ)
    authorities = Authorities.of(len(roots.sets))
    return CommandTrust.of(roots, authorities, environ), authorities


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
    monkeypatch.setattr(trust_store, "system_bundle", lambda: link)
    monkeypatch.setattr(trust_store, "_MOZILLA", tmp_path)
    monkeypatch.setattr(trust_store, "_JAVA_STORES", ())
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    return directory


def test_the_systems_bundle_is_replaced_where_it_really_is(system: Path) -> None:
    given, _ = trust_in({})
    assert given.directory == system
    assert given.environ["SSL_CERT_FILE"] == str(system / "bundle.pem")
    context = ssl.create_default_context(cadata=given.files["bundle.pem"].decode())
    subjects = [str(root["subject"]) for root in context.get_ca_certs()]
    assert any("mitml4 CA of" in subject for subject in subjects)


def test_what_the_environment_trusts_stays_trusted_by_those_that_it_is_for(
    system: Path, tmp_path: Path
) -> None:
    company = CertificateAuthority.generate(name="a company's root").certificate
    file = tmp_path / "company.pem"
    file.write_bytes(company.public_bytes(Encoding.PEM))
    given, authorities = trust_in({"REQUESTS_CA_BUNDLE": str(file), "A": "b"})
    assert given.environ["REQUESTS_CA_BUNDLE"] == str(system / "mitml4-roots/1.pem")
    assert given.environ["CURL_CA_BUNDLE"] == str(system / "bundle.pem")
    assert given.environ["A"] == "b"
    usual, named = (list(certificates_in(given.files[name])) for name in ("bundle.pem", ONE))
    company_der = company.public_bytes(Encoding.DER)
    assert company_der in named
    assert company_der not in usual
    ours = {frozenset(sets): each.certificate for sets, each in authorities.by_sets.items()}
    for sets, certificate in ours.items():
        der = certificate.public_bytes(Encoding.DER)
        assert ((der in usual), (der in named)) == ((0 in sets), (1 in sets))


def test_a_program_with_roots_of_its_own_gets_ours_and_no_others(system: Path) -> None:
    given, authorities = trust_in({})
    name = given.environ["NODE_EXTRA_CA_CERTS"].removeprefix(f"{system}/")
    assert list(certificates_in(given.files[name])) == [
        authorities.widest.certificate.public_bytes(Encoding.DER)
    ]
    assert given.builtin == (authorities.widest.certificate,)


def test_a_directory_of_roots_is_shown_with_ours(system: Path, tmp_path: Path) -> None:
    company = CertificateAuthority.generate(name="a company's root").certificate
    directory = tmp_path / "roots"
    directory.mkdir()
    (directory / "company.pem").write_bytes(company.public_bytes(Encoding.PEM))
    subprocess.run(["openssl", "rehash", str(directory)], check=True, capture_output=True)
    given, authorities = trust_in({"SSL_CERT_DIR": f"{directory}:/nowhere"})
    assert "SSL_CERT_FILE" not in given.environ
    place = given.environ["SSL_CERT_DIR"].removeprefix(f"{system}/")
    shown = tmp_path / "shown"
    shown.mkdir()
    for name, content in given.files.items():
        if name.startswith(f"{place}/"):
            (shown / Path(name).name).write_bytes(content)
    names = {each.name for each in shown.iterdir()}
    assert {name for name in names if name.endswith(".pem")} == {  # which Guile reads
        f"{name}.pem" for name in names if not name.endswith(".pem")
    }
    for number, certificate in enumerate([company, authorities.widest.certificate]):
        leaf = tmp_path / f"{number}.pem"
        leaf.write_bytes(certificate.public_bytes(Encoding.PEM))
        argv = ["openssl", "verify", "-no-CAfile", "-CApath", str(shown), str(leaf)]
        assert subprocess.run(argv, capture_output=True).returncode == 0


def test_openssl_finds_it_in_the_hashed_directory(system: Path, tmp_path) -> None:
    given, authorities = trust_in({})
    place = tmp_path / "hashed"
    place.mkdir()
    (hashed,) = [name for name in given.files if name.endswith(".0")]
    assert given.files[f"{hashed}.pem"] == given.files[hashed]  # which Guile reads
    (place / hashed).write_bytes(given.files[hashed])
    certificate = authorities.widest.certificate
    (place / "leaf.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    argv = ["openssl", "verify", "-no-CAfile", "-CApath", str(place), str(place / "leaf.pem")]
    assert subprocess.run(argv, capture_output=True).returncode == 0


def test_javas_own_store_is_replaced_by_one_that_needs_no_password(system) -> None:
    given, authorities = trust_in({})
    store = given.files["java/cacerts"]
    assert authorities.widest.certificate.public_bytes(Encoding.DER) in read_truststore(store, "")


@pytest.mark.parametrize("password", ["", "changeit"])
def test_java_reads_that_store(system: Path, tmp_path: Path, password: str) -> None:
    file = tmp_path / "cacerts"
    file.write_bytes(trust_in({})[0].files["java/cacerts"])
    argv = ["keytool", "-list", "-keystore", str(file), "-storepass", password or "changeit"]
    if not password:
        argv[-2:] = []
    done = subprocess.run(argv, input="\n", capture_output=True, text=True, env=_environ())
    assert "trustedCertEntry" in done.stdout


def test_a_system_without_roots_gets_ours_in_a_directory_that_is_there(
    monkeypatch,
) -> None:
    monkeypatch.setattr(trust, "system_bundle", lambda: None)
    given, _ = trust_in({})
    assert given.directory == Path("/etc/ssl")
    assert given.environ["CURL_CA_BUNDLE"] == "/etc/ssl/mitml4-bundle.pem"


def test_a_system_without_any_place_is_told_what_to_do(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(trust, "system_bundle", lambda: None)
    monkeypatch.setattr(trust, "_WITHOUT_BUNDLE", tmp_path / "missing")
    with pytest.raises(MachineError) as raised:
        trust_in({})
    assert "--no-trust" in str(raised.value.hint)


def _environ() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LC_ALL": "C"}
