"""Redis and compatible servers (RESP, "Redis serialization protocol specification").

A command is an array of strings (`*2`, `$4`, `ECHO`, `$2`, `hi`, each ended by CRLF), which no
other protocol has. A command typed by hand is an inline line of words: only its answer tells it
from other protocols of lines. Only the name of the first command is read: the arguments of AUTH and
HELLO are secrets, and those of others are data.
"""

from __future__ import annotations

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
from mitml4.protocols.parts.lines import TEXT, in_lines
from mitml4.protocols.parts.units import Units
from mitml4.regex import regex

__all__ = ["PROTOCOL", "Redis", "RedisDetails"]

DIGITS: Final = b"0123456789"
LETTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
MAX_NAME: Final = 64
MAX_LINE: Final = 4096
MAX_ANSWER: Final = 1024

PORT: Final = 6379

VERBS: Final = frozenset(
    b"ACL APPEND BGREWRITEAOF BGSAVE BLPOP BRPOP CLIENT CLUSTER COMMAND CONFIG DBSIZE DEBUG DECR "
    b"DECRBY DEL DUMP ECHO EVAL EVALSHA EXISTS EXPIRE FLUSHALL FLUSHDB GEOADD GET GETRANGE GETSET "
    b"HDEL HELLO HEXISTS HGET HGETALL HINCRBY HKEYS HLEN HMGET HMSET HSET INCR INCRBY INFO KEYS "
    b"LASTSAVE LATENCY LINDEX LLEN LPOP LPUSH LRANGE MEMORY MGET MODULE MONITOR MSET MULTI OBJECT "
    b"PERSIST PEXPIRE PFADD PING PSUBSCRIBE PSYNC PTTL PUBLISH RANDOMKEY RENAME REPLCONF REPLICAOF "
    b"ROLE RPOP RPUSH SADD SAVE SCAN SCARD SCRIPT SELECT SET SETEX SETNX SHUTDOWN SINTER SISMEMBER "
    b"SLAVEOF SLOWLOG SMEMBERS SORT SPOP SREM STRLEN SUBSCRIBE SUNION SYNC TIME TTL TYPE WATCH "
    b"XADD XLEN XRANGE XREAD ZADD ZCARD ZRANGE ZREM ZSCORE".split()
)
"""Commands that people type first. POP3 has AUTH and QUIT too, with the same answers."""
ALONE: Final = frozenset(
    b"BGREWRITEAOF BGSAVE COMMAND DBSIZE FLUSHALL FLUSHDB HELLO INFO LASTSAVE MONITOR MULTI PING "
    b"RANDOMKEY ROLE SAVE SHUTDOWN SYNC TIME".split()
)
"""Those without arguments."""
GRANTED: Final = frozenset(
    b"ACL CLIENT CLUSTER CONFIG DEBUG FLUSHALL FLUSHDB HMSET LATENCY MEMORY MODULE MONITOR MSET "
    b"MULTI RENAME REPLCONF REPLICAOF SAVE SCRIPT SELECT SET SETEX SHUTDOWN SLAVEOF SLOWLOG WATCH "
    b"XADD".split()
)
"""Those that may be answered by `+OK`."""
_TYPES: Final = (b"+", b"-", b":", b"$", b"*", b"%", b"_")
_ANSWERS: Final = frozenset({b"", *_TYPES})
_DELIMITER: Final = regex(rb"[ \r\n]")
_WORD: Final = regex(rb"([A-Za-z]+)[ \r\n]")
_OTHERS_VERSION: Final = regex(rb" [A-Z]+/[0-9]")
"""The end of a request line of HTTP, RTSP, SIP or ICAP."""


def read_array(reader: Reader) -> int:
    """The head of an array, and the length of its first string. Returns the number of strings."""
    reader.one_of(b"*")
    count = _number(reader, 7)
    reader.one_of(b"$")
    length = _number(reader, 2)
    if count == 0 or not 0 < length <= MAX_NAME:
        raise ProtocolError("a command without a name")
    reader.part(length).take(1, LETTERS)
    return count


def _number(reader: Reader, digits: int) -> int:
    """A number of up to `digits` digits, and CRLF."""
    number = reader.take(1, DIGITS) + reader.until(b"\r", digits - 1, DIGITS)
    reader.one_of(b"\n")
    return int(number)


def read_answer(reader: Reader) -> None:
    """The first line of an answer, by its type. `+OK` has no text after it: with one it is POP3's
    greeting, which may have come before the command."""
    if reader.data.startswith(b"+OK ", reader.at):
        raise ProtocolError("an OK followed by text")
    kind = reader.one_of(*_TYPES)
    if kind == b"_":
        reader.one_of(b"\r")
    elif kind in b"+-":
        reader.take(1, PRINTABLE if kind == b"+" else LETTERS.upper())
        reader.until(b"\r", MAX_ANSWER)
    else:
        reader.take(1, DIGITS + b"-")
        reader.until(b"\r", 18, DIGITS)
    reader.one_of(b"\n")


