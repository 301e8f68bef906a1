"""The databases of NSS: one in each profile of Firefox or Thunderbird, and one that Chromium and
Chrome share. They are their user's, and certutil is run as that user.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.invoker import sudo_user
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

__all__ = ["NssStore"]

_PLACES: Final = (
    ".pki/nssdb",
    "snap/chromium/current/.pki/nssdb",
    ".mozilla/firefox/*",
    ".config/mozilla/firefox/*",
    "snap/firefox/common/.mozilla/firefox/*",
    ".var/app/org.mozilla.firefox/.mozilla/firefox/*",
    ".thunderbird/*",
)
_DATABASE: Final = "cert9.db"

_LISTED: Final = re.compile(r"(.*\S)\s+([a-zA-Z]*),[a-zA-Z]*,[a-zA-Z]*\s*")
_TRUSTED_FOR_SERVERS: Final = "C"
_TRUST: Final = "C,,"


@dataclass(frozen=True, slots=True)
class NssStore:
    """The database in a directory."""

    place: Path
    who: Who

    kind = Kind.NSS

    @classmethod
    def find(cls, directory: Path | None = None) -> list[NssStore]:
        """Those in a home directory: the invoking user's."""
        user = sudo_user()
        who = Who(user.pw_uid, user.pw_gid) if user else Who(os.geteuid(), os.getegid())
        places = (directory or home()).glob
        return [
            cls(file.parent, who)
            for pattern in _PLACES
            for file in sorted(places(f"{pattern}/{_DATABASE}"))
        ]

    def trusted(self) -> list[bytes]:
        names = [name for name, trust in self._listed().items() if _TRUSTED_FOR_SERVERS in trust]
        return [der for name in names for der in self._named(name)]

    def check_access(self) -> str | None:
        return None if os.access(self.place, os.W_OK) else "its owner"

    def install(self, certificate: x509.Certificate, source: Path) -> tuple[Entry, list[Step]]:
        entry = new_entry(self.kind, self.place, certificate, {})
        add = ("-A", "-a", "-t", _TRUST, "-n", name_of(entry.sha256))
        pem = certificate.public_bytes(Encoding.PEM)
        step = running(*self._command(*add), given=pem, source=source, who=self.who)
        return entry, [step]

    def uninstall(self, entry: Entry) -> list[Step]:
        name = name_of(entry.sha256)
        if name not in self._listed() or entry.sha256 not in map(sha256_of, self._named(name)):
            return []
        return [running(*self._command("-D", "-n", name), who=self.who)]

    def _listed(self) -> dict[str, str]:
        """The names of the certificates, and what each is trusted for in TLS."""
        lines = self._certutil("-L").splitlines()
        return {match[1]: match[2] for line in lines if (match := _LISTED.fullmatch(line))}

    def _named(self, name: str) -> Iterator[bytes]:
        """The certificates of that name; those of the same subject come with them."""
        return certificates_in(self._certutil("-L", "-a", "-n", name).encode())

    def _certutil(self, *arguments: str) -> str:
        return run(*self._command(*arguments), who=self.who)

    def _command(self, *arguments: str) -> tuple[str, ...]:
        find_tool("certutil")
        return ("certutil", "-d", f"sql:{self.place}", *arguments)
