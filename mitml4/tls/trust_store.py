"""Making programs trust the authority: bundles of the system's roots, inherited roots, and ours.

Most programs read one file of roots instead of the system's, each named by a different variable.
The file must contain all roots; otherwise connections that are passed through would not verify.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.regex import regex
from mitml4.tls.der import elements
from mitml4.tls.java_keystore import PASSWORD, read_truststore, write_truststore
from mitml4.tls.private_files import write_file

__all__ = [
    "BUNDLE_FILE",
    "BUNDLE_VARIABLES",
    "TRUSTSTORE_FILE",
    "UNSET_VARIABLES",
    "builtin_roots",
    "certificates_in",
    "certificates_of",
    "java_roots",
    "java_variable",
    "merged_bundle",
    "roots",
    "system_bundle",
    "system_roots",
    "trust_variables",
    "write_trust",
]

BUNDLE_FILE: Final = "mitml4-bundle.pem"
TRUSTSTORE_FILE: Final = "mitml4-truststore.p12"

BUNDLE_VARIABLES: Final = (
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "DENO_CERT",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HTTPLIB2_CA_CERTS",
    "NIX_SSL_CERT_FILE",
    "PERL_LWP_SSL_CA_FILE",
)
UNSET_VARIABLES: Final = ("SSL_CERT_DIR",)
"""A directory of roots that would be used besides the file, and does not contain ours."""

# Go's crypto/x509/root_linux.go, in its order
_SYSTEM_BUNDLES: Final = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Arch, Alpine, Gentoo
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Fedora
    Path("/etc/ssl/ca-bundle.pem"),  # openSUSE
    Path("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),  # CentOS
    Path("/etc/ssl/cert.pem"),  # Alpine
)
_MOZILLA: Final = Path("/usr/share/ca-certificates/mozilla")  # Debian, Alpine
_JAVA_STORES: Final = (Path("/etc/ssl/certs/java/cacerts"), Path("/etc/pki/java/cacerts"))

_PEM: Final = regex(
    rb"-----BEGIN (TRUSTED |X509 |)CERTIFICATE-----([^-]+)-----END \1CERTIFICATE-----"
)
_JAVA_OPTIONS: Final = "JAVA_TOOL_OPTIONS"
_JAVA_STORE: Final = regex(r"""-Djavax\.net\.ssl\.trustStore=(?:"([^"]+)"|'([^']+)'|(\S+))""")
_JAVA_PASSWORD: Final = regex(r"-Djavax\.net\.ssl\.trustStorePassword=(\S+)")


def system_bundle() -> Path | None:
    """The file in which this system has its roots as PEM, if there is one."""
    return next((path for path in _SYSTEM_BUNDLES if path.is_file()), None)


def system_roots() -> list[bytes]:
    """The DER of each root of the system."""
    bundle = system_bundle()
    return list(certificates_of(bundle)) if bundle else []


def builtin_roots() -> list[bytes]:
    """The DER of the roots that programs have built in: Mozilla's, from the system's package,
    without the administrator's additions. Empty if the package is not found."""
    files = sorted(_MOZILLA.glob("*.crt"))
    return [root for file in files for root in certificates_of(file)]


def roots(environ: Mapping[str, str], *, besides: Path | None = None) -> list[bytes]:
    """The DER of each root of the system, and of the files that the environment names, each once.

    `besides` is a file of ours, which an earlier shell may have inherited. Files that cannot be
    read are skipped: the programs that name them could not read them either.
    """
    files = [system_bundle(), *_inherited_files(environ)]
    found: dict[bytes, None] = {}
    for file in files:
        if file is not None and file != besides:
            found |= dict.fromkeys(certificates_of(file))
    return list(found)


def java_roots(environ: Mapping[str, str], *, besides: Path | None = None) -> list[bytes]:
    """The DER of each certificate that Java trusts: from the store that JAVA_TOOL_OPTIONS names,
    otherwise from the first readable `cacerts`; empty if there is none."""
    for store, password in _java_stores(environ):
        if store == besides:
            continue
        try:
            return read_truststore(store.read_bytes(), password)
        except (OSError, ValueError):
            continue
    return []


