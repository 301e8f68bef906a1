"""Where databases are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from mitml4.tls.nss_places import NssPlaces


def make(*directories: Path) -> None:
    for directory in directories:
        directory.mkdir(parents=True)
        (directory / "cert9.db").write_bytes(b"")


def test_every_place_of_a_browser_or_mail_program_is_found(tmp_path: Path) -> None:
    home, data, configuration = tmp_path / "home", tmp_path / "data", tmp_path / "configuration"
    elsewhere = tmp_path / "elsewhere/profile"
    made = [
        home / ".pki/nssdb",
        data / "pki/nssdb",
        home / "snap/chromium/current/.pki/nssdb",
        home / "snap/chromium/current/.local/share/pki/nssdb",
        home / ".var/app/org.chromium.Chromium/data/pki/nssdb",
        home / ".mozilla/firefox/abc.default",
        configuration / "mozilla/firefox/abc.default",
        home / "snap/firefox/common/.mozilla/firefox/abc.default",
        home / ".var/app/org.mozilla.firefox/.mozilla/firefox/abc.default",
        home / ".var/app/org.mozilla.firefox/config/mozilla/firefox/abc.default",
        home / ".thunderbird/abc.default",
        home / ".librewolf/abc.default",
        elsewhere,
    ]
    make(*made)
    (home / ".mozilla/firefox/without-a-database").mkdir()
    (home / ".mozilla/firefox/profiles.ini").write_text(
        f"[Profile0]\nIsRelative=1\nPath=abc.default\n[Profile1]\nIsRelative=0\nPath={elsewhere}\n"
    )
    environ = {"XDG_DATA_HOME": str(data), "XDG_CONFIG_HOME": str(configuration)}
    assert set(NssPlaces.of(home, environ).databases()) == set(made)


@pytest.mark.parametrize("content", [b"Path=x\n", b"[a]\n[a\nb\0", b"\xff\xfe"])
def test_a_broken_list_of_profiles_names_none(tmp_path: Path, content: bytes) -> None:
    root = tmp_path / ".mozilla/firefox"
    root.mkdir(parents=True)
    (root / "profiles.ini").write_bytes(content)
    assert NssPlaces.of(tmp_path, {}).databases() == []


def test_chromiums_is_where_it_was_and_else_among_the_data(tmp_path: Path) -> None:
    places = NssPlaces.of(tmp_path, {"XDG_DATA_HOME": "relative"})
    assert places.shared == tmp_path / ".local/share/pki/nssdb"
    (tmp_path / ".pki/nssdb").mkdir(parents=True)
    assert places.shared == tmp_path / ".pki/nssdb"