def read_refusal(reader: Reader) -> None:
    """An error for a client that may send no commands."""
    reader.one_of(b"-DENIED Redis ", b"-ERR max number of clients")


def read_complaint(reader: Reader) -> None:
    """An error that only Redis sends for a line that is no command."""
    reader.one_of(
        *(b"-ERR unknown command", b"-ERR AUTH <password>", b"-ERR invalid password"),
        *(b"-NOAUTH ", b"-WRONGPASS "),
    )


def detect(opening: Opening) -> Verdict:
    """The head of an array; a line with an answer of Redis; or an error for a silent client."""
    if opening.down and not opening.up:
        return _likely(
            evaluate(read_answer if opening.port == PORT else read_refusal, opening.down)
        )
    if opening.down.startswith(b"+OK "):
        return Verdict.REJECT  # POP3's greeting
    if opening.up[:1] in (b"", b"*"):
        return evaluate(read_array, opening.up)
    if opening.down[:1] not in _ANSWERS:
        return Verdict.REJECT
    if not opening.down and opening.port != PORT and in_lines(opening.up):
        return Verdict.NEED_MORE  # only an answer decides
    line = _inline(opening.up)
    if line is Verdict.REJECT and in_lines(opening.up):
        return (
            Verdict.NEED_MORE
            if not opening.down
            else _likely(evaluate(read_complaint, opening.down))
        )
    if line is not Verdict.MATCH:
        return line
    if opening.down.startswith(b"+OK") and _verb(opening.up) not in GRANTED:
        return Verdict.REJECT  # a greeting: Redis never greets
    answer = evaluate(read_answer, opening.down)
    usual = opening.port == PORT and not opening.down
    return Verdict.LIKELY if answer is Verdict.NEED_MORE and usual else answer


def _likely(verdict: Verdict) -> Verdict:
    return Verdict.LIKELY if verdict is Verdict.MATCH else verdict


def _inline(up: bytes) -> Verdict:
    """The verdict on a first line: whether it is a known command."""
    line, newline, _ = up[: MAX_LINE + 1].partition(b"\n")
    _, delimiter, arguments = line.replace(b"\r", b" ").partition(b" ")
    verb = _verb(up)
    if not (delimiter or newline):
        known = any(name.startswith(verb) for name in VERBS)
        return Verdict.NEED_MORE if known else Verdict.REJECT
    if verb not in VERBS or len(line) > MAX_LINE or _OTHERS_VERSION.search(line):
        return Verdict.REJECT
    if newline and verb not in ALONE and not arguments.strip():
        return Verdict.REJECT
    return Verdict.MATCH if newline else Verdict.NEED_MORE


def _verb(up: bytes) -> bytes:
    """The first word of an inline command, in capitals."""
    return _DELIMITER.split(up[: MAX_LINE + 1], maxsplit=1)[0].upper()


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisDetails(Details):
    """The first command's name in upper case; for HELLO, the requested version of RESP."""

    command: bytes | None = None
    resp: int | None = None


@dataclass(slots=True)
class Redis(Units):
    """Reads the name of the first command; the rest passes."""

    name: ClassVar[str] = "redis"

    down: Directive = FORWARD_ALL
    command: bytes | None = None
    resp: int | None = None

    def client_unit(self, reader: Reader) -> None:
        if reader.data.startswith(b"*", reader.at):
            self._array(reader)
        else:
            self.command = _first_word(reader).upper()
        self.stay_plain()

    def _array(self, reader: Reader) -> None:
        """`*n $length name`, and the version of a HELLO."""
        reader.one_of(b"*")
        count = _number(reader, 7)
        name = _string(reader)
        if name.upper() == b"HELLO" and count > 1:
            version = _string(reader)
            self.resp = int(version) if version in (b"2", b"3") else None
        self.command = name.upper()

    def details(self) -> RedisDetails:
        return RedisDetails(command=self.command, resp=self.resp)


def _string(reader: Reader) -> bytes:
    """`$length`, and that many bytes."""
    reader.one_of(b"$")
    string = reader.take(_number(reader, 2))
    reader.one_of(b"\r\n")
    return string


def _first_word(reader: Reader) -> bytes:
    """The name of an inline command."""
    word = _WORD.match(reader.data, reader.at)
    if word is None and (reader.left > MAX_NAME or b"\n" in reader.data[reader.at :]):
        raise ProtocolError("a command without a name")
    if word is None:
        raise Short
    return word[1]


PROTOCOL: Final = Protocol(
    name=Redis.name,
    detect=detect,
    converse=lambda context: Redis(context=context),
    client_first=TEXT,
    server_first=b"+-:$*%_",
)
