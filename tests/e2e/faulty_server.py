"""A TLS server with a port for each combination of faults, and nothing of mitml4.

faulty_server.py DIRECTORY ADDRESS COMBINATION…

A combination is the names of faults, joined by `+`; `sound` has none. Writes the roots that clients
trust to DIRECTORY/roots.pem, prints the ports as a JSON object once all are open, and answers every
request with a line.
"""

from __future__ import annotations

import base64
import json
import selectors
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL, crypto

NAME = "www.example"
NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
TIMEOUT_S = 10
UNKNOWN = x509.ObjectIdentifier("1.2.3.4.5")


# --- what a server shows


@dataclass
class Certificate:
    """What a certificate is to say. It is signed when all faults have had their say."""

    name: str
    key: crypto.PKey
    extensions: dict[type[x509.ExtensionType], tuple[x509.ExtensionType, bool]]
    valid: tuple[datetime, datetime] = (NOW - DAY, NOW + 30 * DAY)
    digest: str = "sha256"
    version: int = 3
    authority_key: str = "the issuer's"
    issuer: str = ""
    """How it names its issuer, if not as that one names itself."""

    def say(self, value: x509.ExtensionType, *, critical: bool = False) -> None:
        self.extensions[type(value)] = (value, critical)


@dataclass
class Server:
    """What a port shows."""

    leaf: Certificate
    intermediate: Certificate
    root: str = "sound"
    sent: str = "leaf intermediate"
    is_self_signed: bool = False
    is_of_root: bool = False
    """Whether the root has signed the leaf."""
    staple: dict[str, Any] | None = None
    ciphers: str = "ALL"
    dh_bits: int = 0


def usage(**bits: bool) -> x509.KeyUsage:
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: bits.get(name, False) for name in names})


SIGNS = usage(key_cert_sign=True, crl_sign=True)


def private(key: crypto.PKey) -> Any:
    """As `cryptography` has it."""
    return key.to_cryptography_key()


@cache
def key(kind: str) -> crypto.PKey:
    """`rsa:BITS`, a curve's name, `ed25519`; each once."""
    if kind.startswith("rsa:"):
        made = crypto.PKey()
        made.generate_key(crypto.TYPE_RSA, int(kind[4:]))
        return made
    if kind == "ed25519":
        return crypto.PKey.from_cryptography_key(ed25519.Ed25519PrivateKey.generate())
    curve = getattr(ec, kind.partition("/")[0])()
    return crypto.PKey.from_cryptography_key(ec.generate_private_key(curve))


def a_leaf() -> Certificate:
    leaf = Certificate(NAME, key("SECP256R1/leaf"), {})
    leaf.say(x509.SubjectAlternativeName([x509.DNSName(NAME)]))
    leaf.say(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    leaf.say(usage(digital_signature=True), critical=True)
    leaf.say(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]))
    return leaf


