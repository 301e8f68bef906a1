"""Lets the browsers of a command trust the session's CA. They read NSS databases, no files.

Each existing NSS database is read together with one of ours, by an entry in its `pkcs11.txt`
(`tls/nss_database.py`); what browsers write still goes to their own. Chromium's database is created
if there is none. A profile that Firefox creates during the session is only reached by an enterprise
policy: Firefox copies our certificate into the profile's database, and `withdraw` removes it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.errors import MachineError
from mitml4.files import open_input
from mitml4.invoker import home_in, sudo_user
from mitml4.net.namespace.namespace import Namespace
from mitml4.tls.nss_database import (
    CERTIFICATES_FILE,
    MODULES_FILE,
    initial_modules,
    modules_with,
    remove_certificate,
    trusting_database,
)
from mitml4.tls.nss_places import NssPlaces

__all__ = ["BrowserTrust", "withdraw"]

_OURS: Final = "mitml4-nss"
_CERTIFICATE: Final = "ca-{}.pem"

_POLICIES: Final = "policies.json"
_SYSTEM_POLICIES: Final = "/etc/*/policies"
"""Firefox and its derivatives read the policies in their own directory only if there are none
here."""
_DISTRIBUTION: Final = "distribution"
_APPLICATION: Final = "application.ini"
"""The file that identifies the directory of Firefox, Thunderbird or a derivative."""
_APPLICATIONS: Final = ("/usr/lib/*", "/usr/lib64/*", "/usr/local/lib/*", "/opt/*")


class BrowserTrust:
    """The files and mounts by which browsers in a namespace find the CA."""

    def __init__(
        self,
        certificates: Sequence[x509.Certificate],
        environ: Mapping[str, str],
        argv: Sequence[str],
        directory: Path,
    ) -> None:
        """`directory` is where `files` will be in the namespace; `argv` is the command, which may
        name a profile."""
        self._certificates = certificates
        self._environ = environ
        self._argv = argv
        self._directory = directory / _OURS
        self._places = _places(environ)
        self._modules = dict(self._modules_of(_find_databases(environ, argv)))

    @property
    def files(self) -> dict[str, bytes]:
        """The files to create: name below the directory to content."""
        files = trusting_database(*self._certificates)
        for number, certificate in enumerate(self._certificates):
            files[_CERTIFICATE.format(number)] = certificate.public_bytes(Encoding.PEM)
        for number, (modules, _) in enumerate(self._modules.values()):
            files[f"{number}.txt"] = modules_with(modules, self._directory)
        return {f"{_OURS}/{name}": content for name, content in files.items()}

    def show(self, namespace: Namespace) -> None:
        """Mount them where browsers look. Mounts that this machine does not allow are skipped."""
        for number, (file, (_, stopgap)) in enumerate(self._modules.items()):
            with contextlib.suppress(MachineError):
                namespace.cover(file, self._directory / f"{number}.txt", stopgap=stopgap)
        for directory in _policy_directories(self._environ, self._argv):
            with contextlib.suppress(MachineError):
                _show_policy(namespace, directory, self._installed)

    @property
    def _installed(self) -> list[str]:
        numbers = range(len(self._certificates))
        return [str(self._directory / _CERTIFICATE.format(number)) for number in numbers]

    def _modules_of(
        self, databases: Iterable[Path]
    ) -> Iterator[tuple[Path, tuple[bytes, bytes | None]]]:
        """For each database its list of modules: the file, its content, and the content to create
        it with if it does not exist."""
        shared = self._places.shared
        may_be_made = [shared] if _is_ours(self._places.home) or _is_plain(shared) else []
        for directory in dict.fromkeys((*databases, *may_be_made)):
            file = directory / MODULES_FILE
            initial = initial_modules(directory)
            try:
                with open(open_input(file), "rb") as stream:
                    content = stream.read()
            except FileNotFoundError:
                if directory.exists() and not _is_ours(directory):
                    continue
                content = initial
            except OSError:
                continue
            yield file, (content, initial if content == initial else None)


def withdraw(
    environ: Mapping[str, str], argv: Sequence[str], certificates: Sequence[bytes]
) -> None:
    """Remove certificates (DER) from profiles into which Firefox has copied them."""
    for database in filter(_is_ours, _find_databases(environ, argv)):
        with contextlib.suppress(sqlite3.Error):
            for der in certificates:
                remove_certificate(database, x509.load_der_x509_certificate(der))


def _places(environ: Mapping[str, str]) -> NssPlaces:
    return NssPlaces.of(home_in(environ) or Path("/"), environ)


def _find_databases(environ: Mapping[str, str], argv: Sequence[str]) -> list[Path]:
    user = sudo_user()  # the command may switch to this user: Chromium refuses to run as root
    users_places = NssPlaces.of(Path(user.pw_dir), {}) if user else _places(environ)
    named = [Path(each.rpartition("=")[2]) for each in argv[1:]]
    found = [each for each in named if _is_file(each / CERTIFICATES_FILE)]
    found += _places(environ).databases() + users_places.databases()
    return list(dict.fromkeys(each.resolve() for each in found))


def _policy_directories(environ: Mapping[str, str], argv: Sequence[str]) -> list[Path]:
    """The system's directories that have policies, and the directory of each program."""
    system = [each for each in _globbed(_SYSTEM_POLICIES) if _is_file(each / _POLICIES)]
    programs = [*argv[:1], "firefox", "firefox-esr", "thunderbird", "librewolf"]
    found = (shutil.which(each, path=environ.get("PATH")) for each in programs)
    applications = [Path(each).resolve().parent for each in found if each]
    applications += [found for each in _APPLICATIONS for found in _globbed(each)]
    own = [each / _DISTRIBUTION for each in applications if _is_file(each / _APPLICATION)]
    return list(dict.fromkeys(each.resolve() for each in (*system, *own)))


def _show_policy(namespace: Namespace, directory: Path, installed: Sequence[str]) -> None:
    """Mount a policy that adds the certificates to the existing policies. Raises MachineError."""
    if not directory.is_dir():
        namespace.extend(directory.parent, directory.name)
    policies = _read_policies(directory / _POLICIES)
    certificates = policies.setdefault("policies", {}).setdefault("Certificates", {})
    certificates["Install"] = [*certificates.get("Install", ()), *installed]
    namespace.mount_files(directory, {_POLICIES: json.dumps(policies).encode()})


def _read_policies(file: Path) -> dict[str, Any]:
    """The policies in a file; empty if Firefox could not read them."""
    try:
        policies = json.loads(file.read_bytes())
        certificates = policies["policies"].get("Certificates", {})
        if isinstance(certificates.get("Install", []), list):
            assert isinstance(policies, dict)
            return policies
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        pass
    return {}


def _globbed(pattern: str) -> list[Path]:
    return sorted(Path("/").glob(pattern.removeprefix("/")))


def _is_file(path: Path) -> bool:
    """Whether this is a file that may be read."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _is_ours(directory: Path) -> bool:
    try:
        return directory.stat().st_uid == os.geteuid()
    except OSError:
        return False


def _is_plain(path: Path) -> bool:
    """Whether the path has no symbolic link, by which its owner could redirect root."""
    return path.resolve() == path