def merged_bundle(certificates: Iterable[bytes]) -> bytes:
    """A PEM file with each certificate (given as DER) once."""
    return b"".join(map(_pem, dict.fromkeys(certificates)))


def trust_variables(
    environ: Mapping[str, str], *, bundle: Path, truststore: Path
) -> dict[str, str]:
    """The variables that make programs read their roots from a merged bundle, and Java from a
    PKCS#12 (added to existing options). Unset UNSET_VARIABLES as well."""
    return dict.fromkeys(BUNDLE_VARIABLES, str(bundle)) | java_variable(environ, truststore)


def java_variable(environ: Mapping[str, str], truststore: Path) -> dict[str, str]:
    """The variable that makes Java read its roots from a PKCS#12, and its value."""
    inherited = environ.get(_JAVA_OPTIONS, "")
    store = f'"{truststore}"' if " " in str(truststore) else str(truststore)
    ours = (
        f"-Djavax.net.ssl.trustStore={store} -Djavax.net.ssl.trustStorePassword={PASSWORD} "
        "-Djavax.net.ssl.trustStoreType=PKCS12"
    )
    others = inherited.removesuffix(ours).strip()
    return {_JAVA_OPTIONS: f"{others} {ours}".strip()}


def write_trust(
    certificate: x509.Certificate, directory: Path, environ: Mapping[str, str]
) -> dict[str, str]:
    """Write the merged bundle and Java's trust store into a directory, and return the variables
    that make programs use them. Raises CertificateError if they cannot be written."""
    bundle, truststore = directory / BUNDLE_FILE, directory / TRUSTSTORE_FILE
    ours = certificate.public_bytes(Encoding.DER)
    trusted = [*roots(environ, besides=bundle), ours]
    java_trusted = [*(java_roots(environ, besides=truststore) or trusted), ours]
    write_file(bundle, merged_bundle(trusted), mode=0o644)
    write_file(truststore, write_truststore(dict.fromkeys(java_trusted)), mode=0o644)
    return trust_variables(environ, bundle=bundle, truststore=truststore)


def _inherited_files(environ: Mapping[str, str]) -> Iterator[Path]:
    for variable in BUNDLE_VARIABLES:
        if value := environ.get(variable):
            yield Path(value)
    for directory in filter(None, environ.get("SSL_CERT_DIR", "").split(":")):
        yield from sorted(Path(directory).glob("*.[0-9]"))  # as OpenSSL finds them: HASH.N


def certificates_of(file: Path) -> Iterator[bytes]:
    """The DER of each certificate in a PEM file; none if it cannot be read."""
    try:
        content = file.read_bytes()
    except OSError:
        return
    yield from certificates_in(content)


def certificates_in(pem: bytes) -> Iterator[bytes]:
    """The DER of each certificate; text between them is skipped, and so is a TRUSTED CERTIFICATE
    which says for what it is trusted (openssl-x509(1))."""
    for match in _PEM.finditer(pem):
        try:
            certificate = base64.b64decode(match[2])
            is_limited = match[1] == b"TRUSTED " and len(list(elements(certificate))) > 1
        except ValueError:  # binascii.Error is one
            continue
        if not is_limited:
            yield certificate


def _java_stores(environ: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    options = environ.get(_JAVA_OPTIONS, "")
    if match := _JAVA_STORE.search(options):
        password = _JAVA_PASSWORD.search(options)
        yield Path(match[1] or match[2] or match[3]), password[1] if password else PASSWORD
    homes = [Path(environ["JAVA_HOME"])] if environ.get("JAVA_HOME") else []
    if java := shutil.which("java", path=environ.get("PATH")):
        homes.append(Path(java).resolve().parents[1])
    for home in homes:
        for inside in ("lib/security/cacerts", "jre/lib/security/cacerts"):
            yield home / inside, PASSWORD
    for store in _JAVA_STORES:
        yield store, PASSWORD


def _pem(der: bytes) -> bytes:
    body = base64.b64encode(der)
    lines = (body[at : at + 64] for at in range(0, len(body), 64))
    return b"\n".join((b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----", b""))
