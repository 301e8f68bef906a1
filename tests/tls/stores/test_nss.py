"""Databases that are there, and Chromium's where it has not made one."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.tls.stores import installation
from mitml4.tls.stores.installation import find_stores, install, states, uninstall
from mitml4.tls.stores.nss import NssStore
from mitml4.tls.stores.record import Record
from mitml4.tls.stores.store import Kind


@pytest.fixture
def environ(tmp_path: Path, monkeypatch) -> dict[str, str]:
    """Of a user whose home is new, on a machine without browsers."""
    home, programs = tmp_path / "home", tmp_path / "programs"
    for directory in (home, programs):
        directory.mkdir()
    monkeypatch.setattr("mitml4.tls.stores.nss.home", lambda: home)
    return {"PATH": str(programs)}


@pytest.fixture
def have(environ):
    """Put programs on the machine."""

    def put(*names: str) -> None:
        for name in names:
            program = Path(environ["PATH"], name)
            program.write_text("#!/bin/sh\n")
            program.chmod(0o755)

    return put


def places(environ) -> list[Path]:
    return [store.place for store in NssStore.find(environ)]


@pytest.mark.parametrize("browser", ["chromium", "google-chrome-stable", "brave-browser"])
@pytest.mark.parametrize("data", [None, "data"])
def test_chromiums_database_is_made_trusts_and_can_be_cleared(
    environ, have, authorities, source, tmp_path: Path, browser, data
) -> None:
    have(browser)
    place = tmp_path / "home/.local/share/pki/nssdb"
    if data:
        environ["XDG_DATA_HOME"] = str(tmp_path / data)
        place = tmp_path / data / "pki/nssdb"
    before = sorted(tmp_path.rglob("*"))
    stores, record = find_stores([Kind.NSS], environ), Record(source.parent)
    sha256 = authorities[0].sha256
    (state,) = states(sha256, stores, ())
    assert (state.place, state.trusted) == (str(place), False)
    assert not place.exists()

    said: list[str] = []
    install(
        authorities[0].certificate, source, stores, record, said.append, dry_run=False, as_root=""
    )
    assert said[1].startswith("mkdir -p")
    assert "-N --empty-password" in said[2]
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert [each.trusted for each in states(sha256, find_stores([Kind.NSS], environ), ())] == [True]
    argv = ["certutil", "-d", f"sql:{place}", "-L"]
    assert " C,,  " in subprocess.run(argv, capture_output=True, text=True).stdout

    uninstall(stores, [Kind.NSS], record, said.append, dry_run=False, as_root="")
    assert [each.trusted for each in states(sha256, stores, ())] == [False]
    assert record.entries == []
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kept", ["certificate", "key", "file", "database"])
def test_a_database_that_is_used_or_was_there_stays(
    environ, have, authorities, source, tmp_path: Path, kept: str
) -> None:
    have("chromium")
    place = tmp_path / "home/.local/share/pki/nssdb"
    certutil = ("certutil", "-d", f"sql:{place}")
    if kept == "database":
        place.mkdir(parents=True)
        subprocess.run([*certutil, "-N", "--empty-password"], check=True)
    stores, record = find_stores([Kind.NSS], environ), Record(source.parent)
    certificate = authorities[0].certificate
    install(certificate, source, stores, record, print, dry_run=False, as_root="")
    if kept == "certificate":
        other = authorities[1].certificate.public_bytes(Encoding.PEM)
        subprocess.run([*certutil, "-A", "-a", "-t", ",,", "-n", "x"], input=other, check=True)
    elif kept == "key":
        (tmp_path / "noise").write_bytes(bytes(range(64)))
        generate = ("-G", "-k", "ec", "-q", "nistp256", "-z", str(tmp_path / "noise"))
        subprocess.run([*certutil, *generate], check=True)
    elif kept == "file":
        (place / "something").touch()
    uninstall(stores, [Kind.NSS], record, print, dry_run=False, as_root="")
    assert record.entries == []
    assert (place / "cert9.db").exists() == (kept != "file")
    assert place.exists()


def test_none_is_made_where_there_is_one_or_no_chromium(environ, have, tmp_path: Path) -> None:
    assert places(environ) == []
    (tmp_path / "home/.pki/nssdb").mkdir(parents=True)
    (tmp_path / "home/.pki/nssdb/cert9.db").write_bytes(b"")
    assert places(environ) == [tmp_path / "home/.pki/nssdb"]
    have("chromium")
    assert places(environ) == [tmp_path / "home/.pki/nssdb"]


def test_a_snap_keeps_to_its_own_home(environ, have, tmp_path: Path) -> None:
    have("snap")  # what every command of a snap is a link to
    Path(environ["PATH"], "chromium").symlink_to("snap")
    assert places(environ) == []


def test_a_firefox_without_a_profile_is_told_of(environ, have, tmp_path: Path) -> None:
    assert [each.reason for each in find_stores([Kind.NSS], environ).absent] == [
        "there is no Firefox or Chromium here"
    ]
    have("firefox", "chromium")
    stores = find_stores([Kind.NSS], environ)
    assert [each.reason for each in stores.absent] == ["Firefox has no profile yet"]
    assert len(stores.present) == 1
    profile = tmp_path / "home/.config/mozilla/firefox/abc.default"
    profile.mkdir(parents=True)
    (profile / "cert9.db").write_bytes(b"")
    stores = installation.find_stores([Kind.NSS], environ)
    assert stores.absent == ()
    assert profile in [store.place for store in stores.present]


def test_under_sudo_only_the_users_own_places_count(environ, have, tmp_path, monkeypatch) -> None:
    have("chromium")
    environ["XDG_DATA_HOME"] = "/etc"
    monkeypatch.setattr(
        "mitml4.tls.stores.nss.writable_by_invoker", lambda path: path != Path("/etc")
    )
    assert places(environ) == [tmp_path / "home/.local/share/pki/nssdb"]
