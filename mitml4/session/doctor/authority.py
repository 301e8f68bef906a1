"""The certificate authority: whether it can be used, and who on this host trusts it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.errors import CertificateError, MachineError
from mitml4.session.doctor.check import Check, State, as_root
from mitml4.tls.ca import (
    CERTIFICATE_FILE,
    KEY_FILE,
    CertificateAuthority,
    default_directory,
)
from mitml4.tls.private_files import exists
from mitml4.tls.stores.system import SystemStore
from mitml4.tls.trust_store import roots

__all__ = ["check_authority"]


def check_authority(directory: Path | None) -> Iterator[Check]:
    """The one in a directory, or in the invoking user's own."""
    try:
        place = directory or default_directory()
    except CertificateError as error:
        command = "mitml4 ca generate --ca-dir ./mitml4-ca"
        yield _check("authority", "skip", error.message, (command,))
        return
    try:
        if not exists(place / CERTIFICATE_FILE) and not exists(place / KEY_FILE):
            yield _check("authority", "skip", f"none in {place}: the first session makes one")
            return
        authority = CertificateAuthority.load(place)
    except CertificateError as error:
        yield _check("authority", "fail", error.message, tuple(filter(None, [error.hint])))
        return
    yield _check_files(authority, place)
    yield _check_trust(authority, "" if directory is None else f" --ca-dir {_quoted(directory)}")


def _check_files(authority: CertificateAuthority, place: Path) -> Check:
    end = authority.certificate.not_valid_after_utc
    days = (end - datetime.now(UTC)).days
    found = f"{authority.subject} in {place}, valid until {end:%Y-%m-%d} ({days} days)"
    return _check("authority", "ok", found)


def _check_trust(authority: CertificateAuthority, options: str) -> Check:
    """That this host trusts it matters only for what is started here: `run` brings its own."""
    if authority.certificate.public_bytes(Encoding.DER) in _roots_of_system():
        return _check("trust", "ok", "the roots of this system contain it")
    found = "not among the roots of this system: clients that are started here will refuse it"
    return _check("trust", "skip", found, as_root(f"mitml4 ca install{options}"))


def _roots_of_system() -> list[bytes]:
    """As DER; of a system that keeps them where nobody would expect it, none."""
    try:
        store = SystemStore.find()
    except MachineError:  # without its tool the store can still be read
        store = None
    return store.trusted() if store else roots({})


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _check(name: str, state: State, found: str, remedy: tuple[str, ...] = ()) -> Check:
    return Check(group="ca", name=name, state=state, found=found, remedy=remedy)
