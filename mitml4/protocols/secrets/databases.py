"""Secrets in the protocols of databases and directories."""

from __future__ import annotations

from typing import Final

from mitml4.errors import ProtocolError
from mitml4.protocols.parts.ber import read_head, read_length
from mitml4.protocols.parts.fields import Reader
from mitml4.protocols.secrets.finder import MAX_UNIT, SecretFinder, Span
from mitml4.protocols.secrets.tds import Tds
from mitml4.regex import regex

__all__ = ["Cassandra", "Ldap", "Memcached", "Mongodb", "Mysql", "Postgresql", "Redis",
           "RedisReplies", "Tds"]  # fmt: skip

_REDIS_SETTINGS: Final = frozenset({b"REQUIREPASS", b"MASTERAUTH", b"TLS-KEY-FILE-PASS"})


class Redis(SecretFinder):
    """AUTH, HELLO with AUTH, and commands that set or pass on a password."""

    _WORD: Final = regex(
        rb"(?=[^ \r\n])(?:\"[^\"\\\r\n]*+(?:\\.[^\"\\\r\n]*+)*\"|'[^'\r\n]*+'|[^ \r\n\"']++)*"
        rb"(?:[\"'][^\r\n]*+)?"
    )
    """A word, quoted or not; a quote that does not end goes on to the end of the line."""
    _LONGEST_NAME: Final = 64

    def __init__(self) -> None:
        super().__init__()
        self._left = 0
        """Strings of the command that follow."""
        self._read: list[bytes] = []
        """The first two strings of the command, and the last two, in upper case."""
        self._count = 0

    def read(self, reader: Reader) -> None:
        if self._left:
            self._string(reader)
        elif reader.data.startswith(b"*", reader.at):
            reader.take(1)
            self._left = max(0, _decimal(reader))
            self._begin()
        else:
            start = reader.at
            words = list(self._WORD.finditer(reader.until(b"\n", MAX_UNIT, None)))
            self._begin()
            for left, word in zip(reversed(range(len(words))), words, strict=True):
                if self._is_secret(word[0], is_last=not left):
                    self.hide(start + word.start(), start + word.end())

    def _begin(self) -> None:
        self._read, self._count = [], 0

    def _string(self, reader: Reader) -> None:
        reader.one_of(b"$")
        length = max(0, _decimal(reader))
        if length > MAX_UNIT // 2:
            self.skip(length + 2)
            string = b""
        else:
            start = reader.at
            string = reader.take(length)
            reader.take(2)
        self._left -= 1
        if self._is_secret(string, is_last=not self._left):
            self.hide(start, start + length)

    def _is_secret(self, argument: bytes, *, is_last: bool) -> bool:
        """Whether the next string of the command is a secret."""
        read, at = self._read, self._count
        self._count += 1
        secret = at > 0 and self._is_secret_behind(read, at, argument, is_last=is_last)
        read.append(argument.upper() if len(argument) <= self._LONGEST_NAME else b"")
        if len(read) > 4:
            del read[2]
        return secret

    def _is_secret_behind(
        self, read: list[bytes], at: int, argument: bytes, *, is_last: bool
    ) -> bool:
        match read[0]:
            case b"AUTH":
                return at == 2 or is_last
            case b"HELLO":
                return at > 2 and read[-2] == b"AUTH"
            case b"CONFIG":
                return at > 2 and at % 2 == 1 and read[-1] in _REDIS_SETTINGS
            case b"ACL":
                return at > 2 and read[1] == b"SETUSER" and argument[:1] in (b">", b"<", b"#")
            case b"MIGRATE":
                return at > 2 and (read[-1] == b"AUTH" or read[-2] == b"AUTH2")
        return False


class RedisReplies(SecretFinder):
    """What the server answers to CONFIG GET, ACL GETUSER and ACL LIST: passwords and their
    hashes."""

    _STRINGS: Final = (b"$", b"=", b"!")
    _ARRAYS: Final = (b"*", b"~")
    _HASH: Final = regex(rb" #([0-9a-f]{64})(?= |\Z)")

    def __init__(self) -> None:
        super().__init__()
        self._name = b""
        """The last string, in upper case."""
        self._secrets = 0
        """So many strings that follow are secrets."""

    def read(self, reader: Reader) -> None:
        kind = reader.take(1)
        if kind in self._STRINGS:
            self._string(reader, _decimal(reader))
        elif kind in self._ARRAYS and self._name == b"PASSWORDS":
            self._name, self._secrets = b"", _decimal(reader)
        else:
            reader.until(b"\n", MAX_UNIT, None)
            self._name, self._secrets = b"", 0

    def _string(self, reader: Reader, length: int) -> None:
        start, name = reader.at, self._name
        if length > MAX_UNIT // 2:
            self._name = b""
            self.skip(length + 2)
            return
        string = reader.take(max(0, length))
        if length >= 0:
            reader.take(2)
        self._name = b""
        if self._secrets > 0 or name in _REDIS_SETTINGS:
            self._secrets -= self._secrets > 0
            self.hide(start, start + len(string))
            return
        self._name = string[:64].upper()
        if string.startswith(b"user "):
            for found in self._HASH.finditer(string):
                self.hide(start + found.start(1), start + found.end(1))


