"""NSS databases: one in each profile of Firefox or Thunderbird, and one that Chromium and Chrome
share. They belong to their user, and certutil is run as that user.

Chromium creates its database when it first needs one. If it has not run yet, we create it, and
remove it again if it then contains nothing else.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.dataclass import dataclass
from mitml4.errors import MachineError
from mitml4.files import writable_by_invoker
from mitml4.invoker import sudo_user
from mitml4.regex import regex
from mitml4.tls.nss_database import CERTIFICATES_FILE, KEYS_FILE, MODULES_FILE
from mitml4.tls.nss_places import NssPlaces
from mitml4.tls.private_files import home
from mitml4.tls.stores.store import (
    Entry,
    Kind,
    Step,
    Who,
    find_tool,
    name_of,
    new_entry,
    run,
    running,
    sha256_of,
)
from mitml4.tls.trust_store import certificates_in

__all__ = ["NssStore", "has_firefox_without_profile"]

_CHROMIUMS: Final = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "brave-browser",
    "microsoft-edge",
    "vivaldi",
    "opera",
)
_CHROMIUMS_DATABASE: Final = "nssdb"
_FILES: Final = (CERTIFICATES_FILE, KEYS_FILE, MODULES_FILE)
_FIREFOXES: Final = ("firefox", "firefox-esr")
_DIRECTORIES: Final = ("XDG_DATA_HOME", "XDG_CONFIG_HOME")

_LISTED: Final = regex(r"(.*\S)\s+([a-zA-Z]*),[a-zA-Z]*,[a-zA-Z]*\s*")
_TRUSTED_FOR_SERVERS: Final = "C"
_TRUST: Final = "C,,"


@dataclass(frozen=True, slots=True)
class NssStore:
    """The database in a directory."""

    place: Path
    who: Who

    kind = Kind.NSS

    @classmethod
    def find(cls, environ: Mapping[str, str], directory: Path | None = None) -> list[NssStore]:
        """The databases in a home directory, the invoking user's, and Chromium's if it has to be
        created."""
        user = sudo_user()
        who = Who(user.pw_uid, user.pw_gid) if user else Who(os.geteuid(), os.getegid())
        places = _places(environ, directory or home())
        found = places.databases()
        if places.shared not in found and _is_installed(_CHROMIUMS, environ):
            found.append(places.shared)
        return [cls(place, who) for place in found]

    def trusted(self) -> list[bytes]:
        if not self._exists:
            return []
        names = [name for name, trust in self._listed().items() if _TRUSTED_FOR_SERVERS in trust]
        return [der for name in names for der in self._named(name)]

    def check_access(self) -> str | None:
        there = next(each for each in (self.place, *self.place.parents) if each.exists())
        return None if os.access(there, os.W_OK) else "its owner"

    def install(self, certificate: x509.Certificate, source: Path) -> tuple[Entry, list[Step]]:
        entry = replace(
            new_entry(self.kind, self.place, certificate, {}), created=self._missing_directories()
        )
        add = ("-A", "-a", "-t", _TRUST, "-n", name_of(entry.sha256))
        pem = certificate.public_bytes(Encoding.PEM)
        step = running(*self._command(*add), given=pem, source=source, who=self.who)
        return entry, [*self._creation(), step]

    def uninstall(self, entry: Entry) -> list[Step]:
        if not self._exists:
            return []
        name = name_of(entry.sha256)
        listed = self._listed()
        is_there = name in listed and entry.sha256 in map(sha256_of, self._named(name))
        steps = [running(*self._command("-D", "-n", name), who=self.who)] if is_there else []
        if entry.created and len(listed) == is_there and not self._has_keys():
            steps += self._removal(entry.created)
        return steps

    @property
    def _exists(self) -> bool:
        return (self.place / CERTIFICATES_FILE).exists()

    def _creation(self) -> list[Step]:
        """The steps that create it, as Chromium does: closed to others, without a password."""
        if self._exists:
            return []
        directories = str(self.place.parent), str(self.place)
        made = running("mkdir", "-p", "-m", "700", *directories, who=self.who)
        return [made, running(*self._command("-N", "--empty-password"), who=self.who)]

    def _missing_directories(self) -> list[str]:
        """Those that have to be created for it."""
        if self._exists:
            return []
        missing = [each for each in self.place.parents if not each.exists()]
        return [str(self.place), *map(str, missing)]

    def _removal(self, created: Sequence[str]) -> list[Step]:
        """The steps that remove it, and of its directories those that were created and are
        empty."""
        files = (str(self.place / name) for name in _FILES)
        own = [str(each) for each in (self.place, *self.place.parents) if str(each) in created]
        empty = ("rmdir", "--ignore-fail-on-non-empty", *own)
        return [running("rm", "-f", *files, who=self.who), running(*empty, who=self.who)]

    def _has_keys(self) -> bool:
        try:
            self._certutil("-K")
        except MachineError as error:
            return "no keys found" not in error.message
        return True

    def _listed(self) -> dict[str, str]:
        """The names of the certificates, and their trust flags for TLS."""
        lines = self._certutil("-L").splitlines()
        return {match[1]: match[2] for line in lines if (match := _LISTED.fullmatch(line))}

    def _named(self, name: str) -> Iterator[bytes]:
        """The certificates of that name; certutil returns those of the same subject with them."""
        return certificates_in(self._certutil("-L", "-a", "-n", name).encode())

    def _certutil(self, *arguments: str) -> str:
        return run(*self._command(*arguments), who=self.who)

    def _command(self, *arguments: str) -> tuple[str, ...]:
        find_tool("certutil")
        return ("certutil", "-d", f"sql:{self.place}", *arguments)


def has_firefox_without_profile(environ: Mapping[str, str], stores: Iterable[NssStore]) -> bool:
    """Whether there is a Firefox that has not been started yet, and so has no profile."""
    profiles = [each for each in stores if each.place.name != _CHROMIUMS_DATABASE]
    return not profiles and _is_installed(_FIREFOXES, environ)


def _places(environ: Mapping[str, str], directory: Path) -> NssPlaces:
    """Under sudo, environment variables count only if they name a place of the user's."""
    told = {name: environ[name] for name in _DIRECTORIES if environ.get(name)}
    theirs = {name: value for name, value in told.items() if writable_by_invoker(Path(value))}
    return NssPlaces.of(directory, theirs)


def _is_installed(names: Iterable[str], environ: Mapping[str, str]) -> bool:
    """Whether one of these programs is installed, but not as a snap, which uses another home."""
    found = (shutil.which(each, path=environ.get("PATH")) for each in names)
    return any(each and "snap" not in Path(each).resolve().parts for each in found)
