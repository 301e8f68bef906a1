"""NSS itself reads what is written, and takes out of a database what Firefox puts in."""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.nss_database import (
    CERTIFICATES_FILE,
    MODULES_FILE,
    initial_modules,
    modules_with,
    remove_certificate,
    trusting_database,
)
from mitml4.tls.trust_store import certificates_in


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority.generate()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A user's own, as NSS makes it, with an empty password."""
    directory = tmp_path / "nssdb"
    directory.mkdir()
    certutil("-N", "--empty-password", directory=directory)
    return directory


def certutil(*arguments: str, directory: Path, given: bytes = b"") -> str:
    argv = ["certutil", "-d", f"sql:{directory}", *arguments]
    return subprocess.run(argv, input=given, capture_output=True, check=True).stdout.decode()


def trusted(directory: Path) -> dict[str, str]:
    """Name, with its token's, and what for."""
    rows = [
        line.rsplit(maxsplit=1)
        for line in certutil("-L", "-h", "all", directory=directory).splitlines()
    ]
    return {row[0]: row[1] for row in rows if len(row) == 2 and row[1].count(",") == 2}


def test_nss_trusts_the_root_of_a_second_database_and_leaves_the_first_as_it_was(
    authority, database: Path, tmp_path: Path
) -> None:
    ours = tmp_path / "ours"
    ours.mkdir()
    for name, content in trusting_database(authority.certificate).items():
        (ours / name).write_bytes(content)
    modules = database / MODULES_FILE
    modules.write_bytes(modules_with(modules.read_bytes(), ours))
    before = {file: file.read_bytes() for file in database.iterdir()}
    assert trusted(database) == {"mitml4:mitml4": "C,,"}
    shown = certutil("-L", "-a", "-h", "mitml4", "-n", "mitml4:mitml4", directory=database)
    der = authority.certificate.public_bytes(Encoding.DER)
    assert list(certificates_in(shown.encode())) == [der]
    assert {file: file.read_bytes() for file in database.iterdir()} == before


def test_the_list_of_modules_is_the_one_that_nss_makes(database: Path) -> None:
    made = (database / MODULES_FILE).read_bytes()
    as_browsers_ask = made.replace(b"flags= ", b"flags=optimizeSpace ")
    assert initial_modules(database) == as_browsers_ask


def test_only_the_one_certificate_is_removed_and_all_that_goes_with_it(
    authority, database: Path
) -> None:
    other = CertificateAuthority.generate(name="another root").certificate
    before = signatures(database)
    for name, certificate in (("other", other), ("ours", authority.certificate)):
        pem = certificate.public_bytes(Encoding.PEM)
        certutil("-A", "-a", "-t", "C,,", "-n", name, directory=database, given=pem)
        before = before or signatures(database)
    remove_certificate(database, authority.certificate)
    remove_certificate(database, authority.certificate)
    assert trusted(database) == {"other": "C,,"}
    assert signatures(database) == before
    with sqlite3.connect(database / CERTIFICATES_FILE) as connection:
        assert connection.execute("SELECT count(*) FROM nssPublic").fetchone() == (2,)
    connection.close()


def signatures(database: Path) -> set[str]:
    with sqlite3.connect(database / "key4.db") as connection:
        found = connection.execute("SELECT id FROM metaData WHERE id LIKE 'sig_%'").fetchall()
    connection.close()
    return {name for (name,) in found}