class Ldap(SecretFinder):
    """The credentials of a bind (RFC 4511 §4.2), and a change of a password (RFC 3062)."""

    _BIND, _EXTENDED = b"\x60", b"\x77"
    _MODIFY_PASSWORD: Final = b"1.3.6.1.4.1.4203.1.11.1"

    def read(self, reader: Reader) -> None:
        _, length = read_head(reader, b"\x30")
        if length > MAX_UNIT:
            self.skip(length)
            return
        message = reader.whole(length)
        message.one_of(b"\x02")
        message.take(message.uint(1, 1, 4))
        tag = message.take(1)
        read_length(message)
        if tag == self._BIND:
            self._bind(message)
        elif tag == self._EXTENDED:
            _, size = read_head(message, b"\x80")
            if message.take(size) == self._MODIFY_PASSWORD and message.left:
                self._hide_element(message)

    def _bind(self, message: Reader) -> None:
        message.one_of(b"\x02\x01")
        message.take(1)
        _, size = read_head(message, b"\x04")
        message.take(size)
        choice = message.take(1)
        size = read_length(message)
        if choice != b"\xa3":
            self.hide(message.at, message.at + size)
            return
        _, size = read_head(message, b"\x04")
        message.take(size)
        if message.data[message.at : message.at + 1] == b"\x04" and message.left:
            self._hide_element(message)

    def _hide_element(self, message: Reader) -> None:
        message.take(1)
        size = read_length(message)
        self.hide(message.at, message.at + size)


class Postgresql(SecretFinder):
    """PasswordMessage and the SASL and GSSAPI responses, which have the same type."""

    def read(self, reader: Reader) -> None:
        if reader.data[reader.at] == 0:  # a request or the start-up, which have no type
            self._pass(reader, reader.uint(4, 8) - 4)
            return
        kind, length = reader.take(1), reader.uint(4, 4) - 4
        if kind != b"p":
            self._pass(reader, length)
            return
        start = reader.at
        body = reader.take(length)
        self.hide(start, start + len(body.removesuffix(b"\0")))

    def _pass(self, reader: Reader, length: int) -> None:
        if length > MAX_UNIT:
            self.skip(length)
        else:
            reader.take(length)


class Mysql(SecretFinder):
    """The answer to the challenge in the login, and all that the client sends until its first
    command, whose packet has the number 0."""

    _CONNECT_WITH_LENGTH: Final = 1 << 21  # CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA
    _SECURE: Final = 1 << 15  # CLIENT_SECURE_CONNECTION
    _SSL: Final = 1 << 11
    _HEAD: Final = 32
    _CHANGE_USER: Final = 0x11

    def __init__(self) -> None:
        super().__init__()
        self._greeted = False
        self._logs_in = True

    def read(self, reader: Reader) -> None:
        length, number = reader.uint(3, little=True), reader.uint(1)
        if not number:
            self._logs_in = False
        if length > MAX_UNIT:
            self.skip(length)
            return
        packet = reader.whole(length)
        if not number:
            if length and packet.uint(1) == self._CHANGE_USER:
                self._logs_in = True
                packet.until(b"\0", length, None)
                self._hide(packet, packet.uint(1))
        elif self._logs_in and self._greeted:
            self._hide(packet, length)
        elif self._logs_in:
            self._login(packet, length)

    def _login(self, packet: Reader, length: int) -> None:
        capabilities = packet.uint(4, little=True)
        if length == self._HEAD and capabilities & self._SSL:
            return
        self._greeted = True
        packet.take(self._HEAD - 4)
        packet.until(b"\0", length, None)
        if capabilities & self._CONNECT_WITH_LENGTH:
            size = packet.uint(1)
            if size >= 0xFC:
                size = packet.uint(size - 0xFA, little=True)
            self._hide(packet, size)
        elif capabilities & self._SECURE:
            self._hide(packet, packet.uint(1))
        else:
            start = packet.at
            self.hide(start, start + len(packet.until(b"\0", length, None)))

    def _hide(self, packet: Reader, size: int) -> None:
        start = packet.at
        data = packet.take(size)
        self.hide(start, start + len(data.removesuffix(b"\0")))


