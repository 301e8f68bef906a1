"""What is sent after a leaf: the server's chain, with our authority in the place of the leaf's
issuer.

A client that wants a complete chain, or one in order, then finds ours like the server's. The
certificates above the issuer are dropped, as long as they are in order: our authority is a root.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import Final, TypeAlias

from cryptography import x509

from mitml4.tls.faults import MALFORMED, parse
from mitml4.tls.original import key_of, names_of

__all__ = ["AUTHORITY_ALONE", "Part", "SentChain", "fault_of", "mirror_chain", "resolve"]

_MAX_KEPT_BYTES: Final = 16 * 1024


class Part(Enum):
    """A certificate of ours."""

    LEAF = auto()
    AUTHORITY = auto()


SentChain: TypeAlias = tuple[Part | bytes, ...]
"""After the leaf; what is not ours is the DER of a certificate of the server's."""

AUTHORITY_ALONE: Final[SentChain] = (Part.AUTHORITY,)
"""For a server that sends a usual chain."""


def mirror_chain(chain: Sequence[bytes], signer: bytes) -> SentChain:
    """`chain`: the server's certificates (DER), the leaf first; `signer`: the key of the leaf's
    issuer (SubjectPublicKeyInfo).

    An issuer of that name with another key does not help a client. Those above are linked by name
    only, as some clients link them.
    """
    leaf, *others = chain
    _, issuer = names_of(leaf)
    sent: list[Part | bytes] = []
    above: bytes | None = None
    """The subject of the certificate that would come next in order."""
    for each in others:
        subject, signed_by = names_of(each)
        if each == leaf:
            sent.append(Part.LEAF)
        elif subject == issuer and above is None and key_of(each) == signer:
            sent.append(Part.AUTHORITY)
            above = signed_by
        elif subject == above:
            above = signed_by
        else:
            sent.append(each)
    return tuple(sent)


def fault_of(sent: SentChain) -> str | None:
    """Why the server's certificates cannot be sent: we keep them with the leaf."""
    kept = [each for each in sent if not isinstance(each, Part)]
    if sum(map(len, kept)) > _MAX_KEPT_BYTES:
        return "too many certificates that are of no use"
    try:
        for each in kept:
            parse(each)
    except ValueError:
        return MALFORMED
    return None


def resolve(
    sent: SentChain, leaf: x509.Certificate, authority: x509.Certificate
) -> tuple[x509.Certificate, ...]:
    """The certificates themselves."""
    ours = {Part.LEAF: leaf, Part.AUTHORITY: authority}
    return tuple(ours[each] if isinstance(each, Part) else parse(each) for each in sent)
