"""What the key `c` shows: how a client gets the CA's certificate, with a QR code for phones."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

from mitml4.address import CA_PAGE_URL
from mitml4.events import CertificateAuthority
from mitml4.printable import printable

__all__ = ["authority_lines"]

_INDENT: Final = "  "
_MIN_BESIDE: Final = 30
"""Columns of text beside the code; with less, it stands above."""


def authority_lines(
    authority: CertificateAuthority | None, qr: Sequence[str], width: int, height: int
) -> list[tuple[str, str]]:
    """Pairs of text and code, of which either may be empty, that fit into this size. The code is
    left out where it does not fit."""
    room = width - len(_INDENT)
    code_width = len(qr[0]) if qr else 0
    beside = room - code_width - len(_INDENT)
    if qr and beside >= _MIN_BESIDE and len(qr) <= height:
        texts = _texts(authority, beside - len(_INDENT))
        count = max(len(texts), len(qr))
        texts += [""] * (count - len(texts))
        codes = [*qr, *[""] * (count - len(qr))]
        pairs = [
            (f"{_INDENT}{text}".ljust(width - code_width - len(_INDENT)), code)
            for text, code in zip(texts, codes, strict=True)
        ]
        return pairs[:height]
    texts = _texts(authority, max(1, room))
    lines = [(_INDENT + text, "") for text in texts]
    if qr and code_width <= room and len(texts) + len(qr) <= height:
        lines += [(_INDENT, code) for code in qr]
    return lines[:height]


def _texts(authority: CertificateAuthority | None, width: int) -> list[str]:
    said = f"Open {CA_PAGE_URL} on an intercepted client. The page offers the certificate of this "
    said += "authority, and says how each system trusts it. Compare the fingerprint there:"
    lines = textwrap.wrap(said, width)
    if authority:
        lines += ["", *textwrap.wrap(printable(authority.subject), width), ""]
        lines += textwrap.wrap("SHA-256 " + _in_groups(authority.sha256), width)
    return lines


def _in_groups(sha256: str) -> str:
    """As the page writes it, with gaps to break lines at."""
    pairs = [sha256[at : at + 2].upper() for at in range(0, len(sha256), 2)]
    return " ".join(":".join(pairs[at : at + 8]) for at in range(0, len(pairs), 8))
