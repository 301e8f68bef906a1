"""The certificate authority: the key whose certificate clients have to trust.

It is stored in two PEM files of the invoking user, which are written atomically and replace older
ones only on request: the key can impersonate every site to every client that trusts it.
"""

from __future__ import annotations

import ipaddress
import shlex
import socket
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from mitml4.dataclass import dataclass
from mitml4.errors import CertificateError, UsageError
from mitml4.tls.keys import KeyType, generate_key, signing_hash
from mitml4.tls.private_files import data_home, exists, make_directory, read_file, write_file

__all__ = [
    "CA_KEYS",
    "CERTIFICATE_FILE",
    "DEFAULT_DAYS",
    "KEY_FILE",
    "NAME_PREFIX",
    "AuthorityKey",
    "CertificateAuthority",
    "ca_command",
    "default_directory",
    "env_command",
]

AuthorityKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

CERTIFICATE_FILE: Final = "mitml4-ca.pem"
KEY_FILE: Final = "mitml4-ca-key.pem"
NAME_PREFIX: Final = "mitml4 CA of "
"""The start of an authority's default name."""
DEFAULT_DAYS: Final = 825
"""The longest validity that Apple's systems accept from a root that a user has installed."""

CA_KEYS: Final = {
    "ec-p256": KeyType.EC_P256,
    "ec-p384": KeyType.EC_P384,
    "rsa2048": KeyType.RSA_2048,
    "rsa3072": KeyType.RSA_3072,
    "rsa4096": KeyType.RSA_4096,
}

_CLOCK_SKEW: Final = timedelta(hours=1)
_MAX_COMMON_NAME: Final = 64  # RFC 5280 appendix A.1, ub-common-name
_UNTRUSTED_NAME: Final = "mitml4 UNTRUSTED: the server's certificate did not verify"


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """A certificate and its signing key, in memory."""

    certificate: x509.Certificate
    key: AuthorityKey

    @classmethod
    def generate(
        cls,
        *,
        key: str = "ec-p256",
        days: int = DEFAULT_DAYS,
        name: str | None = None,
        permit_domains: Sequence[str] = (),
    ) -> CertificateAuthority:
        """A new authority, valid for `days` from an hour ago (clocks differ).

        `key` is one of CA_KEYS. `name` is the common name; the default has this host, today's date
        and digits of the key, since a client that trusts two authorities of one name may try the
        wrong one for a leaf that has no key identifier. With `permit_domains` the authority can
        sign only for these domains and their subdomains, and for no IP address. Raises UsageError
        for a value that a certificate cannot contain.
        """
        if key not in CA_KEYS:
            raise UsageError(f"no such key: {key}", hint=f"one of {', '.join(CA_KEYS)}")
        now = datetime.now(UTC).replace(microsecond=0)
        not_before = now - _CLOCK_SKEW
        try:
            not_after = not_before + timedelta(days=days)
        except OverflowError:
            not_after = now
        if not_after <= now:
            raise UsageError(f"no such life: {days} days", hint=f"--days {DEFAULT_DAYS}")
        private = generate_key(CA_KEYS[key])
        assert isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
        public = private.public_key()
        identifier = x509.SubjectKeyIdentifier.from_public_key(public)
        subject = _subject(_default_name(now, identifier.digest) if name is None else name)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before)
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_SIGNS_CERTIFICATES, critical=True)
            .add_extension(identifier, critical=False)
        )
        if permit_domains:
            builder = builder.add_extension(_name_constraints(permit_domains), critical=True)
        return cls(builder.sign(private, signing_hash(private)), private)

    @classmethod
    def untrusted(cls) -> CertificateAuthority:
        """An authority for one session that nobody trusts, with a name that says so.

        It signs the leaves of servers that did not verify, so that the client sees that too.
        """
        return cls.generate(name=_UNTRUSTED_NAME)

    @classmethod
    def load(cls, directory: Path) -> CertificateAuthority:
        """The authority that `save` has written into a directory.

        Raises CertificateError if there is none, or if it cannot be used: others can read the key,
        or could have written a file; a file is not PEM, the key does not fit the certificate, the
        certificate has expired or is not a CA's.
        """
        certificate_file, key_file = directory / CERTIFICATE_FILE, directory / KEY_FILE
        generate = f"mitml4 ca generate --ca-dir {shlex.quote(str(directory))}"
        missing = [file.name for file in (certificate_file, key_file) if not exists(file)]
        if len(missing) == 2:
            message = f"there is no certificate authority in {directory}"
            raise CertificateError(message, hint=generate)
        try:
            if missing:
                raise _UnusableError(f"{missing[0]} is missing")
            key = _parse_key(read_file(key_file, secret=True))
            certificate = _parse_certificate(read_file(certificate_file))
            _check_pair(certificate, key)
        except _UnusableError as unusable:
            message = f"the certificate authority in {directory} cannot be used: {unusable}"
            raise CertificateError(message, hint=f"{generate} --force") from None
        return cls(certificate, key)

    @classmethod
    def load_or_generate(cls, directory: Path) -> tuple[CertificateAuthority, bool]:
        """The authority in a directory, created on first use; and whether it is new."""
        if exists(directory / CERTIFICATE_FILE) or exists(directory / KEY_FILE):
            return cls.load(directory), False
        authority = cls.generate()
        authority.save(directory)
        return authority, True

    def save(self, directory: Path, *, force: bool = False) -> None:
        """Write certificate and key (0600) into a directory (created with 0700 if it does not
        exist).

        Raises CertificateError if there is an authority already (unless `force`), or if writing
        fails; no partly written file is left.
        """
        key_pem = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        certificate_pem = self.certificate.public_bytes(Encoding.PEM)
        files = (directory / KEY_FILE, directory / CERTIFICATE_FILE)
        for file in () if force else files:
            if exists(file):
                message = f"a certificate authority is there already: {file}"
                raise CertificateError(message, hint="--force replaces it permanently")
        make_directory(directory)
        for file, content in zip(files, (key_pem, certificate_pem), strict=True):
            write_file(file, content, replace=force)

    @property
    def subject(self) -> str:
        """RFC 4514."""
        return self.certificate.subject.rfc4514_string()

    @property
    def sha256(self) -> str:
        """Of the certificate's DER, in hex."""
        return self.certificate.fingerprint(SHA256()).hex()

    @property
    def permitted_domains(self) -> tuple[str, ...]:
        """The domains to which it is limited; empty: no limit."""
        try:
            extension = self.certificate.extensions.get_extension_for_class(x509.NameConstraints)
        except x509.ExtensionNotFound:
            return ()
        permitted = extension.value.permitted_subtrees or ()
        return tuple(name.value for name in permitted if isinstance(name, x509.DNSName))