class Memcached(SecretFinder):
    """The SASL operations of the binary protocol (BinaryProtocolRevamped)."""

    _HEAD: Final = 24
    _SASL: Final = (b"\x21", b"\x22")

    def read(self, reader: Reader) -> None:
        if reader.data[reader.at] != 0x80:
            self.is_over = True  # the text protocol
            return
        head = reader.take(self._HEAD)
        body = int.from_bytes(head[8:12])
        if head[1:2] not in self._SASL or body > MAX_UNIT - self._HEAD:
            self.skip(body)
            return
        start = reader.at + head[4] + int.from_bytes(head[2:4])
        reader.take(body)
        self.hide(start, reader.at)


class Mongodb(SecretFinder):
    """The payload of SASL, also in `hello`, and the passwords of users that are made."""

    _MSG, _QUERY = 2013, 2004
    _COMMANDS: Final = frozenset(
        b"saslStart saslContinue authenticate createUser updateUser hello isMaster ismaster".split()
    )
    _SECRET: Final = frozenset({b"payload", b"pwd", b"key"})
    _STRING, _BINARY, _DOCUMENTS = 2, 5, (3, 4)
    _SIZES: Final = {
        1: 8,
        6: 0,
        7: 12,
        8: 1,
        9: 8,
        10: 0,
        16: 4,
        17: 8,
        18: 8,
        19: 16,
        127: 0,
        255: 0,
    }
    _DEEPEST: Final = 8

    def read(self, reader: Reader) -> None:
        length = reader.uint(4, 16, little=True)
        if length > MAX_UNIT:
            self.skip(length - 4)
            return
        message = reader.whole(length - 4)
        message.take(8)
        code = message.uint(4, little=True)
        if code == self._MSG:
            message.take(4)
            if message.uint(1):
                return
        elif code == self._QUERY:
            message.take(4)
            message.until(b"\0", MAX_UNIT, None)
            message.take(8)
        else:
            return
        self._document(message, 0, is_command=True)

    def _document(self, reader: Reader, depth: int, *, is_command: bool = False) -> None:
        if depth > self._DEEPEST:
            raise ProtocolError("documents in documents")
        document = reader.whole(reader.uint(4, 5, little=True) - 4)
        while kind := document.uint(1):
            name = document.until(b"\0", MAX_UNIT, None)
            if is_command and name not in self._COMMANDS:
                return
            is_command = False
            if kind in self._DOCUMENTS:
                self._document(document, depth + 1)
                continue
            start, end = self._value(document, kind)
            if name in self._SECRET:
                self.hide(start, end)

    def _value(self, document: Reader, kind: int) -> Span:
        """Read a value; where its bytes stand."""
        if kind in (self._STRING, 13, 14):
            size = document.uint(4, 1, little=True)
            start = document.at
            document.take(size)
            return start, start + size - 1
        if kind == self._BINARY:
            size = document.uint(4, little=True)
            document.take(1)
        elif kind in self._SIZES:
            size = self._SIZES[kind]
        else:
            raise ProtocolError("an element of another type")
        start = document.at
        document.take(size)
        return start, start + size


class Cassandra(SecretFinder):
    """AUTH_RESPONSE. In version 5, what follows STARTUP is in segments (CQL binary protocol v5,
    section 2.2), of which a compressed one is not read."""

    _STARTUP, _AUTH_RESPONSE = 0x01, 0x0F
    _IS_COMPRESSED: Final = 1
    _MAX_PAYLOAD: Final = 0x1FFFF

    def __init__(self) -> None:
        super().__init__()
        self._has_segments = False
        self._compresses = False

    def read(self, reader: Reader) -> None:
        if not self._has_segments:
            self._frame(reader)
            return
        length = reader.uint(5 if self._compresses else 3, little=True) & self._MAX_PAYLOAD
        reader.take(3)
        payload = reader.whole(length)
        reader.take(4)
        if self._compresses:
            self.hide(payload.at, payload.at + length)
            self.is_over = True
        while payload.left and not self._compresses:
            self._frame(payload)

    def _frame(self, reader: Reader) -> None:
        version, flags = reader.uint(1), reader.uint(1)
        reader.take(2)
        opcode, length = reader.uint(1), reader.uint(4)
        if length > MAX_UNIT // 2 and not self._has_segments:
            self.skip(length)
            return
        body = reader.whole(length)
        if opcode == self._STARTUP:
            content = body.take(length)
            self._has_segments = version == 5
            self._compresses = b"COMPRESSION" in content
        elif opcode == self._AUTH_RESPONSE:
            if not flags & self._IS_COMPRESSED:
                body.take(4)
            self.hide(body.at, body.at + body.left)


def _decimal(reader: Reader) -> int:
    """A number and the end of its line."""
    line = reader.until(b"\n", 24, b"-0123456789\r").removesuffix(b"\r")
    try:
        return int(line)
    except ValueError:
        raise ProtocolError("no number") from None
