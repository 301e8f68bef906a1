"""pre_shared_key in a ClientHello: where its identities and binders are (RFC 8446 §4.2.11)."""

from __future__ import annotations

from mitml4.dataclass import dataclass
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.hello import Extension
from mitml4.tls.bridge.wire import Fields

__all__ = ["Psks", "binder_input", "binders"]


@dataclass(frozen=True, slots=True)
class Psks:
    """Where the parts of pre_shared_key are in the message (RFC 8446 §4.2.11)."""

    identities: tuple[tuple[int, int], ...]
    binders: tuple[tuple[int, int], ...]
    end: int
    """The end of the identities."""

    def binder_bytes(self, index: int) -> int:
        start, end = self.binders[index]
        return end - start

    @classmethod
    def read(cls, fields: Fields) -> Psks:
        identities, signed = [], []
        listed = fields.fields(2, least=7)
        end = fields.at
        while listed:
            identity = listed.vector(2, least=1)
            identities.append((listed.at - len(identity), listed.at))
            listed.uint32()
        listed = fields.fields(2, least=33)
        while listed:
            binder = listed.vector(1, least=32)
            signed.append((listed.at - len(binder), listed.at))
        fields.end()
        if len(identities) != len(signed):
            raise TlsError(Alert.ILLEGAL_PARAMETER, "not as many binders as identities")
        return cls(tuple(identities), tuple(signed), end)


def binder_input(message: bytes) -> bytes:
    """The part of a ClientHello that its binders sign: all before their list (RFC 8446
    §4.2.11.2). The hello has pre_shared_key, and was relayed."""
    return message[: _psks_of(message).end]


def binders(message: bytes) -> tuple[bytes, ...]:
    """The binders of a ClientHello, one for each identity. It has pre_shared_key, and was
    relayed."""
    return tuple(message[start:end] for start, end in _psks_of(message).binders)


def _psks_of(message: bytes) -> Psks:
    """pre_shared_key is the last extension, which ends the message."""
    fields = Fields(message, "ClientHello", 38)
    fields.vector(1)
    fields.vector(2)
    fields.vector(1)
    extensions = fields.fields(2)
    while extensions:
        kind, body = extensions.uint16(), extensions.fields(2)
        if kind == Extension.PRE_SHARED_KEY:
            return Psks.read(body)
    raise TlsError(Alert.MISSING_EXTENSION, "a ClientHello without pre_shared_key")
