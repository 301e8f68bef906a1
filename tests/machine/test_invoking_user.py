"""Under sudo, files belong to the user who called it, and theirs are looked at too."""

from __future__ import annotations

import os
import pwd
from types import SimpleNamespace
from typing import Any

from mitml4.session.command import browsers
from mitml4.session.command.browsers import BrowserTrust
from mitml4.sinks.jsonl import JsonLines
from mitml4.tls.ca import CertificateAuthority, default_directory


def test_a_new_file_is_the_invoking_users(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SUDO_USER", "nobody")
    JsonLines.to_file(tmp_path / "events")
    owner = (tmp_path / "events").stat()
    nobody = pwd.getpwnam("nobody")
    assert (owner.st_uid, owner.st_gid) == (nobody.pw_uid, nobody.pw_gid)


def test_an_authority_is_in_the_users_home_and_theirs(tmp_path, monkeypatch) -> None:
    user = SimpleNamespace(pw_dir=str(tmp_path), pw_uid=4321, pw_gid=8765)
    monkeypatch.setattr(pwd, "getpwnam", {"someone": user}.__getitem__)
    monkeypatch.setenv("SUDO_USER", "someone")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    directory = default_directory()
    assert directory == tmp_path / ".local/share/mitml4"
    CertificateAuthority.generate().save(directory)
    for path in (tmp_path / ".local", directory.parent, directory, *directory.iterdir()):
        assert (path.stat().st_uid, path.stat().st_gid) == (4321, 8765), path


def test_the_users_browser_databases_are_shown_too_and_none_is_made(tmp_path, monkeypatch) -> None:
    home, users = tmp_path / "home", tmp_path / "user"
    home.mkdir()
    for name in ("with", "without"):
        profile = users / ".mozilla/firefox" / name
        profile.mkdir(parents=True)
        (profile / "cert9.db").write_bytes(b"")
        os.chown(profile, 4242, 4242)
    (users / ".mozilla/firefox/with/pkcs11.txt").write_bytes(b"library=\n")
    user = SimpleNamespace(pw_dir=str(users), pw_uid=4242)
    monkeypatch.setattr(browsers, "sudo_user", lambda: user)
    monkeypatch.setattr(browsers, "_APPLICATIONS", ())
    monkeypatch.setattr(browsers, "_SYSTEM_POLICIES", f"{tmp_path}/etc/*/policies")
    covered = []
    namespace: Any = SimpleNamespace(
        cover=lambda file, _source, **_: covered.append(file),
        mount_files=lambda *_: None,
        extend=lambda *_: None,
    )
    ours = CertificateAuthority.generate().certificate
    environ = {"HOME": str(home), "PATH": ""}
    BrowserTrust([ours], environ, ("true",), tmp_path / "certs").show(namespace)
    assert set(covered) == {
        users / ".mozilla/firefox/with/pkcs11.txt",
        home / ".local/share/pki/nssdb/pkcs11.txt",
    }
