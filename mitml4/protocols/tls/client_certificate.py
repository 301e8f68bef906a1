"""Whether a client has a certificate for a server that asks for one, seen from outside.

Up to TLS 1.2 the client's Certificate message is in plain text. In TLS 1.3 it is encrypted, but an
empty one has a fixed size: it fills the client's first encrypted record, alone or with the Finished
after it (RFC 8446 §4.4.2, §4.4.4, §5.2).

    content of the first record       meaning
    Certificate (8)                   the client has none
    Certificate (8), Finished         the client has none
    Finished                          it was not asked
    more                              it has one
"""

from __future__ import annotations

from typing import Final

from mitml4.protocols.tls.hello import ServerHello
from mitml4.protocols.tls.records import HandshakeType, Message, RecordType

__all__ = ["answers_empty"]

_EMPTY_CERTIFICATE: Final = 8
"""The head of a message, and the lengths of the context and the list, both 0."""
_HEAD: Final = 4
_TYPE: Final = 1
"""The content of every encrypted record ends with its type (RFC 8446 §5.2)."""
_TAG: Final = 16
_SHORT_TAGS: Final = {0x1305: 8}
"""RFC 8446 §B.4: TLS_AES_128_CCM_8_SHA256."""
_HASH: Final = 32
_LONG_HASHES: Final = {0x1302: 48}
"""TLS_AES_256_GCM_SHA384."""


def answers_empty(message: Message, server: ServerHello) -> bool | None:
    """Whether a client's first message after the server's flight says that it has no certificate.

    None where the client was not asked, or where that is not known.
    """
    if not server.is_tls13:
        if message.record_type is not RecordType.HANDSHAKE:
            return None
        asked = message.handshake_type == HandshakeType.CERTIFICATE
        return not any(message.body[:3]) if asked else None
    if message.record_type is not RecordType.APPLICATION_DATA or server.psk:
        return None  # RFC 8446 §4.3.2: a client that resumes a session is not asked
    tag = _SHORT_TAGS.get(server.cipher_suite, _TAG)
    finished = _HEAD + _LONG_HASHES.get(server.cipher_suite, _HASH)
    content = len(message.body) - _TYPE - tag
    if content in (_EMPTY_CERTIFICATE, _EMPTY_CERTIFICATE + finished):
        return True
    return False if content > _EMPTY_CERTIFICATE + finished else None