def an_authority(name: str, kind: str) -> Certificate:
    authority = Certificate(name, key(kind), {})
    authority.say(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    authority.say(SIGNS, critical=True)
    return authority


# --- faults

FAULTS: dict[str, Callable[[Server], None]] = {"sound": lambda server: None}


def fault(apply: Callable[[Server], None]) -> Callable[[Server], None]:
    FAULTS[apply.__name__.replace("_", "-")] = apply
    return apply


def with_keys(part: str, *kinds: str) -> None:
    for kind in kinds:

        def apply(server: Server, kind: str = kind) -> None:
            getattr(server, part).key = key(kind)

        FAULTS[f"{part}-{kind.lower()}"] = apply


def with_digests(part: str, *digests: str) -> None:
    for digest in digests:

        def apply(server: Server, digest: str = digest) -> None:
            getattr(server, part).digest = digest
            if digest == "md5":  # which has no number together with ECDSA
                server.root = "rsa"
                server.intermediate.key = key("rsa:2048")

        FAULTS[f"{part}-{digest}"] = apply


with_keys("leaf", "rsa:512", "rsa:1024", "rsa:2048", "BrainpoolP256R1", "ed25519")
with_keys("intermediate", "rsa:512", "rsa:1024", "SECP192R1", "BrainpoolP256R1")
with_digests("leaf", "md5", "sha1", "sha224")
with_digests("intermediate", "md5", "sha1")


@fault
def root_rsa_1024(server: Server) -> None:
    server.root = "weak"


@fault
def sloppy_root(server: Server) -> None:
    server.root = "sloppy"


@fault
def unknown_root(server: Server) -> None:
    server.root = "unknown"


@fault
def unknown_root_sent(server: Server) -> None:
    server.root, server.sent = "unknown", "leaf intermediate root"


@fault
def self_signed(server: Server) -> None:
    server.is_self_signed, server.sent = True, "leaf"


@fault
def self_signed_as_root(server: Server) -> None:
    """Which clients trust."""
    server.is_self_signed, server.sent, server.root = True, "leaf", "leaf"
    server.leaf.name = "Root by itself"


@fault
def expired(server: Server) -> None:
    server.leaf.valid = (NOW - 9 * DAY, NOW - DAY)


@fault
def not_yet_valid(server: Server) -> None:
    server.leaf.valid = (NOW + DAY, NOW + 9 * DAY)


@fault
def never_valid(server: Server) -> None:
    server.leaf.valid = (NOW + DAY, NOW - DAY)


@fault
def intermediate_expired(server: Server) -> None:
    server.intermediate.valid = (NOW - 9 * DAY, NOW - DAY)


@fault
def wrong_name(server: Server) -> None:
    server.leaf.say(x509.SubjectAlternativeName([x509.DNSName("other.example")]))


@fault
def common_name_alone(server: Server) -> None:
    del server.leaf.extensions[x509.SubjectAlternativeName]


@fault
def wildcard(server: Server) -> None:
    server.leaf.say(x509.SubjectAlternativeName([x509.DNSName("*.example")]))


@fault
def inner_wildcard(server: Server) -> None:
    server.leaf.say(x509.SubjectAlternativeName([x509.DNSName("w*w.example")]))


@fault
def name_with_nul(server: Server) -> None:
    names = b"\x30\x1b\x82\x19" + NAME.encode() + b"\0.evil.example"
    oid = x509.oid.ExtensionOID.SUBJECT_ALTERNATIVE_NAME
    server.leaf.extensions[x509.SubjectAlternativeName] = (
        x509.UnrecognizedExtension(oid, names),
        False,
    )


@fault
def address_as_name(server: Server) -> None:
    server.leaf.say(x509.SubjectAlternativeName([x509.DNSName("198.51.100.2")]))


@fault
def version_1(server: Server) -> None:
    server.leaf.version = 1


@fault
def leaf_is_authority(server: Server) -> None:
    server.leaf.say(x509.BasicConstraints(ca=True, path_length=None), critical=True)


@fault
def for_clients_only(server: Server) -> None:
    server.leaf.say(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]))


@fault
def leaf_for_encipherment_only(server: Server) -> None:
    server.leaf.key = key("rsa:2048")
    server.leaf.say(usage(key_encipherment=True), critical=True)


@fault
def unknown_critical(server: Server) -> None:
    server.leaf.say(x509.UnrecognizedExtension(UNKNOWN, b"\x05\x00"), critical=True)


@fault
def policies_critical(server: Server) -> None:
    policy = x509.PolicyInformation(UNKNOWN, None)
    server.leaf.say(x509.CertificatePolicies([policy]), critical=True)


@fault
def leaf_without_authority_key(server: Server) -> None:
    server.leaf.authority_key = ""


@fault
def issuer_in_other_letters(server: Server) -> None:
    """Equal for OpenSSL (RFC 5280 §7.1), and not for those that compare bytes."""
    server.leaf.issuer = "INTERMEDIATE"


@fault
def compressed_key(server: Server) -> None:
    """A point of the curve in its short form (RFC 5480 §2.2)."""
    pem = private(server.leaf.key).private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    )
    argv = ["openssl", "ec", "-conv_form", "compressed"]
    short = subprocess.run(argv, input=pem, capture_output=True, check=True).stdout
    server.leaf.key = crypto.load_privatekey(crypto.FILETYPE_PEM, short)


@fault
def wrong_authority_key(server: Server) -> None:
    server.leaf.authority_key = "another's"


@fault
def intermediate_is_none(server: Server) -> None:
    server.intermediate.say(x509.BasicConstraints(ca=False, path_length=None), critical=True)


@fault
def intermediate_without_constraints(server: Server) -> None:
    del server.intermediate.extensions[x509.BasicConstraints]


@fault
def intermediate_may_not_sign(server: Server) -> None:
    server.intermediate.say(usage(digital_signature=True), critical=True)


@fault
def intermediate_for_clients_only(server: Server) -> None:
    server.intermediate.say(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]))


