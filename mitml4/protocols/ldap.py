"""LDAP up to StartTLS (RFC 4511).

    client                                             server
    30 len  02 id  77 … 1.3.6.1.4.1.1466.20037  ───►
                                                ◄───   30 len  02 id  78 … 0a 01 00: TLS begins

Every message is `SEQUENCE { id, operation, controls }`. A client may ask for TLS at any time when
nothing else is under way (§4.14.1), so also after a search or an anonymous bind. Messages are
followed by their lengths, and their bodies pass. After a number of them no request for TLS is
expected any more. The client's side waits from its request to the answer. What SASL wraps after a
bind (RFC 4422 §3.7) begins with a length in place of a SEQUENCE, and passes.
"""

from __future__ import annotations

from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    Details,
    Direction,
    Opening,
    Protocol,
    Verdict,
)
from mitml4.protocols.parts.ber import read_head, read_length
from mitml4.protocols.parts.fields import Reader, evaluate
from mitml4.protocols.parts.sasl import binds_channel
from mitml4.protocols.parts.units import Units

__all__ = ["PROTOCOL", "Ldap", "LdapDetails"]

SEQUENCE: Final = b"\x30"
INTEGER: Final = b"\x02"
SMALL_INTEGER: Final = INTEGER + b"\x01"
ENUMERATED: Final = b"\x0a\x01"
"""With its length: all defined values fit into a byte."""
OCTETS: Final = b"\x04"
CONTROLS: Final = b"\xa0"

# §4.2 to §4.14: the operations, and the first element of each
BIND: Final = b"\x60"
EXTENDED: Final = b"\x77"
BIND_RESPONSE: Final = b"\x61"
ENTRY: Final = b"\x64"
"""An entry that a search found."""
EXTENDED_RESPONSE: Final = b"\x78"
REQUESTS: Final = {
    BIND: SMALL_INTEGER,
    b"\x42": b"",  # unbind
    b"\x63": OCTETS,  # search
    b"\x66": OCTETS,  # modify
    b"\x68": OCTETS,  # add
    b"\x4a": None,  # delete
    b"\x6c": OCTETS,  # modify DN
    b"\x6e": OCTETS,  # compare
    b"\x50": None,  # abandon
    EXTENDED: b"\x80",
}
RESPONSES: Final = {
    BIND_RESPONSE: ENUMERATED,
    ENTRY: OCTETS,
    b"\x65": ENUMERATED,  # search: done
    b"\x67": ENUMERATED,  # modify
    b"\x69": ENUMERATED,  # add
    b"\x6b": ENUMERATED,  # delete
    b"\x6d": ENUMERATED,  # modify DN
    b"\x6f": ENUMERATED,  # compare
    b"\x73": OCTETS,  # search: a reference
    EXTENDED_RESPONSE: ENUMERATED,
    b"\x79": None,  # intermediate
}
ANY: Final = {**REQUESTS, **RESPONSES}

START_TLS: Final = b"1.3.6.1.4.1.1466.20037"
SUCCESS: Final = ENUMERATED + b"\x00"
SIMPLE: Final = b"\x80"
SASL: Final = b"\xa3"
SICILY: Final = (b"\x89", b"\x8a", b"\x8b")
"""[MS-ADTS] §5.1.1.1.3: NTLM without SASL."""

MAX_MESSAGES: Final = 1000
"""Messages of both sides after which no request for TLS is expected."""
MAX_DN: Final = 4096
MAX_MECHANISM: Final = 20
"""RFC 4422 §3.1."""
MAX_ROOT: Final = 16384
"""Bytes of the root's entry, in which the server lists its SASL mechanisms."""
MAX_EXTENDED: Final = 4096
"""Bytes of an extended request that may be StartTLS, including its controls."""


@dataclass(frozen=True, slots=True)
class Message:
    """The head of a message: its id, and the tag and body of its operation, which is unread."""

    id: int
    tag: bytes
    operation: Reader
    size: int
    """The bytes of the operation's body and of all that follows it in the message."""


def read_message(reader: Reader, operations: dict[bytes, bytes | None]) -> Message:
    """The head of a message, up to the body of its operation."""
    _, length = read_head(reader, SEQUENCE)
    end = reader.at + length
    message = reader.part(length)
    message.one_of(INTEGER)
    message_id = message.uint(message.uint(1, 1, 4))
    tag, size = read_head(message, *operations)
    begins = operations[tag]
    if message.at + size > end or bool(size) == (begins == b""):
        raise ProtocolError("an operation whose length does not fit its message")
    reader.at = message.at
    return Message(message_id, tag, message.part(size), end - message.at)


def read_beginning(reader: Reader, operations: dict[bytes, bytes | None]) -> None:
    """The head of a message and the first bytes of its operation; or, for a short one, all of it
    and the head of the next."""
    message = read_message(reader, operations)
    operation = message.operation
    if begins := operations[message.tag]:
        operation.one_of(begins)
        return
    assert operation.end is not None
    size = operation.end - operation.at
    reader.take(size)
    if message.size > size:
        reader.one_of(CONTROLS)


