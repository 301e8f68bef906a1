"""Subversion's own transport (svnserve, svn+ssh), by its first item of either side. Named only.

    server   ( success ( 2 2 ( ) ( edit-pipeline svndiff1 … ) ) )
    client   ( 2 ( edit-pipeline … ) 20:svn://host/repository … )

Source: subversion/libsvn_ra_svn/protocol. Items are words, numbers, strings with their lengths
before them, and lists in parentheses, with white space between all of them.
"""

from __future__ import annotations

from typing import Final

from mitml4.protocols.conversation import Protocol
from mitml4.protocols.parts.evidence import single_message
from mitml4.protocols.parts.fields import Reader

__all__ = ["PROTOCOL"]

DIGITS: Final = b"0123456789"
MAX_WORDS: Final = 4096


def read_greeting(reader: Reader) -> None:
    """The range of the server's versions, and the beginning of its mechanisms."""
    reader.one_of(b"( success ( ")
    for _ in ("least", "most"):
        reader.take(1, DIGITS)
        reader.one_of(b" ")
    reader.one_of(b"( ")


def read_response(reader: Reader) -> None:
    """The version that the client has chosen, its capabilities, and the repository's URL."""
    reader.one_of(b"( ")
    reader.take(1, DIGITS)
    reader.one_of(b" ( ")
    reader.until(b")", MAX_WORDS)
    reader.one_of(b" ")
    reader.take(1, DIGITS)
    reader.until(b":", 3, DIGITS)
    reader.one_of(b"svn")


PROTOCOL: Final = Protocol(
    name="svn",
    detect=single_message(read_response, read_greeting),
    client_first=b"(",
    server_first=b"(",
)