@fault
def intermediate_for_netscape(server: Server) -> None:
    """Its purpose for servers ("server gated crypto"), which OpenSSL accepts and Go does not."""
    purpose = x509.ObjectIdentifier("2.16.840.1.113730.4.1")
    server.intermediate.say(x509.ExtendedKeyUsage([purpose]))


@fault
def intermediate_not_critically_one(server: Server) -> None:
    server.intermediate.say(x509.BasicConstraints(ca=True, path_length=None))


@fault
def no_subject(server: Server) -> None:
    server.leaf.name = ""


@fault
def intermediate_unknown_critical(server: Server) -> None:
    server.intermediate.say(x509.UnrecognizedExtension(UNKNOWN, b"\x05\x00"), critical=True)


@fault
def intermediate_without_authority_key(server: Server) -> None:
    server.intermediate.authority_key = ""


@fault
def intermediate_version_1(server: Server) -> None:
    server.intermediate.version = 1


@fault
def name_constraints(server: Server) -> None:
    elsewhere = x509.NameConstraints([x509.DNSName("elsewhere.example")], None)
    server.intermediate.say(elsewhere, critical=True)


@fault
def name_constraints_kept(server: Server) -> None:
    """Which not every client supports."""
    here = x509.NameConstraints([x509.DNSName(NAME)], None)
    server.intermediate.say(here, critical=True)


@fault
def name_constraints_not_critical(server: Server) -> None:
    name_constraints_kept(server)
    value, _ = server.intermediate.extensions[x509.NameConstraints]
    server.intermediate.say(value)


@fault
def subject_constraints_kept(server: Server) -> None:
    """Which rustls does not support, critical or not."""
    own = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    server.intermediate.say(x509.NameConstraints([x509.DirectoryName(own)], None))


@fault
def path_length(server: Server) -> None:
    server.root = "short"


@fault
def intermediate_missing(server: Server) -> None:
    server.sent = "leaf"


@fault
def intermediate_trusted(server: Server) -> None:
    """By itself, under a root that nobody knows."""
    server.root = "trusted intermediate"
    server.intermediate.name = "Intermediate trusted"
    server.intermediate.key = key("SECP256R1/trusted")


@fault
def wrong_order(server: Server) -> None:
    server.sent = "leaf root intermediate"


@fault
def superfluous(server: Server) -> None:
    server.sent = "leaf other intermediate"


@fault
def old_cross_certificate(server: Server) -> None:
    """For the root, by one that nobody knows: clients need not follow it, and some do."""
    server.sent = "leaf intermediate cross"


@fault
def leaf_twice(server: Server) -> None:
    server.sent = "leaf leaf intermediate"


@fault
def of_the_root(server: Server) -> None:
    """Whoever wants the issuer's certificate has to have it."""
    server.is_of_root, server.sent = True, "leaf"


@fault
def of_the_root_with_staple(server: Server) -> None:
    """Which curl checks with the certificates that were sent."""
    of_the_root(server)
    staple_good(server)


@fault
def must_staple(server: Server) -> None:
    server.leaf.say(x509.TLSFeature([x509.TLSFeatureType.status_request]))


@fault
def intermediate_must_staple(server: Server) -> None:
    server.intermediate.say(x509.TLSFeature([x509.TLSFeatureType.status_request]))


@fault
def staple_good(server: Server) -> None:
    server.staple = {}


@fault
def staple_revoked(server: Server) -> None:
    server.staple = {"status": ocsp.OCSPCertStatus.REVOKED}


@fault
def staple_unknown(server: Server) -> None:
    server.staple = {"status": ocsp.OCSPCertStatus.UNKNOWN}


@fault
def staple_old(server: Server) -> None:
    server.staple = {"since": NOW - 9 * DAY, "until": NOW - 2 * DAY}


@fault
def staple_forged(server: Server) -> None:
    server.staple = {"forged": True}


def with_rsa(leaf: Certificate) -> None:
    if leaf.key.type() != crypto.TYPE_RSA:
        leaf.key = key("rsa:2048")
    leaf.say(usage(digital_signature=True, key_encipherment=True), critical=True)


def with_dh(*sizes: int) -> None:
    for bits in sizes:

        def apply(server: Server, bits: int = bits) -> None:
            with_rsa(server.leaf)
            server.ciphers, server.dh_bits = "DHE", bits

        FAULTS[f"dh-{bits}"] = apply


