"""memcached, in its text and its binary protocol (memcached, protocol.txt; BinaryProtocolRevamped).

The answer to a line of the text protocol tells it from other protocols of lines. A request of the
binary protocol has a head of 24 bytes, whose lengths must fit the operation. Keys and values are
data: only the name of the first command is kept.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    Details,
    Directive,
    Opening,
    Protocol,
    Verdict,
)
from mitml4.protocols.parts.fields import PRINTABLE, Reader, Short, evaluate
from mitml4.protocols.parts.units import Units
from mitml4.regex import regex

__all__ = ["OPERATIONS", "PROTOCOL", "Memcached", "MemcachedDetails"]

PORT: Final = 11211
MAX_LINE: Final = 2048
"""The server's limit for a line that is no `get` of many keys."""
MAX_KEY: Final = 250

_KEY: Final = rb"[!-~]{1,250}"
_NUMBER: Final = rb"-?[0-9]{1,20}"
_STORE: Final = _KEY + rb" [0-9]{1,10} " + _NUMBER + rb" [0-9]{1,10}"
_QUIET: Final = rb"(?: noreply)?"
_STORED: Final = (b"STORED\r\n", b"NOT_STORED\r\n")
_GOT: Final = (b"VALUE ", b"END\r\n")
_MISSED: Final = b"NOT_FOUND\r\n"
_DIGITS: Final = tuple(bytes([digit]) for digit in b"0123456789")
_FAILED: Final = (b"CLIENT_ERROR ", b"SERVER_ERROR ", b"ERROR\r\n")
_FLAGS: Final = rb"(?: [!-~]+)*"
_META: Final = (b"HD", b"EN\r\n", b"NF", b"NS", b"EX")

# protocol.txt: the arguments of each command, and the beginnings of its answers
COMMANDS: Final[dict[bytes, tuple[bytes, tuple[bytes, ...]]]] = {
    b"set": (_STORE + _QUIET, _STORED),
    b"add": (_STORE + _QUIET, _STORED),
    b"replace": (_STORE + _QUIET, _STORED),
    b"append": (_STORE + _QUIET, _STORED),
    b"prepend": (_STORE + _QUIET, _STORED),
    b"cas": (_STORE + rb" [0-9]{1,20}" + _QUIET, (*_STORED, b"EXISTS\r\n", _MISSED)),
    b"get": (_KEY + rb"(?: " + _KEY + rb")*", _GOT),
    b"gets": (_KEY + rb"(?: " + _KEY + rb")*", _GOT),
    b"gat": (_NUMBER + rb"(?: " + _KEY + rb")+", _GOT),
    b"gats": (_NUMBER + rb"(?: " + _KEY + rb")+", _GOT),
    b"delete": (_KEY + rb"(?: 0)?" + _QUIET, (b"DELETED\r\n", _MISSED)),
    b"incr": (_KEY + rb" [0-9]{1,20}" + _QUIET, (*_DIGITS, _MISSED)),
    b"decr": (_KEY + rb" [0-9]{1,20}" + _QUIET, (*_DIGITS, _MISSED)),
    b"touch": (_KEY + rb" " + _NUMBER + _QUIET, (b"TOUCHED\r\n", _MISSED)),
    b"stats": (rb"[!-~ ]*", (b"STAT ", b"END\r\n", b"RESET\r\n", b"OK\r\n")),
    b"version": (rb"", (b"VERSION ",)),
    b"flush_all": (rb"(?:" + _NUMBER + rb")?" + _QUIET, (b"OK\r\n",)),
    b"verbosity": (rb"[0-9]+" + _QUIET, (b"OK\r\n",)),
    b"mg": (_KEY + _FLAGS, (*_META, b"VA ")),
    b"ms": (_KEY + rb" [0-9]{1,10}" + _FLAGS, _META),
    b"md": (_KEY + _FLAGS, _META),
    b"ma": (_KEY + _FLAGS, (*_META, b"VA ")),
    b"mn": (rb"", (b"MN\r\n",)),
}
_OF_THE_NEXT: Final = tuple({a for _, answers in COMMANDS.values() for a in answers} - {*_DIGITS})
"""The beginnings of the next answer, where the first command wants none."""
STORES: Final = (b"set", b"add", b"replace", b"append", b"prepend", b"cas")
"""Commands whose lines no other protocol has."""
_LINES: Final = {verb: regex(pattern) for verb, (pattern, _) in COMMANDS.items()}
LONGEST: Final = max(map(len, COMMANDS))
_WORD: Final = regex(rb"([a-z_]+)[ \r\n]")
_HTTP: Final = b" HTTP/"
"""`get /a HTTP/1.1` looks like a `get` of two keys."""

REQUEST: Final = b"\x80"
MAX_BODY: Final = 1 << 27
MAX_BUCKET: Final = 1023
"""Buckets are Couchbase's; memcached itself has none."""
KEY: Final = PRINTABLE + bytes(range(0x80, 0x100))


