"""The roots that the programs of a command trust, by the variables in its environment.

A variable names a file of roots that a program trusts instead of its default roots, or in addition.
So the programs of one command may trust different servers, and each should accept the same servers
as without mitml4. Every place from which roots are read belongs to a set of roots. A server is
verified against each set. Each combination of sets has a CA that signs for the servers that verify
with exactly these sets. A place contains its own roots and the CAs of all combinations that include
its set:

    place                           its roots    CAs of
    the system's bundle             set 0        {0}, {0, 1}
    what CURL_CA_BUNDLE names       set 1        {1}, {0, 1}
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from itertools import chain, combinations
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.dataclass import dataclass
from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.trust_store import (
    BUNDLE_VARIABLES,
    builtin_roots,
    certificates_of,
    java_roots,
    system_roots,
)

__all__ = ["NAMING_ROOTS", "Authorities", "CommandRoots", "Place"]

_DIRECTORIES: Final = (
    *("SSL_CERT_DIR", "GIT_SSL_CAPATH", "PERL_LWP_SSL_CA_PATH", "HTTPS_CA_DIR"),
    *("LDAPTLS_CACERTDIR", "VAULT_CAPATH"),
)
"""Variables that name directories in which OpenSSL finds a root by its hash. The variables for a
file may name one, too, for some programs (requests, Bundler)."""

_ADDING: Final = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")
"""Variables whose roots are added to those built into the program."""

_ONLY_IF_NAMED: Final = (
    *("PGSSLROOTCERT", "LDAPTLS_CACERT", "HTTPS_CA_FILE", "WEBSOCKET_CLIENT_CA_BUNDLE"),
    *("BUNDLE_SSL_CA_CERT", "npm_config_cafile", "VAULT_CACERT", "HEX_CACERTS_PATH"),
)
"""Variables that are set only if the environment has them: the programs find the default roots
without."""

NAMING_ROOTS: Final = (*BUNDLE_VARIABLES, *_ONLY_IF_NAMED, *_DIRECTORIES)
"""All variables that name files or directories of roots."""

_OPENSSL: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_INSTEAD: Final[Mapping[str, tuple[str, ...]]] = {
    "SSL_CERT_FILE": ("SSL_CERT_DIR",),
    # pip reads these two before its own (`Session.merge_environment_settings` of requests).
    "CURL_CA_BUNDLE": (*_OPENSSL, "PIP_CERT"),
    "REQUESTS_CA_BUNDLE": ("CURL_CA_BUNDLE", "PIP_CERT"),
    "PIP_CERT": ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", *_OPENSSL),
    "GIT_SSL_CAINFO": ("GIT_SSL_CAPATH",),
    "CARGO_HTTP_CAINFO": _OPENSSL,
    "AWS_CA_BUNDLE": ("REQUESTS_CA_BUNDLE",),
    "NIX_SSL_CERT_FILE": _OPENSSL,
    "PERL_LWP_SSL_CA_FILE": ("HTTPS_CA_FILE", "PERL_LWP_SSL_CA_PATH", "HTTPS_CA_DIR", *_OPENSSL),
}
"""Variables that a program reads if the first one is unset. If the environment has one of them, the
first must stay unset."""

_USUAL_FILES: Final[Mapping[str, str]] = {"PGSSLROOTCERT": ".postgresql/root.crt"}
"""Files in the home directory that programs read if the variable is unset. If this one exists,
libpq verifies against it, also with sslmode=require (PostgreSQL's documentation, "SSL Support")."""

_MAX_SETS: Final = 6
"""Six sets have 63 combinations. A variable that would need another set is left unchanged."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place from which programs read roots: the number of its set, and its roots."""

    set: int
    roots: tuple[bytes, ...]
    """DER."""
    is_directory: bool = False


class CommandRoots:
    """The sets of roots (DER) of an environment, and the places that its variables name."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.system = Place(0, tuple(system_roots()))
        self.sets: list[frozenset[bytes]] = [frozenset(self.system.roots)]
        self._builtin = tuple(builtin_roots()) or self.system.roots
        self.builtin = Place(self._number(self._builtin) or 0, ())
        """The place for programs that have roots built in: it has only CAs."""
        self.places = dict(self._find_places())
        """By variable: the place that it will name, including variables for the system's bundle."""
        java = tuple(java_roots(environ)) or self.system.roots
        number = self._number(java)
        self.java = None if number is None else Place(number, java)

    def _find_places(self) -> Iterator[tuple[str, Place]]:
        read = cache(_roots_in)  # many variables may name one file
        for variable in NAMING_ROOTS:
            named = self._environ.get(variable) or self._usual_file(variable)
            others = _INSTEAD.get(variable, ())
            adds = variable in _ADDING
            if named:
                is_directory = variable in _DIRECTORIES or os.path.isdir(named)
                roots = read(named, is_directory)
                number = self._number((*self._builtin, *roots) if adds else roots)
                # What cannot be read stays: the program gets the same error as without mitml4.
                if roots and number is not None:
                    yield variable, Place(number, roots, is_directory)
            elif variable in BUNDLE_VARIABLES and not any(map(self._environ.get, others)):
                yield variable, self.builtin if adds else self.system

    def _usual_file(self, variable: str) -> str | None:
        """The file that a program reads if the variable is unset; None if we find none."""
        home, usual = self._environ.get("HOME"), _USUAL_FILES.get(variable)
        if not home or not usual:
            return None
        file = os.path.join(home, usual)
        return file if os.path.isfile(file) else None  # False too if the home is closed to us

    def _number(self, roots: Collection[bytes]) -> int | None:
        """The number of the set with these roots, added if new; None if there are too many sets."""
        found = frozenset(roots)
        if found not in self.sets:
            if len(self.sets) == _MAX_SETS:
                return None
            self.sets.append(found)
        return self.sets.index(found)


def _roots_in(named: str, is_directory: bool) -> tuple[bytes, ...]:
    files = [Path(named)]
    if is_directory:
        directories = map(Path, filter(None, named.split(":")))
        # as OpenSSL finds them: HASH.N
        files = [file for each in directories for file in sorted(each.glob("*.[0-9]"))]
    return tuple(chain.from_iterable(map(certificates_of, files)))


@dataclass(frozen=True, slots=True)
class Authorities:
    """A CA for each combination of sets. They exist as long as the session."""

    by_sets: Mapping[frozenset[int], CertificateAuthority]

    @classmethod
    def of(cls, sets: int) -> Authorities:
        """For this many sets."""
        numbers = range(sets)
        subsets = chain.from_iterable(combinations(numbers, size) for size in range(1, sets))
        run = secrets.token_hex(4)  # a command that is run inside trusts the CAs of both
        narrower = {
            frozenset(each): CertificateAuthority.generate(
                name=f"mitml4 CA of run {run}, for roots {', '.join(map(str, each))}"
            )
            for each in subsets
        }
        return cls({**narrower, frozenset(numbers): CertificateAuthority.generate()})

    @property
    def widest(self) -> CertificateAuthority:
        """The CA for servers that verify with every set."""
        return self.by_sets[max(self.by_sets, key=len)]

    def known_to(self, place: Place) -> list[x509.Certificate]:
        """The CA certificates that a place contains."""
        return [each.certificate for sets, each in self.by_sets.items() if place.set in sets]

    def shown_in(self, place: Place) -> list[bytes]:
        """All certificates that a place contains, DER."""
        ours = [each.public_bytes(Encoding.DER) for each in self.known_to(place)]
        return [*place.roots, *ours]
