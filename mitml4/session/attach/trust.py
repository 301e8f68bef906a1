"""Lets programs that run already in a container trust the CA: the container's own files of roots
are covered with copies that have it too, and uncovered when the session ends.

Each file stays what it was, with one certificate more. Where there is none, none is made.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import crypto

from mitml4.errors import MachineError
from mitml4.net.attach.covers import Covers
from mitml4.net.attach.leftovers import is_covered_by_a_session
from mitml4.net.attach.programs import ProgramGroup
from mitml4.net.attach.target import Target
from mitml4.regex import regex
from mitml4.session.attach.key_stores import KeyStores
from mitml4.session.attach.roots import (
    BUNDLES,
    has_own_roots,
    places_of_directories,
    places_of_files,
)
from mitml4.tls.trust_store import certificates_in, merged_bundle

__all__ = ["ContainerTrust", "with_certificate"]

_LONGEST: Final = 16 << 20
_SHOWN: Final = 3
_TOLD_AFTER_S: Final = 0.5
_MAX_S: Final = 10.0
"""How long files are covered; after that, one more for each group of programs."""
_MARK: Final = b"CERTIFICATE-----"
_HASHED: Final = regex(r"[0-9a-f]{8}\.[0-9]+")


class ContainerTrust:
    """The files of roots of the programs in a network namespace. Close it, which uncovers them."""

    def __init__(
        self,
        target: Target,
        found: list[tuple[ProgramGroup, Covers]],
        stores: KeyStores,
        failures: list[str],
    ) -> None:
        self._target = target
        self._found = found
        self._stores = stores
        self._failures = failures

    @classmethod
    def open(cls, target: Target, programs: Iterable[ProgramGroup], left_out: int = 0) -> Self:
        """Start helpers, before any thread is started. The caller closes the groups; `left_out` is
        how many more there are. Raises MachineError."""
        stores = KeyStores.start()
        found: list[tuple[ProgramGroup, Covers]] = []
        failures: list[str] = []
        if left_out:
            failures.append(f"those of programs in {left_out} more mount namespaces")
        for group in programs:
            try:
                found.append((group, Covers.start(group.namespace)))
            except MachineError as error:
                failures.append(f"those of process {group.pid} ({error.message})")
        return cls(target, found, stores, failures)

    @property
    def channels(self) -> list[int]:
        """They become readable when a helper has ended."""
        return [covers.channel.fileno() for _, covers in self._found]

    def roots(self) -> list[bytes]:
        """The roots of the first bundle that is found, as DER; empty if there is none."""
        for group, _ in self._found:
            for path in BUNDLES:
                if found := list(certificates_in(group.root.read(path, _LONGEST) or b"")):
                    return found
        return []

    def lay(self, certificate: x509.Certificate) -> Iterator[str]:
        """Cover the files, for a limited time. Yields notes to the user."""
        covered: list[str] = []
        is_trusted = False
        what = self._target.what
        is_covered = any(is_covered_by_a_session(group.pid) for group, _ in self._found)
        began = time.monotonic()
        is_told = False
        for group, covers in self._found:
            laying = _Laying(group, covers, self._stores, certificate)
            for path in chain(laying.directories(), laying.files()):
                if path:
                    covered.append(path)
                took_s = time.monotonic() - began
                if took_s > _TOLD_AFTER_S and not is_told:
                    is_told = True
                    yield f"looking for roots in the files of {what}"
                if took_s > _MAX_S:
                    laying.failures.append(f"those of process {group.pid} (too many, or too slow)")
                    break
            self._failures += laying.failures
            is_trusted |= laying.is_trusted
        if covered:
            yield (
                f"programs of {what} trust the CA from now on ({_listed(covered)}); those that "
                "have read their roots before are passed through until they are restarted"
            )
        elif is_trusted:
            yield f"programs of {what} trust the CA already"
        elif self._found and not self._failures:
            yield f"{what} has no file of roots that is known: its programs do not trust the CA"
        elif not self._failures:
            yield f"{what} shares the files of this host: its programs trust what this host trusts"
        if is_covered:
            yield (
                f"another session has covered files of {what}: when it ends, programs trust this "
                "session's CA no more, until this session is started again"
            )
        if self._failures:
            yield f"not all files of roots could be covered: {_listed(self._failures)}"
        if own := {name for group, _ in self._found for name in has_own_roots(group)}:
            yield (
                f"{', '.join(sorted(own))} has its roots built in: it trusts the CA once it is "
                "started with NODE_EXTRA_CA_CERTS, or NODE_OPTIONS=--use-openssl-ca"
            )

    def restrict(self) -> None:
        """From now on, only uncover. Raises MachineError."""
        self._stores.close()
        for _, covers in self._found:
            covers.restrict()

    def close(self) -> None:
        self._stores.close()
        for _, covers in self._found:
            covers.close()


class _Laying:
    """Covers the files of one mount namespace."""

    def __init__(
        self,
        group: ProgramGroup,
        covers: Covers,
        stores: KeyStores,
        certificate: x509.Certificate,
    ) -> None:
        self._group = group
        self._root = group.root
        self._covers = covers
        self._stores = stores
        self._certificate = certificate
        self._der = certificate.public_bytes(Encoding.DER)
        self.failures: list[str] = []
        self.is_trusted = False
        """Whether a file has the certificate already."""

    def files(self) -> Iterator[str | None]:
        """Cover them. Yields the path of each that was covered, and None for each other one, since
        reading them takes time, too."""
        for path, target in self._distinct(places_of_files(self._group), stat.S_ISREG):
            content = self._root.read(path, _LONGEST) or b""
            self.is_trusted |= self._der in certificates_in(content)
            if _MARK in content:
                merged = with_certificate(content, self._der)
            else:
                merged = self._store(path, content)
            does = partial(self._covers.file, target, merged or b"")
            yield path if merged and self._does(path, target, does) else None

    def _store(self, path: str, content: bytes) -> bytes | None:
        try:
            return self._stores.with_certificate(content, self._der)
        except (OSError, MachineError) as error:
            self._fail(path, error)
            return None

    def directories(self) -> Iterator[str | None]:
        """Cover those in which OpenSSL finds roots by their hashes. Yields as `files`."""
        hashed = crypto.X509.from_cryptography(self._certificate).subject_name_hash()
        for path, target in self._distinct(places_of_directories(self._group), stat.S_ISDIR):
            names = set(self._root.names(path))
            if not any(map(_HASHED.fullmatch, names)):
                continue
            number = 0
            while (name := f"{hashed:08x}.{number}") in names:
                if self._der in certificates_in(self._root.read(f"{path}/{name}", _LONGEST) or b""):
                    break
                number += 1
                yield None
            else:
                pem = merged_bundle([self._der])
                added = {name: pem, f"{name}.pem": pem}  # for OpenSSL, and for Guile
                does = partial(self._covers.directory, target, added)
                yield path if self._does(path, target, does) else None

    def _does(self, path: str, target: int, cover: Callable[[], None]) -> bool:
        """Cover a file, unless the cover would be seen elsewhere."""
        if self._group.is_shared(target):
            self.failures.append(f"{path} (it is seen outside, too)")
            return False
        try:
            cover()
        except (OSError, MachineError) as error:
            self._fail(path, error)
            return False
        return True

    def _fail(self, path: str, error: OSError | MachineError) -> None:
        reason = error.message if isinstance(error, MachineError) else error.strerror
        self.failures.append(f"{path} ({reason})")

    def _distinct(
        self, paths: Iterable[str], is_kind: Callable[[int], bool]
    ) -> Iterator[tuple[str, int]]:
        """Each file once, with a descriptor, for what is done with it."""
        seen: set[tuple[int, int]] = set()
        for path in paths:
            with suppress(OSError), self._root.opened(path) as target:
                found = os.fstat(target)
                if not is_kind(found.st_mode) or (found.st_dev, found.st_ino) in seen:
                    continue
                yield path, target
                seen.add((found.st_dev, found.st_ino))
                with self._root.opened(path) as cover:
                    found = os.fstat(cover)
                    seen.add((found.st_dev, found.st_ino))


def with_certificate(bundle: bytes, certificate: bytes) -> bytes | None:
    """A PEM bundle with one certificate (DER) more. None if it has it already."""
    if certificate in certificates_in(bundle):
        return None
    return bundle + (b"" if bundle.endswith(b"\n") else b"\n") + merged_bundle([certificate])


def _listed(paths: list[str]) -> str:
    """The same path may be covered in several containers of a pod."""
    distinct = list(dict.fromkeys(paths))
    shown = ", ".join(distinct[:_SHOWN])
    return shown if len(distinct) <= _SHOWN else f"{shown} and {len(distinct) - _SHOWN} more"
