"""What browsers are shown; that they believe it is tested end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mitml4.errors import MachineError
from mitml4.session.command import browsers
from mitml4.session.command.browsers import BrowserTrust
from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.nss_database import initial_modules

PLACE = Path("/etc/ssl/certs")


class Shown:
    """A namespace that takes note."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.covered: dict[Path, tuple[Path, bytes | None]] = {}
        self.furnished: dict[Path, dict[str, bytes]] = {}
        self.extended: list[tuple[Path, str]] = []
        self.refuses = refuses

    def cover(self, file: Path, source: Path, *, stopgap: bytes | None = None) -> None:
        if self.refuses:
            raise MachineError("no")
        self.covered[file] = source, stopgap

    def mount_files(self, directory: Path, files: dict[str, bytes]) -> None:
        if self.refuses:
            raise MachineError("no")
        self.furnished[directory] = files

    def extend(self, directory: Path, name: str) -> None:
        self.extended.append((directory, name))


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority.generate()


@pytest.fixture
def home(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr(browsers, "_APPLICATIONS", (f"{tmp_path}/opt/*",))
    monkeypatch.setattr(browsers, "_SYSTEM_POLICIES", f"{tmp_path}/etc/*/policies")
    home = tmp_path / "home"
    home.mkdir()
    return home


def show(authority, home: Path, *argv: str) -> tuple[Shown, dict[str, bytes]]:
    environ = {"HOME": str(home), "PATH": ""}
    trust = BrowserTrust([authority.certificate], environ, argv or ("true",), PLACE)
    shown: Any = Shown()
    trust.show(shown)
    return shown, trust.files


def test_a_profile_keeps_its_modules_and_gets_ours(authority, home: Path) -> None:
    profile = home / ".mozilla/firefox/abc.default"
    named = home / "named"
    for directory in (profile, named):
        directory.mkdir(parents=True)
        (directory / "cert9.db").write_bytes(b"")
        (directory / "pkcs11.txt").write_bytes(b"library=\nname=theirs\n")
    shown, files = show(authority, home, "firefox", f"--profile={named}")
    for directory in (profile, named):
        source, stopgap = shown.covered[directory / "pkcs11.txt"]
        content = files[str(source.relative_to(PLACE))]
        assert content.startswith(b"library=\nname=theirs\n\nlibrary=")
        assert b"sql:/etc/ssl/certs/mitml4-nss'" in content
        assert stopgap is None


def test_a_list_of_modules_that_leads_elsewhere_is_not_read(authority, home, tmp_path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "secret").chmod(0o666)
    (home / ".pki/nssdb").mkdir(parents=True)
    (home / ".pki/nssdb/cert9.db").write_bytes(b"")
    (home / ".pki/nssdb/pkcs11.txt").symlink_to(tmp_path / "secret")
    shown, files = show(authority, home)
    assert shown.covered == {}
    assert not any(b"secret" in content for content in files.values())


def test_chromiums_list_of_modules_is_made_as_chromium_would_make_it(authority, home) -> None:
    shown, _ = show(authority, home)
    directory = home / ".local/share/pki/nssdb"
    _, stopgap = shown.covered[directory / "pkcs11.txt"]
    assert stopgap == initial_modules(directory)


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        (None, {}),
        ("{", {}),
        ("[]", {}),
        ('{"policies": null}', {}),
        ('{"policies": {"Certificates": {"Install": "x"}}}', {}),
        ('{"policies": {"A": 1}}', {"A": 1}),
        ('{"policies": {"Certificates": {"Install": ["x"]}}}', {}),
    ],
)
def test_the_policy_is_added_to_those_that_are_there(authority, home, before, kept) -> None:
    program = home.parent / "opt/firefox"
    program.mkdir(parents=True)
    (program / "application.ini").write_text("")
    if before is not None:
        (program / "distribution").mkdir()
        (program / "distribution/policies.json").write_text(before)
    shown, _ = show(authority, home)
    (policies,) = (json.loads(each["policies.json"]) for each in shown.furnished.values())
    installed = policies["policies"].pop("Certificates")["Install"]
    assert installed[-1] == "/etc/ssl/certs/mitml4-nss/ca-0.pem"
    assert installed[:-1] == (["x"] if before and '["x"]' in before else [])
    assert policies["policies"] == kept
    assert shown.extended == ([(program, "distribution")] if before is None else [])


def test_policies_of_the_system_are_added_to_as_they_come_first(authority, home) -> None:
    directory = home.parent / "etc/firefox/policies"
    directory.mkdir(parents=True)
    assert directory not in show(authority, home)[0].furnished
    (directory / "policies.json").write_text("{}")
    assert directory in show(authority, home)[0].furnished


def test_what_a_machine_does_not_allow_is_left_out(authority, home: Path) -> None:
    environ = {"HOME": str(home), "PATH": ""}
    refusing: Any = Shown(refuses=True)
    BrowserTrust([authority.certificate], environ, ("true",), PLACE).show(refusing)