def default_directory() -> Path:
    """The directory of the invoking user's authority: `mitml4` in their data home."""
    return data_home() / "mitml4"


def ca_command(words: str, directory: Path) -> str:
    """The command to type for the authority in this directory, such as `mitml4 ca uninstall`."""
    with suppress(CertificateError):  # there is no directory of the user's own
        if directory.absolute() == default_directory():
            return f"mitml4 ca {words}"
    return f"mitml4 ca {words} --ca-dir {shlex.quote(str(directory.absolute()))}"


def env_command(directory: Path) -> str:
    """The command by which a shell's programs trust the authority in this directory."""
    return f'eval "$({ca_command("env", directory)})"'


_SIGNS_CERTIFICATES: Final = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _default_name(today: datetime, key_identifier: bytes) -> str:
    host = socket.gethostname()
    frame = f"{NAME_PREFIX}{{}} ({today:%Y-%m-%d} {key_identifier[:4].hex()})"
    return frame.format(host[: _MAX_COMMON_NAME - len(frame) + 2])


def _subject(name: str) -> x509.Name:
    try:
        if not name.isprintable():
            raise ValueError
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    except ValueError:
        message = f"no such name for a certificate authority: {name!r}"
        hint = f"1 to {_MAX_COMMON_NAME} bytes of UTF-8, none of them a control character"
        raise UsageError(message, hint=hint) from None


def _name_constraints(domains: Sequence[str]) -> x509.NameConstraints:
    """RFC 5280 §4.2.1.10. Names of an unmentioned kind are permitted, so addresses must be excluded
    explicitly."""
    everywhere = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
    return x509.NameConstraints(
        permitted_subtrees=[x509.DNSName(_a_label(domain)) for domain in domains],
        excluded_subtrees=[x509.IPAddress(network) for network in everywhere],
    )


def _a_label(domain: str) -> str:
    name = domain.removeprefix("*").strip(".").lower()
    try:
        encoded = name.encode("idna").decode("ascii")
    except UnicodeError:
        encoded = ""
    labels = encoded.split(".")
    if not all(_is_label(label) for label in labels) or labels[-1].isdigit():
        raise UsageError(f"no such domain: {domain!r}", hint="--permit-domain example.com")
    return encoded


def _is_label(label: str) -> bool:
    return label.strip("-") == label and label.replace("-", "").replace("_", "").isalnum()


class _UnusableError(Exception):
    """The reason why a stored authority cannot be used."""


def _parse_key(pem: bytes) -> AuthorityKey:
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise _UnusableError(f"{KEY_FILE} is encrypted") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _UnusableError(f"{KEY_FILE} is no private key in PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise _UnusableError(f"{KEY_FILE} is neither an EC nor an RSA key")
    return key


def _parse_certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise _UnusableError(f"{CERTIFICATE_FILE} is no certificate in PEM") from None


def _check_pair(certificate: x509.Certificate, key: AuthorityKey) -> None:
    try:
        public: object = certificate.public_key()
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (ValueError, UnsupportedAlgorithm, x509.ExtensionNotFound):
        raise _UnusableError(f"{CERTIFICATE_FILE} is no certificate of an authority") from None
    if not constraints.value.ca:
        raise _UnusableError(f"{CERTIFICATE_FILE} is no certificate of an authority")
    if public != key.public_key():
        raise _UnusableError(f"{KEY_FILE} does not belong to {CERTIFICATE_FILE}")
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        raise _UnusableError(f"it expired on {certificate.not_valid_after_utc:%Y-%m-%d}")
    if now < certificate.not_valid_before_utc:
        raise _UnusableError(f"it is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}")
