"""Files are opened only where nobody else has a hand in them: as root, beside a user of a scratch
uid, whatever fs.protected_* is set to here."""

from __future__ import annotations

import os
import pwd
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mitml4.cli.main import run
from mitml4.files import RefusedError, open_directory, open_input, open_output

MALLORY = 54321
NOBODY = pwd.getpwnam("nobody")


@pytest.fixture(autouse=True)
def no_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that all can reach; in it `tmp`, where all may make files, and two homes."""
    with tempfile.TemporaryDirectory(prefix="mitml4-tests-") as name:
        place = Path(name)
        place.chmod(0o755)
        for directory, mode, uid in (
            ("tmp", 0o1777, 0),
            ("ours", 0o755, 0),
            ("theirs", 0o755, MALLORY),
            ("invokers", 0o755, NOBODY.pw_uid),
        ):
            (place / directory).mkdir()
            (place / directory).chmod(mode)
            os.chown(place / directory, uid, uid)
        yield place


def make(path: Path, *, uid: int = 0, mode: int = 0o600, content: str = "old") -> Path:
    path.write_text(content)
    path.chmod(mode)
    os.chown(path, uid, uid)
    return path


def link(path: Path, target: Path | str, *, uid: int = 0) -> Path:
    path.symlink_to(target)
    os.lchown(path, uid, uid)
    return path


def write(path: Path, content: bytes = b"new", **how: bool) -> os.stat_result:
    descriptor = open_output(path, **how)
    try:
        os.write(descriptor, content)
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def refused(
    path: Path, reason: str, opening: Callable[..., int] = open_output, **how: bool
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(RefusedError, match=reason):
        opening(path, **how)
    assert len(os.listdir("/proc/self/fd")) == before


class TestOutput:
    def test_a_new_file_is_private_and_an_old_one_of_ours_is_replaced(self, open_place) -> None:
        path = open_place / "tmp/events"
        for _ in range(2):
            status = write(path)
            assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, 0)
            assert path.read_bytes() == b"new"
        write(path, append=True)
        assert path.read_bytes() == b"newnew"

    @pytest.mark.parametrize("where", ["tmp", "ours", "theirs"])
    def test_what_another_user_has_made_is_refused(self, open_place, where: str) -> None:
        for mode in (0o600, 0o644, 0o666):
            path = make(open_place / where / f"{mode:o}", uid=MALLORY, mode=mode)
            refused(path, f"belongs to user {MALLORY}", append=True)
            refused(path, f"belongs to user {MALLORY}")
            refused(path, f"belongs to user {MALLORY}", public=True)
            assert path.read_text() == "old"

    def test_what_others_can_read_is_refused_where_they_can_get_there(self, open_place) -> None:
        for mode in (0o604, 0o640, 0o644, 0o660, 0o622, 0o777):
            path = make(open_place / "ours" / f"{mode:o}", mode=mode)
            refused(path, f"others can (read|write to) it .its mode is {mode:04o}")
            assert path.read_text() == "old"
        (open_place / "ours").chmod(0o700)
        write(path)
        assert path.read_bytes() == b"new"
        assert stat.S_IMODE(path.stat().st_mode) == 0o777

    def test_what_is_public_others_may_read_but_not_write(self, open_place) -> None:
        path = make(open_place / "tmp/ca.pem", mode=0o644)
        write(path, public=True)
        assert path.read_bytes() == b"new"
        assert stat.S_IMODE(write(open_place / "tmp/new.pem", public=True).st_mode) == 0o644
        path.chmod(0o666)
        refused(path, "others can write to it", public=True)

    def test_a_link_is_followed_as_root_would_with_protected_symlinks(self, open_place) -> None:
        target = make(open_place / "ours/events")
        for place, owner in (("tmp", 0), ("ours", 0), ("theirs", 0)):
            write(link(open_place / place / "by-us", target, uid=owner))
            assert target.read_bytes() == b"new"
        write(link(open_place / "ours/dangling", open_place / "ours/not-yet"))
        assert (open_place / "ours/not-yet").read_bytes() == b"new"
        target.write_text("old")
        refused(link(open_place / "tmp/theirs", target, uid=MALLORY), "symbolic link .* belongs to")
        refused(link(open_place / "theirs/out", target, uid=MALLORY), "leads to what is root's")
        new = open_place / "ours/new"
        refused(link(open_place / "theirs/new", new, uid=MALLORY), "leads to what is root's")
        refused(link(open_place / "theirs/relative", "../ours/new", uid=MALLORY), "leads to")
        refused(link(open_place / "theirs/null", "/dev/null", uid=MALLORY), "leads to")
        refused(link(open_place / "theirs/stderr", "/proc/self/fd/2", uid=MALLORY), "leads to")
        assert not new.exists()
        assert target.read_text() == "old"

    def test_so_are_the_links_among_its_parents(self, open_place) -> None:
        link(open_place / "tmp/ours", open_place / "ours")
        link(open_place / "ours/again", "../tmp/ours/.")
        write(open_place / "ours/again/../ours/again/events")
        assert (open_place / "ours/events").exists()
        for where in ("tmp", "theirs"):
            parent = link(open_place / where / "parent", open_place / "ours", uid=MALLORY)
            refused(parent / "new", "symbolic link")
        assert not (open_place / "ours/new").exists()
        link(open_place / "ours/loop", "loop/loop")
        with pytest.raises(OSError, match="Too many levels of symbolic links"):
            open_output(open_place / "ours/loop/x")

    def test_a_users_link_to_a_place_of_theirs_is_followed(self, open_place) -> None:
        (open_place / "disk").mkdir()
        os.chown(open_place / "disk", MALLORY, MALLORY)
        link(open_place / "theirs/disk", open_place / "disk", uid=MALLORY)
        for _ in range(2):
            assert write(open_place / "theirs/disk/new").st_uid == 0
        refused(make(open_place / "disk/old", uid=MALLORY), "belongs to")

    def test_a_hard_link_that_others_may_have_made_is_refused(self, open_place) -> None:
        target = make(open_place / "ours/secret")
        for where, is_refused in (("tmp", True), ("theirs", True), ("ours", False)):
            path = open_place / where / "hard"
            path.hardlink_to(target)
            if is_refused:
                refused(path, "another name")
                assert target.read_text() == "old"
            else:
                write(path)
                assert target.read_bytes() == b"new"

    def test_devices_descriptors_and_pipes_are_written_to(self, open_place) -> None:
        for device in ("/dev/null", "/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"):
            write(Path(device), b"", append=True)
        reader, writer = os.pipe()
        write(Path(f"/dev/fd/{writer}"))
        assert os.read(reader, 10) == b"new"
        with tempfile.TemporaryFile(dir=open_place / "tmp") as file:
            os.fchmod(file.fileno(), 0o644)  # as a shell has made it
            write(Path(f"/dev/fd/{file.fileno()}"))
            assert os.pread(file.fileno(), 10, 0) == b"new"
        pipe = open_place / "tmp/pipe"
        os.mkfifo(pipe, 0o600)
        with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)) as end:
            write(pipe)
            assert end.read() == "new"
        for descriptor in (reader, writer):
            os.close(descriptor)

    def test_pipes_of_others_and_what_takes_no_output_are_refused_at_once(self, open_place) -> None:
        pipe = open_place / "tmp/pipe"
        os.mkfifo(pipe)
        os.chown(pipe, MALLORY, MALLORY)
        refused(pipe, "belongs to")
        os.chown(pipe, 0, 0)
        refused(pipe, "others can read it")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(open_place / "tmp/socket"))
        refused(open_place / "tmp/socket", "it is a socket")
        device = open_place / "ours/disk"
        os.mknod(device, stat.S_IFBLK | 0o600, os.makedev(7, 99))
        refused(device, "it is a block device")
        with pytest.raises(IsADirectoryError):
            open_output(open_place / "tmp")

    def test_under_sudo_it_is_the_users_who_called_it(self, open_place, monkeypatch) -> None:
        monkeypatch.setenv("SUDO_USER", "nobody")
        for _ in range(2):  # the second time it is there, in a directory that is for all
            write(open_place / "tmp/events")
            assert (open_place / "tmp/events").stat().st_uid == NOBODY.pw_uid
            assert os.geteuid() == 0
        write(make(open_place / "ours/roots-own"))
        refused(make(open_place / "tmp/theirs", uid=MALLORY), "belongs to")
        where = link(open_place / "invokers/out", open_place / "ours", uid=NOBODY.pw_uid)
        refused(where / "new", "nobody's symbolic link leads to what is root's")


class TestInputAndDirectories:
    def test_a_key_is_a_private_file_of_ours(self, open_place) -> None:
        key = make(open_place / "tmp/key")
        os.close(open_input(key, secret=True))
        for mode in (0o640, 0o604, 0o644):
            key.chmod(mode)
            refused(key, "others can read the key", open_input, secret=True)
        os.close(open_input(key))
        key.chmod(0o646)
        refused(key, "others can read it|others can write to it", open_input)
        key.chmod(0o600)
        os.chown(key, MALLORY, MALLORY)
        refused(key, "belongs to", open_input, secret=True)
        os.mkfifo(open_place / "ours/pipe", 0o600)
        refused(open_place / "ours/pipe", "no regular file", open_input, secret=True)

    def test_a_directory_is_ours_and_closed_to_others(self, open_place) -> None:
        os.close(open_directory(open_place / "ours"))
        refused(open_place / "theirs", "belongs to", open_directory)
        refused(open_place / "tmp", "others can write to it", open_directory)
        for mode in (0o777, 0o775, 0o757):
            (open_place / "ours").chmod(mode)
            refused(open_place / "ours", "others can write to it", open_directory, make=True)

    def test_it_is_made_private_with_its_parents(self, open_place, monkeypatch) -> None:
        monkeypatch.setenv("SUDO_USER", "nobody")
        os.close(open_directory(open_place / "tmp/a/b", make=True))
        for made in ("tmp/a", "tmp/a/b"):
            status = (open_place / made).stat()
            assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o700, NOBODY.pw_uid)

    def test_it_is_not_made_where_a_users_link_leads_to_others(
        self, open_place, monkeypatch
    ) -> None:
        monkeypatch.setenv("SUDO_USER", "nobody")
        for owner, where in ((NOBODY.pw_uid, "invokers"), (MALLORY, "theirs"), (MALLORY, "tmp")):
            out = link(open_place / where / "data", open_place / "ours", uid=owner)
            refused(out / "mitml4", "symbolic link", open_directory, make=True)
        assert list((open_place / "ours").iterdir()) == []


# --- the command -------------------------------------------------------------------------------


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture
def mitml4(monkeypatch, capfd) -> Callable[..., tuple[int, str]]:
    """Run a command line in this process: its exit code, and what it says on standard error."""

    def call(*arguments: str, **environ: str) -> tuple[int, str]:
        with monkeypatch.context() as patch:
            for name, value in environ.items():
                patch.setenv(name, value)
            code = run(arguments)
        return code, capfd.readouterr().err

    return call


@pytest.fixture
def succeeds(mitml4) -> Callable[..., None]:
    def call(*arguments: str, **environ: str) -> None:
        assert mitml4(*arguments, **environ)[0] == 0

    return call


@pytest.fixture
def fails(mitml4) -> Callable[..., str]:
    """Fails with an error and a hint, which are returned."""

    def call(*arguments: str, **environ: str) -> str:
        code, said = mitml4(*arguments, **environ)
        assert code == 1, said
        assert said.startswith("error: ")
        assert "\nhint: " in said
        return said

    return call


def test_an_export_does_not_go_to_what_another_user_can_change(open_place, succeeds, fails) -> None:
    ca_dir = str(open_place / "ours/ca")
    succeeds("ca", "generate", "--ca-dir", ca_dir)
    export = ("ca", "export", "--ca-dir", ca_dir, "-o")
    theirs = make(open_place / "tmp/ca.pem", uid=MALLORY, mode=0o666)
    assert "belongs to" in fails(*export, str(theirs))
    target = make(open_place / "ours/precious")
    out = link(open_place / "tmp/link", target, uid=MALLORY)
    assert "belongs to" in fails(*export, str(out))
    assert (theirs.read_text(), target.read_text()) == ("old", "old")
    with umask(0o022):
        succeeds(*export, str(open_place / "tmp/new.pem"))
    new = open_place / "tmp/new.pem"
    assert new.read_bytes().startswith(b"-----BEGIN CERTIFICATE-----")
    assert stat.S_IMODE(new.stat().st_mode) == 0o644


def test_an_authority_that_others_have_a_hand_in_is_not_used(open_place, succeeds, fails) -> None:
    ca_dir = open_place / "ours/ca"
    at = ("--ca-dir", str(ca_dir))
    succeeds("ca", "generate", *at)
    names = ("mitml4-ca.pem", "mitml4-ca-key.pem")
    ca_dir.chmod(0o1777)
    for command in (("show",), ("env",), ("generate", "--force")):
        assert "its mode is 1777" in fails("ca", *command, *at)
    ca_dir.chmod(0o755)
    for change in (ca_dir, *(ca_dir / name for name in names)):
        os.chown(change, MALLORY, MALLORY)
        assert f"belongs to user {MALLORY}" in fails("ca", "show", *at)
        os.chown(change, 0, 0)
    (ca_dir / names[0]).chmod(0o664)
    assert "others can" in fails("ca", "show", *at)
    (ca_dir / names[0]).chmod(0o644)
    succeeds("ca", "show", *at)


def test_under_sudo_the_data_home_is_the_users_own(open_place, succeeds, fails) -> None:
    sudo = {"SUDO_USER": "nobody"}
    link(open_place / "invokers/data", open_place / "ours", uid=NOBODY.pw_uid)
    link(open_place / "ours-too", open_place / "ours")
    for home in ("invokers/data", "ours", "ours-too", "ours/below", "theirs"):
        error = fails("ca", "generate", XDG_DATA_HOME=str(open_place / home), **sudo)
        assert "XDG_DATA_HOME" in error or "symbolic link" in error
    assert list((open_place / "ours").iterdir()) == []
    assert list((open_place / "theirs").iterdir()) == []
    for home in ("invokers", "invokers/share"):
        place = open_place / home
        succeeds("ca", "generate", XDG_DATA_HOME=str(place), **sudo)
        for made in (place / "mitml4", *(place / "mitml4").iterdir()):
            assert made.stat().st_uid == NOBODY.pw_uid


@pytest.mark.parametrize("option", ["--keylog", "-o", "-w", "--har"])
def test_a_sessions_outputs_do_not_go_to_what_another_user_has_made(
    open_place, option: str
) -> None:
    theirs = make(open_place / "tmp/file", uid=MALLORY, mode=0o666)
    argv = [sys.executable, "-m", "mitml4", "run", option, str(theirs), "--", "true"]
    ended = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert ended.returncode == 1
    assert f"error: cannot write {theirs}: it belongs to user {MALLORY}\nhint: " in ended.stderr
    assert theirs.read_text() == "old"