def detect(opening: Opening) -> Verdict:
    """A message of the client's; or, in a capture that begins midway, a server's answer."""
    if opening.up:
        return evaluate(lambda reader: read_beginning(reader, ANY), opening.up)
    verdict = evaluate(lambda reader: read_beginning(reader, RESPONSES), opening.down)
    return Verdict.LIKELY if verdict is Verdict.MATCH and not opening.up_ended else verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class LdapDetails(Details):
    """The bound DN, if any, and the mechanism: `simple`, `sicily` or SASL's. No secret is kept."""

    bind_dn: bytes | None = None
    mechanism: bytes | None = None
    upgraded: bool = False


@dataclass(slots=True)
class Ldap(Units):
    """Follows messages by their lengths, until TLS begins or no longer can."""

    name: ClassVar[str] = "ldap"

    bind_dn: bytes | None = None
    mechanism: bytes | None = None
    upgraded: bool = False
    _asked: int | None = None
    """The id of the request for TLS, until it is answered."""
    _requests: int = 0
    _messages: int = 0
    """Of both sides together."""

    def client_unit(self, reader: Reader) -> None:
        if not self._goes_on(reader):
            return
        message = read_message(reader, ANY)
        if message.tag == EXTENDED and message.size <= MAX_EXTENDED:
            reader.take(message.size)
            if _name(message.operation) == START_TLS:
                self._asked = message.id
                self.ask()
            return
        if message.tag == BIND:
            self.bind_dn, self.mechanism = _bind(message.operation)
        self._requests += 1
        # One request may come before TLS; a second one hardly does.
        self.details_ready = self.details_ready or self._requests > 1 or bool(self.bind_dn)
        self._messages += 1
        self.skip_body(reader, Direction.UP, message.size)

    def server_unit(self, reader: Reader) -> None:
        if not self._goes_on(reader):
            return
        message = read_message(reader, ANY)
        if message.tag == ENTRY and message.size <= MAX_ROOT and _is_of_root(message.operation):
            if binds_channel(reader.take(message.size)):  # among its supportedSASLMechanisms
                self.channel_binding = True
            self._messages += 1
            return
        if message.tag != EXTENDED_RESPONSE or message.id != self._asked:
            if message.tag == BIND_RESPONSE and self.bind_dn is not None:
                self._bound(message.operation)
            self._messages += 1
            self.skip_body(reader, Direction.DOWN, message.size)
            return
        if message.size > MAX_EXTENDED:
            raise ProtocolError("an answer to StartTLS that is too long")
        reader.take(message.size)
        self._asked = None
        if message.operation.take(3) == SUCCESS:
            self.upgraded = True
            self.go_inside()
        else:
            self.details_ready = True
            self.answered()

    def _bound(self, operation: Reader) -> None:
        """A bind was answered. The answer to an anonymous one shows nothing."""
        anonymous = not self.bind_dn and self.mechanism == b"simple"
        if operation.take(3) == SUCCESS and not anonymous:
            self.channel_binding = False

    def _goes_on(self, reader: Reader) -> bool:
        """Whether messages follow, and not too many yet. If not, the rest passes."""
        if self._messages < MAX_MESSAGES and reader.data.startswith(SEQUENCE, reader.at):
            return True
        self.stay_plain()
        return False

    def details(self) -> LdapDetails:
        return LdapDetails(bind_dn=self.bind_dn, mechanism=self.mechanism, upgraded=self.upgraded)


def _is_of_root(entry: Reader) -> bool:
    """Whether an entry describes the server itself (RFC 4512 §5.1): then its name is empty."""
    return entry.take(2) == OCTETS + b"\0"


def _name(operation: Reader) -> bytes:
    """The name of an extended request (§4.12)."""
    _, size = read_head(operation, b"\x80")
    return operation.take(size)


def _bind(operation: Reader) -> tuple[bytes, bytes]:
    """`version, name, authentication` (§4.2), without secrets."""
    operation.one_of(INTEGER + b"\x01")
    operation.take(1)
    _, size = read_head(operation, OCTETS)
    if size > MAX_DN:
        raise ProtocolError("a name that is too long")
    name = operation.take(size)
    choice = operation.one_of(SIMPLE, SASL, *SICILY)
    if choice != SASL:
        return name, b"simple" if choice == SIMPLE else b"sicily"
    read_length(operation)
    _, size = read_head(operation, OCTETS)
    return name, operation.take(min(size, MAX_MECHANISM))


PROTOCOL: Final = Protocol(
    name=Ldap.name,
    detect=detect,
    converse=lambda context: Ldap(context=context),
    client_first=SEQUENCE,
    server_first=SEQUENCE,
)
