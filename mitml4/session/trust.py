"""How a command comes to trust the session's authority: files in its mount namespace, variables.

The directory of the system's bundle of roots is shown with a bundle that has ours as well, so that
programs find it without being told; the variables are for those with roots of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import crypto

from mitml4.errors import MachineError
from mitml4.tls.java_keystore import write_jks, write_truststore
from mitml4.tls.trust_store import (
    BUNDLE_FILE,
    TRUSTSTORE_FILE,
    UNSET_VARIABLES,
    java_roots,
    merged_bundle,
    roots,
    system_bundle,
    trust_variables,
)

__all__ = ["CommandTrust"]

_WITHOUT_BUNDLE = Path("/etc/ssl")
_JAVA_STORE = "java/cacerts"  # Debian's, to which every JDK of its links


@dataclass(frozen=True, slots=True)
class CommandTrust:
    """Files to show in a directory, and the environment to run in."""

    directory: Path
    files: Mapping[str, bytes]
    environ: Mapping[str, str]

    @classmethod
    def of(cls, certificate: x509.Certificate, environ: Mapping[str, str]) -> CommandTrust:
        """For an authority, and an environment to begin with.

        Raises MachineError where there is no place for a bundle.
        """
        ours = certificate.public_bytes(Encoding.DER)
        trusted = [*roots(environ), ours]
        bundle = merged_bundle(trusted)
        java_trusted = dict.fromkeys([*(java_roots(environ) or trusted), ours])
        place = _place()
        directory = place.parent
        files = {place.name: bundle, TRUSTSTORE_FILE: write_truststore(java_trusted)}
        if (directory / _JAVA_STORE).is_file():
            files[_JAVA_STORE] = write_jks(java_trusted)
        if any(directory.glob("*.0")):
            files[_hashed_name(certificate)] = certificate.public_bytes(Encoding.PEM)
        variables = trust_variables(environ, bundle=place, truststore=directory / TRUSTSTORE_FILE)
        kept = {name: value for name, value in environ.items() if name not in UNSET_VARIABLES}
        return cls(directory, files, kept | variables)


def _place() -> Path:
    """Where the bundle is to stand: over the system's, if there is one where we know to look."""
    if bundle := system_bundle():
        return bundle.resolve()
    if _WITHOUT_BUNDLE.is_dir():
        return _WITHOUT_BUNDLE / BUNDLE_FILE
    raise MachineError(
        "this system has no bundle of CA certificates where one is known to be",
        hint="apt install ca-certificates; or leave trust to the command: --no-trust",
    )


def _hashed_name(certificate: x509.Certificate) -> str:
    """What OpenSSL looks for in a directory of certificates (c_rehash(1))."""
    return f"{crypto.X509.from_cryptography(certificate).subject_name_hash():08x}.0"
