"""What all kinds of stores have in common, and the steps that change one.

A step is printed as a shell command before it is done. `install` records an Entry, which contains
everything that `uninstall` needs.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import secrets
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.dataclass import dataclass
from mitml4.errors import MachineError
from mitml4.net.tools import environment

__all__ = [
    "Entry",
    "Kind",
    "MissingToolError",
    "Step",
    "Store",
    "Who",
    "find_tool",
    "name_of",
    "new_entry",
    "package_hint",
    "put_file",
    "remove_file",
    "replace_content",
    "run",
    "running",
    "sha256_of",
]


class Kind(StrEnum):
    """The kinds of stores, in the order of installation."""

    SYSTEM = "system"
    NSS = "nss"
    JAVA = "java"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A certificate that was added to a store."""

    kind: Kind
    place: str
    """The store: a directory, or the file of a Java key store."""
    sha256: str
    """Of the certificate, in hex."""
    subject: str
    orders: dict[str, list[str]] = field(default_factory=dict)
    """The order of the entries in each JKS that changes with it, before the change: file to
    aliases."""
    created: list[str] = field(default_factory=list)
    """The directories that were created for the store; empty if it existed."""


@dataclass(frozen=True, slots=True)
class Step:
    """A change: the command to show, and the function that does it, which raises MachineError."""

    shown: str
    do: Callable[[], object]


class Store(Protocol):
    """A store that exists."""

    @property
    def kind(self) -> Kind:
        """Its kind."""

    @property
    def place(self) -> Path:
        """Its path."""

    def trusted(self) -> list[bytes]:
        """The DER of each certificate that it trusts. Raises MachineError if that is unknown."""

    def check_access(self) -> str | None:
        """None if we may change it; otherwise the privileges that it needs."""

    def install(self, certificate: x509.Certificate, source: Path) -> tuple[Entry, list[Step]]:
        """The steps that make it trust a certificate, which is also in the PEM file `source`.

        Raises MissingToolError.
        """

    def uninstall(self, entry: Entry) -> list[Step]:
        """The steps that undo this; none if the certificate is not in it. Raises MachineError."""


class MissingToolError(MachineError):
    """A program that changes a store is not installed."""


@dataclass(frozen=True, slots=True)
class Who:
    """The user that runs a program."""

    uid: int
    gid: int

    @property
    def is_us(self) -> bool:
        return self.uid == os.geteuid()

    @property
    def name(self) -> str:
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return f"#{self.uid}"


# The names of a tool's package for the package managers.
_PACKAGES: Final = {
    "certutil": {
        "apt": "libnss3-tools",
        "dnf": "nss-tools",
        "zypper": "mozilla-nss-tools",
        "pacman": "nss",
        "apk": "nss-tools",
    },
    "update-ca-certificates": dict.fromkeys(
        ("apt", "dnf", "zypper", "pacman", "apk"), "ca-certificates"
    ),
    "keytool": {
        "apt": "default-jre-headless",
        "dnf": "java-latest-openjdk-headless",
        "zypper": "java-21-openjdk-headless",
        "pacman": "jre-openjdk-headless",
        "apk": "openjdk21-jre-headless",
    },
}
_INSTALL: Final = {"pacman": "pacman -S", "apk": "apk add"}


def package_hint(tool: str) -> str:
    """The command that installs a tool, for the first package manager that is found."""
    names = _PACKAGES[tool]
    manager = next((each for each in names if _which(each)), "apt")
    return f"{_INSTALL.get(manager, f'{manager} install')} {names[manager]}"


def find_tool(name: str) -> str:
    """The path of a program. Raises MissingToolError."""
    if path := _which(name):
        return path
    raise MissingToolError(f"{name} is not installed", hint=package_hint(name))


def _which(name: str) -> str | None:
    return shutil.which(name, path=environment()["PATH"])


def sha256_of(der: bytes) -> str:
    """The fingerprint of a certificate, in hex."""
    return hashlib.sha256(der).hexdigest()


def new_entry(
    kind: Kind, place: Path, certificate: x509.Certificate, orders: dict[str, list[str]]
) -> Entry:
    """The entry of a certificate that is to be added to a store."""
    return Entry(
        kind=kind,
        place=str(place),
        sha256=sha256_of(certificate.public_bytes(Encoding.DER)),
        subject=certificate.subject.rfc4514_string(),
        orders=orders,
    )


def name_of(sha256: str) -> str:
    """The name of our certificate in every store."""
    return f"mitml4-{sha256[:16]}"


def running(
    *argv: str, given: bytes = b"", source: Path | None = None, who: Who | None = None
) -> Step:
    """A step that runs a program; `given`, which is also in the file `source`, is its input."""
    shown = shlex.join(argv)
    if who and not who.is_us:
        shown = f"sudo -u {shlex.quote(who.name)} {shown}"
    if source:
        shown += f" < {shlex.quote(str(source))}"
    return Step(shown, partial(run, *argv, given=given, who=who))


def run(*argv: str, given: bytes = b"", who: Who | None = None) -> str:
    """Run a program and return its output. Raises MachineError with its error message."""
    other = who if who and not who.is_us else None
    try:
        done = subprocess.run(
            argv,
            input=given,
            capture_output=True,
            env=environment(),
            cwd="/",
            user=other.uid if other else None,
            group=other.gid if other else None,
            extra_groups=() if other else None,
        )
    except OSError as error:
        raise MachineError(
            f"cannot run {argv[0]}: {error.strerror}", hint=f"ls -l {shlex.quote(argv[0])}"
        ) from error
    if done.returncode != 0:
        complaint = _complaint(done.stdout + b"\n" + done.stderr)
        name = Path(argv[0]).name
        raise MachineError(
            f"{name}: {complaint or f'exit status {done.returncode}'}", hint=shlex.join(argv)
        )
    return done.stdout.decode(errors="replace")


def _complaint(output: bytes) -> str | None:
    """The last line that looks like an error message, or the last line."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower() or "could not" in line]
    return next(reversed(telling or lines), None)


def put_file(file: Path, content: bytes, source: Path) -> Step:
    """A step that writes a world-readable file, whose content is also in the file `source`."""
    shown = shlex.join(["install", "-m", "644", str(source), str(file)])
    return Step(shown, partial(replace_content, file, content))


def remove_file(file: Path) -> Step:
    """A step that removes a file."""
    return Step(shlex.join(["rm", str(file)]), partial(_remove, file))


def replace_content(file: Path, content: bytes) -> None:
    """Write a file atomically; its mode and owner are kept (0644, ours, for a new file).

    Raises MachineError.
    """
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(6)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                if file.exists():
                    before = file.stat()
                    os.fchown(descriptor, before.st_uid, before.st_gid)
                    os.fchmod(descriptor, before.st_mode & 0o7777)
                else:
                    os.fchmod(descriptor, 0o644)
                stream.write(content)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _failure("write", error, file) from error


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise _failure("remove", error) from error


def _failure(what: str, error: OSError, file: Path | None = None) -> MachineError:
    where = file or error.filename
    hint = f"ls -ld {shlex.quote(str(Path(str(where)).parent))}"
    return MachineError(f"cannot {what} {where}: {error.strerror}", hint=hint)
