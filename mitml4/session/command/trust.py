"""Lets a command trust the session's CAs, by files in its mount namespace and by variables.

The system's bundle of roots is replaced, for the command only, by one that has our CAs as well, so
that most programs need no variable. Variables are set for programs that have their own roots, and
replaced where the environment names other roots (`session/command/roots.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cryptography import x509
from OpenSSL import crypto

from mitml4.dataclass import dataclass
from mitml4.errors import MachineError
from mitml4.session.command.roots import Authorities, CommandRoots, Place
from mitml4.tls.java_keystore import write_jks, write_truststore
from mitml4.tls.trust_store import (
    BUNDLE_FILE,
    TRUSTSTORE_FILE,
    java_variable,
    merged_bundle,
    system_bundle,
)

__all__ = ["CommandTrust"]

_WITHOUT_BUNDLE = Path("/etc/ssl")
_OTHERS = "mitml4-roots"
"""A separate directory, since GnuTLS and Go read every file next to the system's bundle."""
_JAVA_STORE = "java/cacerts"  # Debian's; its JDKs link to it


@dataclass(frozen=True, slots=True)
class CommandTrust:
    """Files to mount over a directory, and the environment of the command."""

    directory: Path
    files: Mapping[str, bytes]
    environ: Mapping[str, str]
    builtin: tuple[x509.Certificate, ...]
    """The CAs for programs that have roots built in."""

    @classmethod
    def of(
        cls, roots: CommandRoots, authorities: Authorities, environ: Mapping[str, str]
    ) -> CommandTrust:
        """For an environment and the roots that it names.

        Raises MachineError if there is no place for a bundle.
        """
        bundle = _place_of_bundle()
        files: dict[str, bytes] = {}
        variables: dict[str, str] = {}
        paths: dict[Place, str] = {}
        for variable, place in roots.places.items():
            if place.is_directory:
                name = f"{_OTHERS}/{variable.lower()}"
                hashed = _hashed(authorities.shown_in(place))
                files |= {f"{name}/{file}": content for file, content in hashed.items()}
                variables[variable] = str(bundle.parent / name)
                continue
            if place not in paths:
                usual = place == roots.system
                paths[place] = bundle.name if usual else f"{_OTHERS}/{len(paths)}.pem"
                files[paths[place]] = merged_bundle(authorities.shown_in(place))
            variables[variable] = str(bundle.parent / paths[place])
        files[bundle.name] = merged_bundle(authorities.shown_in(roots.system))
        if roots.java:
            trusted = authorities.shown_in(roots.java)
            files[TRUSTSTORE_FILE] = write_truststore(trusted)
            variables |= java_variable(environ, bundle.parent / TRUSTSTORE_FILE)
        if roots.java and (bundle.parent / _JAVA_STORE).is_file():
            files[_JAVA_STORE] = write_jks(trusted)
        if any(bundle.parent.glob("*.0")):
            files |= _hashed(authorities.shown_in(Place(roots.system.set, ())))
        builtin = tuple(authorities.known_to(roots.builtin))
        return cls(bundle.parent, files, {**environ, **variables}, builtin)


def _place_of_bundle() -> Path:
    """The path of the bundle: the system's, if one is found in a known place."""
    if bundle := system_bundle():
        return bundle.resolve()
    if _WITHOUT_BUNDLE.is_dir():
        return _WITHOUT_BUNDLE / BUNDLE_FILE
    raise MachineError(
        "this system has no bundle of CA certificates where one is known to be",
        hint="apt install ca-certificates; or leave trust to the command: --no-trust",
    )


def _hashed(certificates: Iterable[bytes]) -> dict[str, bytes]:
    """The files that OpenSSL reads in a directory of certificates (c_rehash(1)): HASH.0, … Guile
    reads those whose names end in .pem."""
    return dict(_name_by_hash(certificates))


def _name_by_hash(certificates: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    seen: Counter[int] = Counter()
    for der in certificates:
        try:
            certificate = crypto.load_certificate(crypto.FILETYPE_ASN1, der)
        except crypto.Error:
            continue
        number = certificate.subject_name_hash()
        name, pem = f"{number:08x}.{seen[number]}", merged_bundle([der])
        yield name, pem
        yield f"{name}.pem", pem
        seen[number] += 1
