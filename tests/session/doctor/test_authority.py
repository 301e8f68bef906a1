"""Authorities that are there, are not, or cannot be used; and who trusts them."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.errors import CertificateError
from mitml4.session.doctor import authority as module
from mitml4.session.doctor.authority import check_authority
from mitml4.session.doctor.check import Check
from mitml4.tls.ca import KEY_FILE, CertificateAuthority


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with an authority in it."""
    directory = tmp_path / "its place"
    CertificateAuthority.generate(name="Test").save(directory)
    return directory


def checks(directory: Path | None) -> dict[str, Check]:
    return {check.name: check for check in check_authority(directory)}


def test_one_that_is_not_there_yet_is_no_failure(tmp_path: Path) -> None:
    (check,) = checks(tmp_path).values()
    assert check.state == "skip"
    assert "first session makes one" in check.found


def test_one_that_can_be_used_tells_its_name_place_and_end(place: Path) -> None:
    found = checks(place)["authority"]
    assert found.state == "ok"
    assert found.found.startswith(f"CN=Test in {place}, valid until 20")
    assert "(824 days)" in found.found or "(825 days)" in found.found


def test_a_key_that_others_can_read_has_its_remedy(place: Path) -> None:
    (place / KEY_FILE).chmod(0o644)
    (check,) = checks(place).values()
    assert check.state == "fail"
    assert check.remedy == (f"chmod 600 '{place / KEY_FILE}'",)


def test_a_directory_that_others_can_write_to_has_its_remedy(place: Path) -> None:
    place.chmod(0o777)
    check = checks(place)["authority"]
    assert check.state == "fail"
    assert check.remedy == (f"chmod 700 '{place}'",)


def test_one_that_is_broken_has_its_remedy(place: Path) -> None:
    (place / KEY_FILE).write_text("no key")
    (check,) = checks(place).values()
    assert check.state == "fail"
    assert check.remedy == (f"mitml4 ca generate --ca-dir '{place}' --force",)


def test_whether_the_system_trusts_it_is_told(place: Path, monkeypatch) -> None:
    certificate = CertificateAuthority.load(place).certificate
    monkeypatch.setattr(module, "_roots_of_system", list)
    not_trusted = checks(place)["trust"]
    assert not_trusted.state == "skip"
    assert not_trusted.remedy[0].endswith(f"mitml4 ca install --ca-dir '{place}'")
    roots = [certificate.public_bytes(Encoding.DER)]
    monkeypatch.setattr(module, "_roots_of_system", lambda: roots)
    assert checks(place)["trust"].state == "ok"


def test_the_system_has_roots_of_which_ours_is_none(place: Path) -> None:
    ours = CertificateAuthority.load(place).certificate.public_bytes(Encoding.DER)
    assert ours not in module._roots_of_system()


def test_a_user_without_a_home_is_no_failure(monkeypatch) -> None:
    def homeless() -> Path:
        raise CertificateError("this user has no home directory")

    monkeypatch.setattr(module, "default_directory", homeless)
    (check,) = checks(None).values()
    assert check.state == "skip"
    assert check.remedy == ("mitml4 ca generate --ca-dir ./mitml4-ca",)
