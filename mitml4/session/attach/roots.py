"""Where the programs of a container have their roots: files and directories that are usual, and
those that running programs name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import PurePosixPath
from typing import Final

from mitml4.net.attach.programs import Program, ProgramGroup
from mitml4.net.attach.root import Root
from mitml4.regex import regex
from mitml4.session.command.roots import NAMING_ROOTS

__all__ = ["BUNDLES", "VARIABLES", "has_own_roots", "places_of_directories", "places_of_files"]

_PREFIX_VARIABLES: Final = ("VIRTUAL_ENV", "JAVA_HOME", "CONDA_PREFIX")
VARIABLES: Final = frozenset(
    (*NAMING_ROOTS, *_PREFIX_VARIABLES, "JAVA_TOOL_OPTIONS", "NODE_OPTIONS")
)
"""The variables of programs that say where roots are."""

BUNDLES: Final = (
    # Go's crypto/x509/root_linux.go, in its order.
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Arch, Alpine, Gentoo, distroless
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/pki/tls/cacert.pem",  # OpenELEC
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # CentOS
    "/etc/ssl/cert.pem",  # Alpine
    # Others'.
    "/etc/ssl/certs/ca-bundle.crt",  # NixOS
    "/etc/pki/ca-trust/extracted/openssl/ca-bundle.trust.crt",
    "/etc/pki/tls/cert.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
    "/usr/lib/ssl/cert.pem",
    "/usr/local/ssl/cert.pem",
    "/usr/share/ssl/cert.pem",
    "/opt/*/ssl/cacert.pem",  # conda
)
_DIRECTORIES: Final = (
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted/pem/directory-hash",
    "/var/lib/ca-certificates/openssl",
    "/usr/lib/ssl/certs",
    "/usr/local/ssl/certs",
)
_KEYSTORES: Final = (
    "/etc/ssl/certs/java/cacerts",  # Debian
    "/etc/pki/java/cacerts",
    "/etc/pki/ca-trust/extracted/java/cacerts",  # Fedora
    "/var/lib/ca-certificates/java-cacerts",
    "/usr/lib/jvm/*/lib/security/cacerts",
    "/usr/lib/jvm/*/jre/lib/security/cacerts",
    "/usr/local/*/lib/security/cacerts",
    "/usr/java/*/lib/security/cacerts",
    "/opt/*/lib/security/cacerts",
    "/opt/*/*/lib/security/cacerts",
    "/opt/*/jre/lib/security/cacerts",
)
_INSIDE_PREFIX: Final = ("lib/security/cacerts", "jre/lib/security/cacerts")
_PYTHON_LIBRARIES: Final = ("lib/python3*", "lib64/python3*")
_SYSTEM_PREFIXES: Final = ("/usr", "/usr/local")
_PYTHON_PREFIXES: Final = (
    *(*_SYSTEM_PREFIXES, "/opt/*", "/root/.local", "/home/*/.local"),
    *("/.venv", "/venv", "/*/.venv", "/*/venv", "/*/env", "/*/*/.venv", "/*/*/venv"),
)
"""Where a container has its Python. On a host, which is larger, most of these belong to programs of
other networks."""
_IN_PACKAGES: Final = (
    "certifi/cacert.pem",
    "pip/_vendor/certifi/cacert.pem",
    "botocore/cacert.pem",
    "httplib2/cacerts.txt",
    "grpc/_cython/_credentials/roots.pem",
)
_PYTHON: Final = regex(r"python[0-9.]*|pypy[0-9.]*")
_NODE: Final = ("node", "nodejs")
_NODE_USES_FILES: Final = regex(r"--use-(openssl|system)-ca")
_JAVA_STORE: Final = regex(r"-Djavax\.net\.ssl\.trustStore=(\S+)")


def places_of_files(group: ProgramGroup) -> list[str]:
    """The files that may have roots; several paths may lead to one file."""
    root = group.root
    named = (path for program in group.programs for path in _named_by(program))
    usual = chain.from_iterable(map(root.matching, (*BUNDLES, *_KEYSTORES)))
    prefixes = (prefix for program in group.programs for prefix in _prefixes(program))
    return list(dict.fromkeys((*usual, *named, *_in_prefixes(root, prefixes))))


def places_of_directories(group: ProgramGroup) -> list[str]:
    """The directories in which OpenSSL may look for roots."""
    named = (path for program in group.programs for path in _named_by(program))
    return list(dict.fromkeys((*_DIRECTORIES, *named)))


def has_own_roots(group: ProgramGroup) -> list[str]:
    """The programs whose roots are in the program itself, and no file can change that."""
    return [
        PurePosixPath(each.executable).name
        for each in group.programs
        if PurePosixPath(each.executable).name in _NODE
        and "NODE_EXTRA_CA_CERTS" not in each.environ
        and not _NODE_USES_FILES.search(f"{each.environ.get('NODE_OPTIONS')} {each.arguments}")
    ]


def _named_by(program: Program) -> Iterator[str]:
    for variable in NAMING_ROOTS:
        for path in program.environ.get(variable, "").split(":"):
            if path.startswith("/"):
                yield path
    options = (*program.arguments, program.environ.get("JAVA_TOOL_OPTIONS", ""))
    for option in options:
        yield from (path for path in _JAVA_STORE.findall(option) if path.startswith("/"))


def _prefixes(program: Program) -> Iterator[str]:
    """Where the files of an interpreter are: above its `bin`."""
    yield from filter(None, map(program.environ.get, _PREFIX_VARIABLES))
    for path in (program.executable, *program.arguments[:1]):
        place = PurePosixPath(path)
        is_known = _PYTHON.fullmatch(place.name) or place.name == "java"
        if is_known and place.is_absolute() and place.parent.name == "bin":
            yield str(place.parents[1])


def _in_prefixes(root: Root, prefixes: Iterable[str]) -> Iterator[str]:
    own = [each for each in prefixes if each.startswith("/")]
    for prefix in own:
        yield from chain.from_iterable(root.matching(f"{prefix}/{each}") for each in _INSIDE_PREFIX)
    usual = _SYSTEM_PREFIXES if root.is_ours else _PYTHON_PREFIXES
    for prefix in dict.fromkeys((*own, *usual)):
        for library in _PYTHON_LIBRARIES:
            for packages in root.matching(f"{prefix}/{library}"):
                for where in ("site-packages", "dist-packages"):
                    places = (f"{packages}/{where}/{each}" for each in _IN_PACKAGES)
                    yield from chain.from_iterable(map(root.matching, places))
