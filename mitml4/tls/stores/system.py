"""The system's store: a directory of certificates, from which a tool of the distribution makes a
bundle for OpenSSL, GnuTLS, Go, and most other programs.

Debian's tool does not notice files that were removed from the directory: the links in
/etc/ssl/certs dangle, and Java keeps the certificate. But it removes certificates that its
configuration deselects, also from Java's store.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.dataclass import dataclass
from mitml4.errors import MachineError
from mitml4.tls.java_keystore import jks_order, reorder_jks
from mitml4.tls.stores.store import (
    Entry,
    Kind,
    Step,
    find_tool,
    name_of,
    new_entry,
    put_file,
    remove_file,
    replace_content,
    run,
    running,
    sha256_of,
)
from mitml4.tls.trust_store import certificates_of

__all__ = ["SystemStore", "order_of", "put_into_order"]


@dataclass(frozen=True, slots=True)
class _Layout:
    """The layout of a distribution: paths below the root, and the tool with its arguments."""

    anchors: str
    update: tuple[str, ...]
    bundle: str


_FEDORA: Final = _Layout(
    "etc/pki/ca-trust/source/anchors",
    ("update-ca-trust", "extract"),
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
)
_SUSE: Final = _Layout(
    "etc/pki/trust/anchors",
    ("update-ca-certificates",),
    "var/lib/ca-certificates/ca-bundle.pem",
)
_ARCH: Final = _Layout(
    "etc/ca-certificates/trust-source/anchors",
    ("trust", "extract-compat"),
    "etc/ca-certificates/extracted/tls-ca-bundle.pem",
)
_DEBIAN: Final = _Layout(  # also Ubuntu, Alpine, Gentoo, Void
    "usr/local/share/ca-certificates",
    ("update-ca-certificates",),
    "etc/ssl/certs/ca-certificates.crt",
)
_LAYOUTS: Final = (_FEDORA, _SUSE, _ARCH, _DEBIAN)

_DEBIANS_CONFIGURATION: Final = "etc/ca-certificates.conf"
_DEBIANS_JAVA: Final = "etc/ssl/certs/java/cacerts"
_DESELECTS: Final = b"--certsconf"


@dataclass(frozen=True, slots=True)
class SystemStore:
    """The store of the system with this root directory."""

    layout: _Layout
    root: Path

    kind = Kind.SYSTEM

    @classmethod
    def find(cls, root: Path = Path("/")) -> SystemStore | None:
        """None for an unknown layout. Raises MissingToolError."""
        for layout in _LAYOUTS:
            if (root / layout.anchors).is_dir():
                find_tool(layout.update[0])
                return cls(layout, root)
        return None

    @property
    def place(self) -> Path:
        return self.root / self.layout.anchors

    def trusted(self) -> list[bytes]:
        return list(certificates_of(self.root / self.layout.bundle))

    def check_access(self) -> str | None:
        return None if os.access(self.place, os.W_OK) and os.geteuid() == 0 else "root"

    def install(self, certificate: x509.Certificate, source: Path) -> tuple[Entry, list[Step]]:
        orders = order_of(self._java) if self.layout is _DEBIAN else {}
        entry = new_entry(self.kind, self.place, certificate, orders)
        pem = certificate.public_bytes(Encoding.PEM)
        return entry, [put_file(self._file(entry.sha256), pem, source), self._update()]

    def uninstall(self, entry: Entry) -> list[Step]:
        file = self._file(entry.sha256)
        steps: list[Step] = []
        if os.path.lexists(file):
            if not _holds(file, entry.sha256):
                raise MachineError(
                    f"{file} is no longer what was installed: it stays",
                    hint=f"openssl x509 -noout -subject -in {shlex.quote(str(file))}",
                )
            steps.append(remove_file(file))
        elif entry.sha256 not in map(sha256_of, self.trusted()):
            return []
        if self._can_deselect():
            steps.append(self._deselect(file))
        else:
            steps.append(self._update())
        return [*steps, *put_into_order(entry, self._java)]

    @property
    def _java(self) -> Path:
        """The key store that Debian's tool changes as well."""
        return (self.root / _DEBIANS_JAVA).resolve()

    def _file(self, sha256: str) -> Path:
        return self.place / f"{name_of(sha256)}.crt"

    def _update(self) -> Step:
        return running(*self.layout.update)

    def _can_deselect(self) -> bool:
        """Whether the tool is Debian's."""
        tool = Path(find_tool(self.layout.update[0]))
        return self.layout is _DEBIAN and _DESELECTS in tool.read_bytes()

    def _deselect(self, file: Path) -> Step:
        configuration = self.root / _DEBIANS_CONFIGURATION
        shown = (
            f"update-ca-certificates --certsconf CONF"
            f"  # CONF: {shlex.quote(str(configuration))}, and !{file.name}"
        )
        return Step(
            shown, partial(_update_without, self.layout.update[0], configuration, file.name)
        )


def order_of(keystore: Path) -> dict[str, list[str]]:
    """For `Entry.orders`: the order of a JKS; empty if there is none."""
    try:
        order = jks_order(keystore.read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(keystore): order} if order else {}


def put_into_order(entry: Entry, keystore: Path) -> Iterator[Step]:
    """The step that restores the order of a JKS's entries, if it is known."""
    if order := entry.orders.get(str(keystore)):
        shown = f"# the entries of {keystore} back into their order"
        yield Step(shown, partial(_reorder, keystore, order))


def _reorder(keystore: Path, order: list[str]) -> None:
    """A file that is not a JKS any more, or has another password, is left as it is."""
    try:
        before = keystore.read_bytes()
        after = reorder_jks(before, order)
    except (OSError, ValueError):
        return
    if after != before:
        replace_content(keystore, after)


def _update_without(tool: str, configuration: Path, name: str) -> None:
    """Uses a temporary configuration in memory, so that none can be left."""
    try:
        lines = configuration.read_bytes().rstrip(b"\n")
    except OSError:
        lines = b""
    with os.fdopen(os.memfd_create(configuration.name), "wb") as changed:
        changed.write(b"%s\n!%s\n" % (lines, name.encode()))
        changed.flush()
        run(tool, "--certsconf", f"/proc/{os.getpid()}/fd/{changed.fileno()}")


def _holds(file: Path, sha256: str) -> bool:
    return [sha256_of(der) for der in certificates_of(file)] == [sha256]