with_dh(1024, 2048)


@fault
def rsa_key_exchange(server: Server) -> None:
    with_rsa(server.leaf)
    server.ciphers = "kRSA"


# --- signing


class Roots:
    """The authorities above the intermediates, and the file of those that clients trust."""

    def __init__(self) -> None:
        self.signed: dict[str, crypto.X509] = {}
        self.drafts: dict[str, Certificate] = {}
        self.trusted: list[crypto.X509] = []
        for name, kind in (
            ("sound", "SECP256R1/root"),
            ("weak", "rsa:1024"),
            ("rsa", "rsa:2048"),
            ("sloppy", "SECP256R1/sloppy"),
            ("short", "SECP256R1/short"),
            ("unknown", "SECP256R1/unknown"),
        ):
            root = self.drafts[name] = an_authority(f"Root {name}", kind)
            if name == "sloppy":
                root.extensions.clear()
                root.say(x509.BasicConstraints(ca=True, path_length=None))
            if name == "short":
                root.say(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            self.signed[name] = sign(root, root.name, root.key)
            if name != "unknown":
                self.trusted.append(self.signed[name])

    def issue(self, server: Server) -> tuple[list[crypto.X509], crypto.X509]:
        """The chain to send, leaf first, and the leaf's issuer."""
        leaf = server.leaf
        if server.is_self_signed:
            signed = sign(leaf, leaf.name, leaf.key)
            if server.root == "leaf":
                self.trusted.append(signed)
            return [signed], signed
        root_name = server.root if server.root in self.signed else "unknown"
        root = self.signed[root_name]
        above = self.drafts[root_name]
        intermediate = sign(server.intermediate, above.name, above.key)
        if server.root == "trusted intermediate":
            self.trusted.append(intermediate)
        if server.is_of_root:
            return [sign(leaf, above.name, above.key)], root
        signed = sign(leaf, server.intermediate.name, server.intermediate.key)
        parts = {
            "leaf": signed,
            "intermediate": intermediate,
            "root": root,
            "other": self.signed["short"],
            "cross": self.cross_certificate(above),
        }
        return [parts[each] for each in server.sent.split()], intermediate

    def cross_certificate(self, root: Certificate) -> crypto.X509:
        """Of the root's name and key, expired."""
        unknown = self.drafts["unknown"]
        cross = replace(root, valid=(NOW - 9 * DAY, NOW - DAY))
        return sign(cross, unknown.name, unknown.key)


def sign(certificate: Certificate, issuer: str, issuer_key: crypto.PKey) -> crypto.X509:
    """By pyOpenSSL, since cryptography does not sign what is weak."""
    signed = crypto.X509()
    if certificate.version == 3:
        signed = crypto.X509.from_cryptography(with_extensions(certificate, issuer_key))
    signed.set_version(certificate.version - 1)
    signed.set_serial_number(x509.random_serial_number())
    if certificate.name:
        signed.get_subject().CN = certificate.name
    signed.get_issuer().CN = certificate.issuer or issuer
    signed.set_pubkey(certificate.key)
    begins, ends = (f"{moment:%Y%m%d%H%M%SZ}".encode() for moment in certificate.valid)
    signed.set_notBefore(begins)
    signed.set_notAfter(ends)
    signed.sign(issuer_key, certificate.digest)
    return signed


def with_extensions(certificate: Certificate, issuer_key: crypto.PKey) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(PLACEHOLDER.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW)
    )
    own, issuers = private(certificate.key), private(issuer_key)
    identifiers: list[tuple[x509.ExtensionType, bool]] = [
        (x509.SubjectKeyIdentifier.from_public_key(own.public_key()), False)
    ]
    if certificate.authority_key:
        named = issuers if certificate.authority_key == "the issuer's" else PLACEHOLDER
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(named.public_key())
        identifiers.append((authority, False))
    for value, critical in (*identifiers, *certificate.extensions.values()):
        builder = builder.add_extension(value, critical=critical)
    return builder.sign(PLACEHOLDER, hashes.SHA256())


PLACEHOLDER = ec.generate_private_key(ec.SECP256R1())


