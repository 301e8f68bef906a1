"""Imports the modules that Python or libraries would import later.

After a session has dropped root's privileges it may not be able to read them: Python or mitml4 may
be installed where only root can read. Modules of mitml4 are imported at the top of their users.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final

from mitml4.payload import codings, text

__all__ = ["import_all", "import_decoders"]

_LATE: Final = (
    "_strptime",  # datetime.strptime
    "cryptography.hazmat.backends.openssl.backend",
    "encodings.idna",  # socket.getaddrinfo
    "encodings.punycode",  # hosts with xn-- labels
    "encodings.unicode_escape",  # control characters in text
    "encodings.utf_16_be",  # passwords of Java's trust stores
    "encodings.utf_16_le",  # names in TDS
    "idna",
    "idna.uts46data",
    "mitml4.protocols.tls.certificate",
    "traceback",
)
_LATE_OF_TABLES: Final = ("rich._emoji_codes", "rich.ansi", "rich.table")


def import_decoders() -> None:
    """Import what undoes codings and charsets, and finds secrets, for --payload."""
    for name in (*codings.LATE_IMPORTS, *text.LATE_IMPORTS, "mitml4.protocols.secrets.table"):
        import_module(name)


def import_all() -> None:
    """Import them; this takes some milliseconds."""
    tables = _LATE_OF_TABLES if "rich.console" in sys.modules else ()
    # Certificates are compressed with the codings of bodies (RFC 8879).
    for name in (*_LATE, *codings.LATE_IMPORTS, *tables):
        import_module(name)
    if cells := sys.modules.get("rich.cells"):
        cells.cell_len("…")  # imports the widths of characters that are not ASCII
