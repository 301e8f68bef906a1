"""`mitml4 ca install` with the real tools, on a copy of this machine that nobody will miss.

The copy is an overlay over the root directory, in a mount and a network namespace of its own: what
is changed there is in memory, and what has changed can be told file by file. Each test has a copy
of one that was put in order once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mitml4.tls.java_keystore import read_truststore
from tests.e2e import forked
from tests.e2e.conftest import QUICK_JAVA

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60
USER, UID = "tester", 4242
HOME = f"/home/{USER}"
DATA = f"{HOME}/.local/share/mitml4"
DATABASES = (f"{HOME}/.pki/nssdb", f"{HOME}/.mozilla/firefox/x.default")
CACERTS = "/etc/ssl/certs/java/cacerts"
JAVA = (CACERTS, "/etc/ca-certificates/update.d/jks-keystore")
"""The store that Java has of the system, and the hook that writes it."""
ROOTS, KEPT_ROOTS = "/etc/ca-certificates.conf", 5
HOST, PORT = "www.example", 8443

# What the package manager keeps for itself when a hook of update-ca-certificates comes to it.
NOT_OURS = ("var/lib/dpkg", "var/log", "var/cache", "tmp", "run")

MAKE = """
set -e
mount -t tmpfs copy "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
for each in proc sys dev; do mount --rbind "/$each" "$1/root/$each"; done
ip link set lo up
echo ready
exec cat
"""


class Copy:
    """A copy of this machine, or of a copy of it."""

    def __init__(self, holder: int, directory: Path, original: Path) -> None:
        self.holder = holder
        self.directory = directory
        self.inside = Path(f"/proc/{holder}/root{directory}")
        self._original = original
        self._chroot = [*enter(holder), "chroot", str(directory / "root")]

    def argv(self, *command: str) -> list[str]:
        return [*self._chroot, *command]

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; a failure raises, unless told otherwise."""
        settings: dict[str, Any] = {"check": True, "timeout": TIMEOUT_S, "env": self.environ}
        return subprocess.run(
            self.argv(*command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            **settings | options,
        )

    def as_user(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self.run("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", *command)

    def mitml4(
        self, *arguments: str, has_terminal: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """As `sudo mitml4 …` of the user, by a fork, or without any terminal by a start."""
        env = self.environ | {"SUDO_USER": USER}
        if has_terminal:
            root = self.directory / "root"
            done = forked.run(arguments, inside=(self.holder, root), cwd=Path("/"), env=env)
        else:
            argv = (sys.executable, "-m", "mitml4", *arguments)
            done = self.run(*argv, check=False, env=env, start_new_session=True)
        print(done.stderr)
        assert "Traceback" not in done.stderr
        return done

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
        }

    def file(self, path: str) -> Path:
        return self.inside / "root" / path.lstrip("/")

    def changes(self) -> dict[str, tuple[Any, ...]]:
        """Every file and directory that is not as in the original: kind, mode, owner, content."""
        upper = self.inside / "upper"
        found = {}
        for directory, directories, names in os.walk(upper):
            for name in (*names, *directories):
                file = Path(directory, name)
                path = str(file.relative_to(upper))
                if path.startswith(NOT_OURS):
                    continue
                if (now := _looks(file)) != _looks(self._original / path):
                    found[path] = now
        return found

    def database(self, directory: str) -> str:
        """All that certutil has to say of an NSS database's certificates."""
        return self.as_user("certutil", "-L", "-d", f"sql:{directory}").stdout

    def java_roots(self) -> list[bytes]:
        return read_truststore(self.file(CACERTS).read_bytes())

    @property
    def authority(self) -> dict[str, Any]:
        return json.loads(self.mitml4("ca", "show", "--json").stdout)


def _looks(file: Path) -> tuple[Any, ...] | None:
    try:
        status = file.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:  # an overlay's word for: not there
        return None
    content = b""
    if stat.S_ISLNK(status.st_mode):
        content = os.fsencode(os.readlink(file))
    elif stat.S_ISREG(status.st_mode):
        content = hashlib.sha256(file.read_bytes()).digest()
    return status.st_mode, status.st_uid, status.st_gid, content


def enter(holder: int) -> list[str]:
    return ["nsenter", f"--target={holder}", "--mount", "--net"]


@contextmanager
def copy_of(original: Copy | None, directory: Path) -> Iterator[Copy]:
    """A copy of a copy, or of this machine."""
    command = ["unshare", "--mount", "--net", "--propagation", "private"]
    layers, root = "/", Path("/")
    if original:
        command = enter(original.holder) + command
        layers, root = f"{original.directory}/upper:/", original.inside / "root"
    holder = subprocess.Popen(
        [*command, "sh", "-c", MAKE, "sh", str(directory), layers],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with holder:  # its end of standard input is its end
        if holder.stdout.readline() != "ready\n":
            pytest.fail(f"no copy of this machine can be made: {holder.stderr.read()}")
        yield Copy(holder.pid, directory, root)


def keep_few_roots(config: Path) -> None:
    """Deselect most of the system's roots: each change of its store takes all of them again."""
    lines = config.read_text().splitlines(keepends=True)
    roots = [line for line in lines if line.startswith("mozilla/")]
    others = [line for line in lines if line not in roots]
    dropped = [f"!{line}" for line in roots[KEPT_ROOTS:]]
    config.write_text("".join([*others, *roots[:KEPT_ROOTS], *dropped]))


@pytest.fixture(scope="module")
def in_order(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """A machine in good order, on which a user has an authority, Chromium and Firefox."""
    with copy_of(None, tmp_path_factory.mktemp("machine")) as copy:
        with copy.file("/etc/passwd").open("a") as passwd:
            passwd.write(f"{USER}:x:{UID}:{UID}::{HOME}:/bin/sh\n")
        copy.file(HOME).mkdir()
        os.chown(copy.file(HOME), UID, UID)
        for database in DATABASES:
            copy.as_user("mkdir", "-p", database)
            copy.as_user("certutil", "-N", "-d", f"sql:{database}", "--empty-password")
        keep_few_roots(copy.file(ROOTS))
        copy.run("update-ca-certificates")
        for path in JAVA:  # seconds, each time that roots change
            copy.file(path).rename(copy.file(f"{path}.away"))
        assert copy.mitml4("ca", "generate").returncode == 0
        yield copy


@pytest.fixture
def machine(in_order: Copy, tmp_path: Path) -> Iterator[Copy]:
    with copy_of(in_order, tmp_path) as copy:
        yield copy


@contextmanager
def server(machine: Copy) -> Iterator[None]:
    """A web server in the copy's network, with a certificate of the authority's."""
    ca = (f"{DATA}/mitml4-ca.pem", f"{DATA}/mitml4-ca-key.pem")
    machine.run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={HOST}"),
        *("-addext", f"subjectAltName=DNS:{HOST}", "-addext", "basicConstraints=critical,CA:FALSE"),
        *("-CA", ca[0], "-CAkey", ca[1], "-keyout", "/tmp/key.pem", "-out", "/tmp/cert.pem"),
    )
    serve = ("openssl", "s_server", "-accept", str(PORT), "-www", "-naccept", "64")
    with subprocess.Popen(
        machine.argv(*serve, "-cert", "/tmp/cert.pem", "-key", "/tmp/key.pem"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert any(line.startswith("ACCEPT") for line in process.stdout)
            yield
        finally:
            process.kill()


def curl(machine: Copy) -> int:
    """curl's exit code, with the system's roots alone; 60 says that it does not know the issuer."""
    done = machine.run(
        *("curl", "--silent", "--output", "/dev/null", "--max-time", "10"),
        *("--resolve", f"{HOST}:{PORT}:127.0.0.1", f"https://{HOST}:{PORT}/"),
        check=False,
    )
    return done.returncode


def ours_in_java(machine: Copy) -> bool:
    sha256 = machine.authority["sha256"]
    return sha256 in {hashlib.sha256(der).hexdigest() for der in machine.java_roots()}


def test_a_client_trusts_us_from_install_to_uninstall_and_every_file_is_as_before(machine):
    listed = [machine.database(database) for database in DATABASES]
    with server(machine):
        assert curl(machine) == 60
        assert machine.mitml4("ca", "install").returncode == 0
        assert curl(machine) == 0
        assert "etc/ssl/certs/ca-certificates.crt" in machine.changes()
        assert all("mitml4-" in machine.database(database) for database in DATABASES)
        assert machine.mitml4("ca", "uninstall").returncode == 0
        assert curl(machine) == 60
    assert [machine.database(database) for database in DATABASES] == listed
    # SQLite's pages are never the same again.
    files = {f"{database[1:]}/{name}" for database in DATABASES for name in ("cert9.db", "key4.db")}
    changed = machine.changes()
    assert set(changed) == files
    assert {look[:3] for look in changed.values()} == {(stat.S_IFREG | 0o600, UID, UID)}


def put_java_back(machine: Copy) -> None:
    for path in JAVA:
        machine.file(f"{path}.away").rename(machine.file(path))


def test_java_trusts_us_by_the_systems_hook_and_its_store_is_the_same_file_afterwards(machine):
    put_java_back(machine)
    before = machine.file(CACERTS).read_bytes()
    assert machine.mitml4("ca", "install", "--store", "system").returncode == 0
    assert ours_in_java(machine)
    assert machine.mitml4("ca", "uninstall").returncode == 0
    assert machine.file(CACERTS).read_bytes() == before


def test_jdks_with_stores_of_their_own_trust_us_by_keytool(machine):
    stores = {form: f"/opt/java/{form}/lib/security/cacerts" for form in ("JKS", "PKCS12")}
    for number in range(2):
        machine.mitml4("ca", "generate", "--ca-dir", f"/tmp/{number}", "--name", f"Root {number}")
    for form, store in stores.items():
        machine.run("mkdir", "-p", str(Path(store).parent))
        for number in range(2):
            machine.run(
                *("keytool", f"-J{QUICK_JAVA}", "-importcert", "-noprompt", "-keystore", store),
                *("-storetype", form, "-storepass", "changeit", "-alias", f"root{number}"),
                # As JDKs come with it since version 18: neither sealed nor encrypted.
                *("-J-Dkeystore.pkcs12.macAlgorithm=NONE",),
                *("-J-Dkeystore.pkcs12.certProtectionAlgorithm=NONE",),
                *("-file", f"/tmp/{number}/mitml4-ca.pem"),
            )
    before = {store: machine.file(store).read_bytes() for store in stores.values()}
    assert machine.mitml4("ca", "install", "--store", "java").returncode == 0
    sha256 = machine.authority["sha256"]
    for store in before:
        show = ("keytool", f"-J{QUICK_JAVA}", "-list", "-v", "-keystore", store)
        listing = machine.run(*show, "-storepass", "changeit").stdout
        assert sha256 in listing.replace(":", "").lower()
    assert machine.mitml4("ca", "uninstall").returncode == 0
    assert {store: machine.file(store).read_bytes() for store in before} == before


def test_all_that_is_the_users_stays_the_users(machine):
    machine.mitml4("ca", "install")
    files = [path for path in machine.file(HOME).rglob("*") if not path.is_symlink()]
    assert any(path.name == "mitml4-installed.json" for path in files)
    assert {(path.stat().st_uid, path.stat().st_gid) for path in files} == {(UID, UID)}
    anchors = machine.file("/usr/local/share/ca-certificates").glob("mitml4-*")
    assert [path.owner() for path in anchors] == ["root"]


def test_a_dry_run_changes_nothing_and_shows_what_a_run_then_does(machine):
    shown = machine.mitml4("ca", "install", "--dry-run")
    assert shown.returncode == 0
    assert machine.changes() == {}
    done = machine.mitml4("ca", "install")
    commands = [line for line in shown.stdout.splitlines() if not line.startswith("#")]
    assert commands == [line for line in done.stderr.splitlines() if not line.startswith("#")]
    assert len(commands) >= 4


def test_a_second_install_does_nothing(machine):
    put_java_back(machine)
    machine.mitml4("ca", "install")
    before = machine.changes()
    again = machine.mitml4("ca", "install")
    assert again.returncode == 0
    assert all(line.endswith("trusted already") for line in again.stderr.splitlines())
    assert machine.changes() == before


@pytest.mark.skipif(not shutil.which("chromium"), reason="only Debian has it as a package")
def test_chromiums_database_is_made_as_the_users_own(machine):
    place = f"{HOME}/.local/share/pki/nssdb"
    machine.as_user("rm", "-r", f"{HOME}/.pki")
    assert f"not trusted  {place}" in machine.mitml4("ca", "status").stdout
    assert machine.mitml4("ca", "install", "--store", "nss").returncode == 0
    assert f"nss     trusted  {place}" in machine.mitml4("ca", "status").stdout
    assert "C,," in machine.database(place)
    for path in (place, f"{place}/cert9.db", f"{place}/key4.db", str(Path(place).parent)):
        status = machine.file(path).stat()
        assert (status.st_uid, status.st_mode & 0o077) == (UID, 0), path
    shown = machine.mitml4("ca", "uninstall", "--dry-run").stdout
    assert machine.mitml4("ca", "uninstall").returncode == 0
    assert f"rmdir --ignore-fail-on-non-empty {place}" in shown
    assert not machine.file(str(Path(place).parent)).exists()


def test_a_former_authority_is_told_of_and_goes_with_the_other(machine):
    before = machine.file("/etc/ssl/certs/ca-certificates.crt").read_bytes()
    former = machine.authority["sha256"]
    machine.mitml4("ca", "install", "--store", "system", "--store", "nss")
    assert "still installed" in machine.mitml4("ca", "generate", "--force").stderr
    states = json.loads(machine.mitml4("ca", "status", "--json").stdout)
    told = [state for state in states if state["kind"] in ("system", "nss")]
    assert len(told) == 3
    for state in told:
        assert not state["trusted"]
        assert [found["sha256"] for found in state["found"]] == [former]
    machine.mitml4("ca", "install", "--store", "system", "--store", "nss")
    text = machine.mitml4("ca", "status", "--store", "system").stdout
    assert text.splitlines()[0].split() == ["system", "trusted", "/usr/local/share/ca-certificates"]
    assert former in text
    assert machine.authority["sha256"] in text
    assert machine.mitml4("ca", "uninstall").returncode == 0
    assert machine.file("/etc/ssl/certs/ca-certificates.crt").read_bytes() == before


def test_a_database_with_a_password_fails_alone(machine):
    """And what certutil leaves of its failure, a certificate that is not trusted, goes as well."""
    locked = f"{HOME}/.mozilla/firefox/locked"
    machine.as_user("mkdir", "-p", locked)
    machine.file("/tmp/password").write_text("secret1234\n")
    machine.as_user("certutil", "-N", "-d", f"sql:{locked}", "-f", "/tmp/password")
    empty = machine.database(locked)
    done = machine.mitml4("ca", "install", has_terminal=False)
    assert done.returncode == 1
    error = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert "1 of " in error[0]
    assert "could not authenticate" in error[0]
    states = json.loads(machine.mitml4("ca", "status", "--json").stdout)
    assert [s["place"] for s in states if not s["trusted"] and s["place"]] == [locked]
    assert machine.mitml4("ca", "uninstall").returncode == 0
    assert machine.database(locked) == empty


def test_without_power_nothing_is_done_and_the_way_is_told(machine):
    for path in (ROOT, Path(sys.executable), Path(sys.executable).resolve()):
        for directory in path.parents if path.is_file() else (path, *path.parents):
            machine.file(str(directory)).chmod(0o755)  # a user may run what root has installed
    machine.run("chmod", "-R", "a+rX", str(ROOT / "mitml4"))
    before = machine.changes()
    denied = machine.as_user(
        *("sh", "-c", 'HOME=$0 "$@"; echo $?', HOME, sys.executable, "-m", "mitml4"),
        *("ca", "install"),
    )
    assert denied.stdout == "3\n"
    assert denied.stderr.splitlines() == [
        "error: changing /usr/local/share/ca-certificates needs root",
        f"hint: sudo mitml4 ca install --ca-dir {DATA}",
    ]
    assert machine.changes() == before


def test_a_tool_that_is_missing_is_a_line_with_the_package(machine):
    with ExitStack() as stack:
        certutil = machine.file(shutil.which("certutil"))
        certutil.rename(certutil.with_name("certutil.away"))
        stack.callback(certutil.with_name("certutil.away").rename, certutil)
        done = machine.mitml4("ca", "install")
        assert done.returncode == 0
        assert done.stderr.count("certutil is not installed (apt install libnss3-tools)") == 2
        alone = machine.mitml4("ca", "install", "--store", "nss")
        assert alone.returncode == 3
        assert "error: certutil is not installed" in alone.stderr
        assert "hint: apt install libnss3-tools" in alone.stderr