def respond(leaf: crypto.X509, issuer: crypto.X509, server: Server) -> bytes:
    """The OCSP response that is stapled."""
    told = server.staple or {}
    authority = issuer.to_cryptography()
    status = told.get("status", ocsp.OCSPCertStatus.GOOD)
    revoked = status is ocsp.OCSPCertStatus.REVOKED
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            cert=leaf.to_cryptography(),
            issuer=authority,
            algorithm=hashes.SHA1(),
            cert_status=status,
            this_update=told.get("since", NOW - timedelta(hours=1)),
            next_update=told.get("until", NOW + DAY),
            revocation_time=NOW - DAY if revoked else None,
            revocation_reason=x509.ReasonFlags.key_compromise if revoked else None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, authority)
    )
    if server.is_self_signed:
        signer = server.leaf.key
    else:
        signer = key("SECP256R1/root") if server.is_of_root else server.intermediate.key
    signed = builder.sign(private(signer), hashes.SHA256())
    response = signed.public_bytes(Encoding.DER)
    return response.replace(signed.signature[-8:], bytes(8)) if "forged" in told else response


# --- serving


def context_of(server: Server, roots: Roots, directory: Path) -> SSL.Context:
    (leaf, *others), issuer = roots.issue(server)
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_cipher_list(f"{server.ciphers}:@SECLEVEL=0".encode())
    context.use_certificate(leaf)
    context.use_privatekey(server.leaf.key)
    for certificate in others:
        context.add_extra_chain_cert(certificate)
    if server.dh_bits:
        context.load_tmp_dh(dh_parameters(server.dh_bits, directory))
    if server.staple is not None:
        response = respond(leaf, issuer, server)
        context.set_ocsp_server_callback(lambda connection, data: response)
    return context


def dh_parameters(bits: int, directory: Path) -> bytes:
    """A file with the prime of that size and the generator 2."""
    prime = b"\0" + DH_PRIMES[bits].to_bytes(bits // 8)
    numbers = tlv(2, prime) + tlv(2, b"\2")
    file = directory / f"dh-{bits}.pem"
    body = base64.encodebytes(tlv(0x30, numbers))
    file.write_bytes(b"-----BEGIN DH PARAMETERS-----\n" + body + b"-----END DH PARAMETERS-----\n")
    return bytes(file)


def tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    return bytes((tag, size) if size < 128 else (tag, 0x82, size >> 8, size & 255)) + content


def pi(bits: int) -> int:
    """Its first binary digits, `bits` of them behind the point (Machin's formula)."""

    def arctangent(inverse: int) -> int:
        power = total = (1 << bits + 64) // inverse
        for odd in range(3, bits + 64, 2):
            power //= -inverse * inverse
            total += power // odd
        return total

    return (16 * arctangent(5) - 4 * arctangent(239)) >> 64


DH_PRIMES = {  # RFC 2409 §6.2, RFC 3526 §3
    bits: 2**bits - 2 ** (bits - 64) - 1 + 2**64 * (pi(bits - 130) + correction)
    for bits, correction in ((1024, 129093), (2048, 124476))
}


def combine(combination: str) -> Server:
    server = Server(a_leaf(), an_authority("Intermediate", "SECP256R1/intermediate"))
    for name in combination.split("+"):
        FAULTS[name](server)
    return server


def answer(sock: socket.socket, context: SSL.Context) -> None:
    with sock, suppress(SSL.Error, OSError):
        sock.settimeout(None)
        wait = TIMEOUT_S.to_bytes(8, "little") + bytes(8)  # struct timeval
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
        tls = SSL.Connection(context, sock)
        tls.set_accept_state()
        request = b""
        while b"\r\n\r\n" not in request:
            request += tls.recv(4096)
        tls.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")
        tls.shutdown()
        tls.recv(1)


def main(directory: Path, address: str, combinations: list[str]) -> None:
    warnings.simplefilter("ignore")
    roots = Roots()
    listening = selectors.DefaultSelector()
    ports = {}
    for combination in combinations:
        context = context_of(combine(combination), roots, directory)
        listener = socket.create_server((address, 0), backlog=64)
        listening.register(listener, selectors.EVENT_READ, context)
        ports[combination] = listener.getsockname()[1]
    pem = [crypto.dump_certificate(crypto.FILETYPE_PEM, root) for root in roots.trusted]
    (directory / "roots.pem").write_bytes(b"".join(pem))
    print(json.dumps(ports), flush=True)
    with ThreadPoolExecutor(32) as workers:
        while True:
            for ready, _ in listening.select():
                from_client: Any = ready.fileobj
                sock, _ = from_client.accept()
                workers.submit(answer, sock, ready.data)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
