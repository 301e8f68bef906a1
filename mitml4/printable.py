"""Text from the network, made safe for a terminal."""

from __future__ import annotations

from typing import Final

__all__ = ["printable"]

# They are invisible, and change the width of the preceding character (Unicode §23.4).
_VARIATION_SELECTORS: Final = frozenset(
    map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)


def printable(text: str) -> str:
    r"""The text on one line, with everything escaped that a terminal would interpret.

    These are control characters, bidirectional and other format characters, line and paragraph
    separators, surrogates (bytes that were not UTF-8 become ``\xNN``), and unassigned code points.
    Letters of any script are kept.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _is_shown(char) else _escaped(char) for char in text)


def _is_shown(char: str) -> bool:
    return char.isprintable() and char not in _VARIATION_SELECTORS


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # PEP 383: a byte that could not be decoded
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")