class Field(Enum):
    """Whether an operation has a key, or a value."""

    NONE = "none"
    SOME = "some"
    MAYBE = "maybe"


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of the binary protocol: its name, the sizes of its extras, its key and value."""

    name: bytes
    extras: tuple[int, ...]
    key: Field
    value: Field = Field.NONE


# BinaryProtocolRevamped, "Command Opcodes"; 20 and 21 are those of a login
OPERATIONS: Final = {
    0x00: Operation(b"get", (0,), Field.SOME),
    0x01: Operation(b"set", (8,), Field.SOME, Field.MAYBE),
    0x02: Operation(b"add", (8,), Field.SOME, Field.MAYBE),
    0x03: Operation(b"replace", (8,), Field.SOME, Field.MAYBE),
    0x04: Operation(b"delete", (0,), Field.SOME),
    0x05: Operation(b"increment", (20,), Field.SOME),
    0x06: Operation(b"decrement", (20,), Field.SOME),
    0x07: Operation(b"quit", (0,), Field.NONE),
    0x08: Operation(b"flush", (0, 4), Field.NONE),
    0x09: Operation(b"getq", (0,), Field.SOME),
    0x0A: Operation(b"no-op", (0,), Field.NONE),
    0x0B: Operation(b"version", (0,), Field.NONE),
    0x0C: Operation(b"getk", (0,), Field.SOME),
    0x0D: Operation(b"getkq", (0,), Field.SOME),
    0x0E: Operation(b"append", (0,), Field.SOME, Field.MAYBE),
    0x0F: Operation(b"prepend", (0,), Field.SOME, Field.MAYBE),
    0x10: Operation(b"stat", (0,), Field.MAYBE),
    0x11: Operation(b"setq", (8,), Field.SOME, Field.MAYBE),
    0x1C: Operation(b"touch", (4,), Field.SOME),
    0x1D: Operation(b"gat", (4,), Field.SOME),
    0x20: Operation(b"sasl list", (0,), Field.NONE),
    0x21: Operation(b"sasl auth", (0,), Field.SOME, Field.MAYBE),
}
_OPCODES: Final = tuple(bytes([opcode]) for opcode in OPERATIONS)


def read_request(reader: Reader) -> Operation:
    """A binary request up to the end of its key. The first one has no CAS value yet."""
    reader.one_of(REQUEST)
    operation = OPERATIONS[reader.one_of(*_OPCODES)[0]]
    key = reader.uint(2, operation.key is Field.SOME, _most(operation.key, MAX_KEY))
    extras = reader.uint(1, operation.extras[0], operation.extras[-1])
    reader.one_of(b"\x00")
    reader.uint(2, 0, MAX_BUCKET)
    least = key + extras + (operation.value is Field.SOME)
    reader.uint(4, least, key + extras + _most(operation.value, MAX_BODY))
    reader.take(4)
    reader.one_of(bytes(8))
    if extras not in operation.extras:
        raise ProtocolError("extras of a wrong size")
    reader.take(extras)
    reader.take(key, KEY)
    return operation


def _most(field: Field, limit: int) -> int:
    return 0 if field is Field.NONE else limit


def detect(opening: Opening) -> Verdict:
    """The head of a binary request; or a line, with an answer that memcached gives."""
    if opening.down and not opening.up:
        return Verdict.REJECT
    if opening.up[:1] == REQUEST:
        return evaluate(read_request, opening.up)
    line, newline, _ = opening.up[: MAX_LINE + 1].partition(b"\n")
    verb = _verb(line, whole=bool(newline))
    if verb is None or not newline:
        return Verdict.REJECT if verb is None else Verdict.NEED_MORE
    silent = line.removesuffix(b"\r").endswith(b" noreply")
    answers = _OF_THE_NEXT if silent else (*COMMANDS[verb][1], *_FAILED)
    if opening.down.startswith(answers):
        return Verdict.MATCH
    if opening.down:
        possible = any(answer.startswith(opening.down) for answer in answers)
        return Verdict.NEED_MORE if possible else Verdict.REJECT
    return Verdict.LIKELY if opening.port == PORT or verb in STORES else Verdict.NEED_MORE


def _verb(line: bytes, *, whole: bool) -> bytes | None:
    """The command of a line or of its beginning; None if there is no such command."""
    line = line.removesuffix(b"\r")
    verb, space, rest = line.partition(b" ")
    if not (space or whole):
        return b"" if any(name.startswith(verb) for name in COMMANDS) else None
    if verb not in COMMANDS or len(line) >= MAX_LINE or rest.translate(None, PRINTABLE):
        return None
    fits = not whole or (_LINES[verb].fullmatch(rest) and _HTTP not in line)
    return verb if fits else None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemcachedDetails(Details):
    """The format (text or binary), and the first command's name."""

    format: str | None = None
    command: bytes | None = None


@dataclass(slots=True)
class Memcached(Units):
    """Reads the name of the first command; the rest passes."""

    name: ClassVar[str] = "memcached"

    down: Directive = FORWARD_ALL
    format: str | None = None
    command: bytes | None = None

    def client_unit(self, reader: Reader) -> None:
        if reader.data.startswith(REQUEST, reader.at):
            self.format, self.command = "binary", read_request(reader).name
        else:
            self.format, self.command = "text", _first_word(reader)
        self.stay_plain()

    def details(self) -> MemcachedDetails:
        return MemcachedDetails(format=self.format, command=self.command)


def _first_word(reader: Reader) -> bytes:
    word = _WORD.match(reader.data, reader.at)
    if word is None and reader.left > LONGEST:
        raise ProtocolError("a line without a command")
    if word is None:
        raise Short
    return word[1]


PROTOCOL: Final = Protocol(
    name=Memcached.name,
    detect=detect,
    converse=lambda context: Memcached(context=context),
    client_first=REQUEST + bytes({verb[0] for verb in COMMANDS}),
    server_first=b"",
)
