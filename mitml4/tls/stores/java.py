"""The key stores in which each JDK keeps the roots that it trusts, changed by its keytool.

Many of them are one and the same file, and many distributions make it anew whenever the system's
store changes: those follow that one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.errors import MachineError
from mitml4.tls.java_keystore import PASSWORD, read_entries
from mitml4.tls.stores.store import (
    Entry,
    Kind,
    Step,
    Who,
    find_tool,
    name_of,
    new_entry,
    running,
)
from mitml4.tls.stores.system import order_of, put_into_order

__all__ = ["JavaStore"]

_IN_A_JDK: Final = ("lib/security/cacerts", "jre/lib/security/cacerts")
_JDKS: Final = ("usr/lib/jvm/*", "usr/java/*", "opt/java/*")
_SHARED: Final = ("etc/ssl/certs/java/cacerts", "etc/pki/java/cacerts")
# Made by a hook of update-ca-certificates (Debian, Alpine), or by p11-kit (Fedora, Arch, openSUSE).
_HOOKS: Final = ("etc/ca-certificates/update.d/*jks*", "etc/ca-certificates/update.d/*java*")
_HOOKED: Final = "etc/ssl/certs/java/cacerts"
_EXTRACTED: Final = (
    "etc/pki/ca-trust/extracted",
    "etc/ca-certificates/extracted",
    "var/lib/ca-certificates",
)


@dataclass(frozen=True, slots=True)
class JavaStore:
    """A key store; `place` is the file itself, no link to it."""

    place: Path
    follows_system: bool

    kind = Kind.JAVA

    @classmethod
    def find(cls, environ: Mapping[str, str], root: Path = Path("/")) -> list[JavaStore]:
        """Those of every JDK that is where one looks for it, each once."""
        real = (path.resolve() for path in _candidates(environ, root) if path.is_file())
        return [cls(path, _follows_system(path, root)) for path in dict.fromkeys(real)]

    def trusted(self) -> list[bytes]:
        return [der for _, der in self._entries()]

    def check_access(self) -> str | None:
        return None if os.access(self.place, os.W_OK) else self._owner().name

    def install(self, certificate: x509.Certificate, source: Path) -> tuple[Entry, list[Step]]:
        entry = new_entry(self.kind, self.place, certificate, order_of(self.place))
        arguments = ("-importcert", "-noprompt", *self._alias(entry.sha256))
        pem = certificate.public_bytes(Encoding.PEM)
        return entry, [self._keytool(*arguments, given=pem, source=source)]

    def uninstall(self, entry: Entry) -> list[Step]:
        if name_of(entry.sha256) not in dict(self._entries()):
            return []
        delete = self._keytool("-delete", *self._alias(entry.sha256))
        return [delete, *put_into_order(entry, self.place)]

    def _entries(self) -> list[tuple[str, bytes]]:
        try:
            return read_entries(self.place.read_bytes())
        except OSError as error:
            raise MachineError(f"cannot read {self.place}: {error.strerror}") from error
        except ValueError as error:
            raise MachineError(f"cannot read {self.place}: {error}") from error

    def _keytool(self, *arguments: str, given: bytes = b"", source: Path | None = None) -> Step:
        find_tool("keytool")
        store = ("-keystore", str(self.place), "-storepass", PASSWORD)
        command = ("keytool", *arguments, *store)
        return running(*command, given=given, source=source, who=self._owner())

    @staticmethod
    def _alias(sha256: str) -> tuple[str, ...]:
        return ("-alias", name_of(sha256))

    def _owner(self) -> Who:
        """It is changed by whom it belongs to, who may be anybody if it is in a user's home."""
        status = self.place.stat()
        return Who(status.st_uid, status.st_gid)


def _candidates(environ: Mapping[str, str], root: Path) -> Iterator[Path]:
    homes = [Path(environ["JAVA_HOME"])] if environ.get("JAVA_HOME") else []
    if java := shutil.which("java", path=environ.get("PATH")):
        homes.append(Path(java).resolve().parents[1])
    for pattern in _JDKS:
        homes += sorted(root.glob(pattern))
    for each in homes:
        yield from (each / inside for inside in _IN_A_JDK)
    yield from (root / shared for shared in _SHARED)


def _follows_system(keystore: Path, root: Path) -> bool:
    if keystore == (root / _HOOKED).resolve() and any(
        any(root.glob(pattern)) for pattern in _HOOKS
    ):
        return True
    return any(keystore.is_relative_to((root / place).resolve()) for place in _EXTRACTED)
