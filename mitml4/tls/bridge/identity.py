"""Certificates as they are sent, and what a server gets that asks for a client's (RFC 8446
§4.4.2, §4.6.2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cryptography import x509

from mitml4.crypto import signatures
from mitml4.crypto.schedule import finished
from mitml4.crypto.signatures import CannotVerify, PrivateKey, PublicKey
from mitml4.dataclass import dataclass
from mitml4.protocols.tls.hello import Extension
from mitml4.remember import remembered
from mitml4.tls.bridge import messages, older_messages
from mitml4.tls.bridge.errors import CannotBridge
from mitml4.tls.bridge.extensions import RawExtensions
from mitml4.tls.bridge.transcript import Transcript

__all__ = [
    "MAX_LATE_SIGNATURES",
    "Identity",
    "answer_late_request",
    "answer_request",
    "certificate_of",
    "public_key",
]

MAX_LATE_SIGNATURES: Final = 8
"""Of one connection. A record may have thirty requests, and each costs us a signature: with a large
RSA key, seven milliseconds in which nothing else moves."""

_TLS_1_3: Final = 0x0304
_REMEMBERED_KEYS: Final = 512
_MAX_CERTIFICATE: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Identity:
    """A client's certificates (DER, its own first) and key."""

    chain: tuple[bytes, ...]
    key: PrivateKey


def certificate_of(
    chain: tuple[bytes, ...], *, context: bytes = b"", staple: bytes = b""
) -> messages.Certificate:
    """The message with these certificates, and with an OCSP response for the first."""
    status = ((Extension.STATUS_REQUEST, older_messages.CertificateStatus(staple).body),)
    entries = [(der, RawExtensions()) for der in chain]
    if staple:
        entries[0] = chain[0], RawExtensions(status)
    return messages.Certificate(context, tuple(entries))


def answer_request(
    request: messages.CertificateRequest, identity: Identity | None, transcript: Transcript
) -> Iterator[bytes]:
    """The messages of the answer: a Certificate, which is empty without an identity that the server
    can verify, and CertificateVerify. The caller adds each to the transcript before the next."""
    scheme = _scheme(request, identity) if identity else None
    chain = identity.chain if identity and scheme else ()
    yield certificate_of(chain, context=request.context).encode()
    if identity and scheme:
        content = signatures.signed_content(
            "TLS 1.3, client CertificateVerify", transcript.digest()
        )
        signature = signatures.sign(scheme, identity.key, content)
        yield messages.CertificateVerify(scheme, signature).encode()


def answer_late_request(
    message: bytes, identity: Identity | None, transcript: Transcript, name: str, secret: bytes
) -> bytes:
    """The answer to a CertificateRequest (header and all) after the handshake.

    `transcript`: of the handshake; `name`: its hash; `secret`: what our records are protected with
    now (RFC 8446 §4.4). Raises TlsError.
    """
    request = messages.CertificateRequest.parse(message[4:])
    request.check()
    transcript.add(message)
    answer = bytearray()
    for part in answer_request(request, identity, transcript):
        transcript.add(part)
        answer += part
    return bytes(answer) + messages.Finished(finished(name, secret, transcript.digest())).encode()


def _scheme(request: messages.CertificateRequest, identity: Identity) -> int | None:
    """The first of the server's schemes that this key can sign with."""
    able = signatures.schemes_of(identity.key, version=_TLS_1_3)
    return next((scheme for scheme in request.signature_algorithms if scheme in able), None)


@remembered(_REMEMBERED_KEYS, _MAX_CERTIFICATE)
def public_key(certificate: bytes) -> PublicKey:
    """The key of a certificate (DER). Raises CannotBridge if it is not to be read."""
    try:
        return PublicKey.of_certificate(x509.load_der_x509_certificate(certificate))
    except (ValueError, x509.InvalidVersion, CannotVerify) as error:
        raise CannotBridge("the key of the server's certificate") from error
