"""A leg of the TLS bridge after its handshake: data, key updates, tickets, alerts.

Ciphertext is opened straight into the reader's buffer, and sealed straight into the sender's. What
a connection keeps between two calls is what has not been opened: mostly nothing, or a part of one
record.

What the connection itself has to send (an answer to a KeyUpdate, an alert) is `due`. It is sealed
just before it is sent, since a record has to leave in the order of its number.

A far end may send what brings us no data: key updates, tickets, empty records, warnings. All have
a limit, BoringSSL's where it has one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NoReturn

from mitml4.crypto.records import NotAuthentic, Protection, Protection13
from mitml4.protocols.tls.alerts import Alert, TlsError, alert_name
from mitml4.protocols.tls.records import MAX_RECORD, HandshakeType, RecordType
from mitml4.tls.bridge.leg import CHANGE_CIPHER_SPEC, Message
from mitml4.tls.bridge.messages import KeyUpdate, NewSessionTicket
from mitml4.tls.bridge.records import (
    MAX_CONTENT,
    MAX_EMPTY_RECORDS,
    MAX_FRAGMENT,
    Messages,
    RecordsIn,
    RecordsOut,
    is_type,
    refuse_header,
)
from mitml4.tls.bridge.renegotiation import CHANGE, Renegotiable, Renegotiation

__all__ = ["MIN_ROOM", "RECORDS_A_TURN", "Connection"]

MIN_ROOM: Final = MAX_RECORD
"""`Connection.open` needs a buffer of so many bytes."""
RECORDS_A_TURN: Final = 32
"""So many records are opened or sealed at once: each may hold one byte, or none."""

_unpack_header: Final = struct.Struct("!BHH").unpack_from
"""Type, version, length (RFC 8446 §5.1)."""
_HEADER_BYTES: Final = 5
_DATA: Final = int(RecordType.APPLICATION_DATA)
_TLS_1_2: Final = 0x0303
_HEADER_OF_DATA: Final = (_DATA, _TLS_1_2)
_WARNING: Final = 1
_FATAL: Final = 2
_MAX_KEY_UPDATES: Final = 32
_MAX_MESSAGES: Final = 32
_MAX_WARNINGS: Final = 4
_MAX_DUE: Final = 64
_SEALED_WITH_ONE_KEY: Final = 1 << 23
"""RFC 8446 §5.5: AES-GCM is safe for 2^24.5 full records; for AES-CCM it is 2^23 (RFC 9147)."""
_KEY_UPDATE: Final = (RecordType.HANDSHAKE, KeyUpdate(request=False).encode())
_CLOSE_NOTIFY: Final = (RecordType.ALERT, bytes([_WARNING, Alert.CLOSE_NOTIFY]))
_NO_RENEGOTIATION: Final = (RecordType.ALERT, bytes([_WARNING, Alert.NO_RENEGOTIATION]))
_NOTHING: Final = memoryview(b"")
_SPARE: Final = memoryview(bytearray(MAX_RECORD))
"""For a record whose type or padding has no room in the reader's buffer."""


class _SinceData:
    """What has come since the last byte of data."""

    __slots__ = ("empty", "key_updates", "messages", "others", "warnings")

    def __init__(self) -> None:
        self.empty = self.key_updates = self.others = self.warnings = 0
        self.messages = Messages()


class Connection:
    """One leg after its handshake, of TLS 1.3 or of TLS 1.2 with AEAD."""

    __slots__ = (
        "_is_client",
        "_is_tls12",
        "_max_content",
        "_max_fragment",
        "_max_opened",
        "_opens",
        "_renegotiation",
        "_seals",
        "_since_data",
        "answer_request",
        "due",
        "failure",
        "has_ended",
        "is_shut",
        "kept",
        "on_renegotiation",
        "on_request",
        "on_ticket",
        "received_alert",
        "received_close_notify",
        "renegotiable",
    )

    def __init__(self, records_in: RecordsIn, records_out: RecordsOut, *, is_client: bool) -> None:
        """Goes on with both protections of a leg, and with what the leg has not read.

        `is_client`: whether we are the client on this leg.
        """
        assert records_in.protection
        assert records_out.protection
        self._opens: Protection = records_in.protection
        self._seals: Protection = records_out.protection
        self._max_content = records_out.max_content
        self._max_opened = records_in.max_content
        self._is_tls12 = records_in.is_tls12
        self._max_fragment = MAX_FRAGMENT[self._is_tls12]
        self._is_client = is_client
        self.due: list[tuple[RecordType, bytes]] = []
        """What is to be sent, with data or without."""
        self._since_data: _SinceData | None = None
        self.kept = memoryview(records_in.take_rest())
        """Ciphertext that has not been opened; `open` wants it in front of what comes next."""
        self.failure = ""
        """Why the far end can be read no further, if that is not close_notify."""
        self.received_alert: int | None = None
        """The fatal alert that the far end has sent."""
        self.received_close_notify = False
        self.has_ended = False
        """Whether nothing more is read."""
        self.is_shut = False
        """Whether nothing more can be sent: an end or an alert was, or is due."""
        self.on_ticket: Callable[[NewSessionTicket], None] | None = None
        """Is given each ticket of the server's."""
        self.answer_request: Callable[[bytes, bytes], bytes] | None = None
        """Is given a CertificateRequest that comes after the handshake, and the traffic secret of
        our records, and returns the messages of the answer. None: we have not offered
        post_handshake_auth."""
        self.on_request: Callable[[], None] | None = None
        """Called when the server asks for a certificate after the handshake."""
        self.on_renegotiation: Callable[[], None] | None = None
        """Called when the far end wants to renegotiate (TLS 1.2), and is declined."""
        self.renegotiable: Renegotiable | None = None
        """What lets the server renegotiate; None: it is declined."""
        self._renegotiation: Renegotiation | None = None

    # Receiving

    def ciphertext_bytes(self, room: int) -> int:
        """Of so much ciphertext the content is `room` bytes (MIN_ROOM at least) at most, if all
        records are whole."""
        return room + self._opens.overhead * -(-room // MAX_CONTENT)

    @property
    def keeps_record(self) -> bool:
        """Whether a whole record is kept, or a header that is refused."""
        kept = self.kept
        if len(kept) < _HEADER_BYTES:
            return False
        kind, version, length = _unpack_header(kept)
        return len(kept) >= _HEADER_BYTES + length or self._is_refused(kind, version, length)

    def open(self, data: memoryview, into: memoryview) -> int:
        """Write the content of the whole records in `data` to `into` (MIN_ROOM at least), and
        return its length.

        Stops where there is no room for more, after RECORDS_A_TURN records and messages, and at an
        end or an error, which `received_close_notify` and `failure` tell. The rest is `kept`.
        """
        at = filled = 0
        turn, size, room = RECORDS_A_TURN, len(data), len(into)
        opens = self._opens
        try:
            while turn > 0 and size - at >= _HEADER_BYTES:
                turn -= 1
                kind, version, length = _unpack_header(data, at)
                if (kind, version) != _HEADER_OF_DATA or length > self._max_fragment:
                    self._check_header(kind, version, length)
                end = at + _HEADER_BYTES + length
                most = end - at - opens.overhead
                if end > size or (filled and filled + most > room):
                    break
                target = into if not filled else into[filled:]
                if filled + length > room:
                    target = _SPARE
                record = data if end - at == size else data[at:end]
                kind, count = opens.open_into(record, target)
                at = end
                if most > self._max_opened:
                    raise TlsError(Alert.RECORD_OVERFLOW, f"a TLS record of {length} bytes")
                if kind != _DATA or not count:
                    turn -= self._take(kind, bytes(target[:count]))
                    if self.has_ended:
                        break
                    opens = self._opens
                    continue
                if self._since_data:
                    self._end_since_data(self._since_data)
                if target is _SPARE:
                    into[filled : filled + count] = _SPARE[:count]
                filled += count
        except NotAuthentic as error:
            self._fail(TlsError(Alert.BAD_RECORD_MAC, error.message))
        except TlsError as error:
            self._fail(error)
        is_over = self.has_ended or at == size
        self.kept = _NOTHING if is_over else memoryview(bytes(data[at:]))
        return filled

    def _is_refused(self, kind: int, version: int, length: int) -> bool:
        return (
            version != _TLS_1_2
            or length > self._max_fragment
            or (kind != _DATA and not (self._is_tls12 and is_type(kind)))
        )

    def _check_header(self, kind: int, version: int, length: int) -> None:
        if self._is_refused(kind, version, length):
            refuse_header(kind, version, length, self._max_fragment)

    def _end_since_data(self, since: _SinceData) -> None:
        if not since.messages.is_between:
            raise TlsError(Alert.UNEXPECTED_MESSAGE, "data in the middle of a handshake message")
        if self._renegotiation and self._renegotiation.opens:
            raise TlsError(Alert.UNEXPECTED_MESSAGE, "data between new keys and Finished")
        self._since_data = None

    def _take(self, kind: int, content: bytes) -> int:
        """A record of another type, or without content. Returns the number of messages in it."""
        since = self._since_data = self._since_data or _SinceData()
        if not content:
            self._take_empty(kind, since)
            return 0
        since.empty = 0
        if kind == RecordType.ALERT:
            self._take_alert(content, since)
            return 0
        since.warnings = count = 0
        if (kind, content) == CHANGE and self._renegotiation and since.messages.is_between:
            self._renegotiate((CHANGE_CIPHER_SPEC, b""), self._renegotiation)
            return 0
        if kind != RecordType.HANDSHAKE:
            raise TlsError(Alert.UNEXPECTED_MESSAGE, f"an unexpected TLS record of type {kind}")
        since.messages.feed(content)
        while message := since.messages.next():
            self._take_message(*message, since)
            count += 1
        return count

    def _take_empty(self, kind: int, since: _SinceData) -> None:
        """RFC 8446 §5.4: only data may be empty. RFC 5246 has no rule for handshake messages."""
        if kind == RecordType.ALERT and self._is_tls12:
            raise TlsError(Alert.DECODE_ERROR, "an empty alert")
        if kind != RecordType.APPLICATION_DATA and not self._is_tls12:
            raise TlsError(Alert.UNEXPECTED_MESSAGE, "an empty TLS record")
        since.empty = _count(since.empty, MAX_EMPTY_RECORDS, "empty TLS records")

    def _take_alert(self, content: bytes, since: _SinceData) -> None:
        if len(content) != 2:
            raise TlsError(Alert.DECODE_ERROR, f"an alert of {len(content)} bytes")
        level, alert = content
        if level not in (_WARNING, _FATAL):
            raise TlsError(Alert.ILLEGAL_PARAMETER, f"an alert of level {level}")
        if not self._is_tls12:
            # RFC 8446 §6: all others "MUST be treated as error alerts when received regardless of
            # the AlertLevel".
            level = _WARNING if alert in (Alert.CLOSE_NOTIFY, Alert.USER_CANCELED) else _FATAL
        if level == _FATAL:
            self.received_alert = alert
            self.failure = f"the alert {alert_name(alert)}"
            self.has_ended = True
            self._shut()
        elif alert == Alert.CLOSE_NOTIFY:
            self.received_close_notify = self.has_ended = True
        else:
            since.warnings = _count(since.warnings, _MAX_WARNINGS, "warnings")

    def _take_message(self, kind: int, message: bytes, since: _SinceData) -> None:
        if self._is_tls12:
            self._take_message_1_2(kind, message, since)
            return
        body = message[4:]
        match kind:
            case HandshakeType.KEY_UPDATE:
                since.key_updates = _count(since.key_updates, _MAX_KEY_UPDATES, "key updates")
                self._take_key_update(KeyUpdate.parse(body), since)
            case HandshakeType.NEW_SESSION_TICKET if self._is_client:
                since.others = _count(since.others, _MAX_MESSAGES, "tickets")
                ticket = NewSessionTicket.parse(body)
                if self.on_ticket:
                    self.on_ticket(ticket)
            case HandshakeType.CERTIFICATE_REQUEST if self.answer_request:
                since.others = _count(since.others, _MAX_MESSAGES, "requests for a certificate")
                self.queue(self.answer_request(message, self._next_secret()))
                if self.on_request:
                    self.on_request()
            case _:
                _refuse_message(kind)

    def _next_secret(self) -> bytes:
        """Of the records that come behind those that are due."""
        assert isinstance(self._seals, Protection13)
        seals = self._seals.updated() if _KEY_UPDATE in self.due else self._seals
        return seals.secret

    def _take_key_update(self, update: KeyUpdate, since: _SinceData) -> None:
        if not since.messages.is_between:
            # RFC 8446 §5.1: messages "MUST NOT span key changes".
            raise TlsError(Alert.UNEXPECTED_MESSAGE, "a handshake message across a KeyUpdate")
        assert isinstance(self._opens, Protection13)
        self._opens = self._opens.updated()
        if update.request:
            self._owe(_KEY_UPDATE)

    def _take_message_1_2(self, kind: int, message: bytes, since: _SinceData) -> None:
        """A wish to renegotiate is the server's. If there is nothing to do it with, it is declined,
        as OpenSSL does with OP_NO_RENEGOTIATION."""
        if self._renegotiation and kind != HandshakeType.HELLO_REQUEST:
            self._renegotiate((kind, message), self._renegotiation)
            return
        wish = HandshakeType.HELLO_REQUEST if self._is_client else HandshakeType.CLIENT_HELLO
        if kind != wish:
            _refuse_message(kind)
        if self._is_client and len(message) > 4:
            raise TlsError(Alert.DECODE_ERROR, "a HelloRequest with content")
        since.others = _count(since.others, _MAX_MESSAGES, "renegotiations")
        if self._renegotiation:
            return
        if self.renegotiable and (begun := self.renegotiable.begin()):
            self._renegotiation = begun
            self._owe_all(begun.taken_records())
            return
        self._owe(_NO_RENEGOTIATION)
        if self.on_renegotiation:
            self.on_renegotiation()

    def _renegotiate(self, message: Message, renegotiation: Renegotiation) -> None:
        had_changed, had_asked = renegotiation.opens, renegotiation.asks_certificate
        renegotiation.take(message)
        if renegotiation.opens and not had_changed:
            self._opens = renegotiation.opens
        if renegotiation.asks_certificate and not had_asked and self.on_request:
            self.on_request()
        self._owe_all(renegotiation.taken_records())
        if renegotiation.is_done:
            self._max_content = renegotiation.records_out.max_content
            self._max_opened = renegotiation.records_in.max_content
            self._renegotiation = None

    def abandon_renegotiation(self) -> None:
        """Nothing more can be read."""
        self._renegotiation = None

    def _fail(self, error: TlsError) -> None:
        self.failure = error.message
        self.has_ended = True
        self.alert(error.alert)

    # Sending

    @property
    def is_renegotiating(self) -> bool:
        """Whether data has to wait: most servers take none in the middle of a handshake."""
        return self._renegotiation is not None and not (self.has_ended or self.is_shut)

    def queue(self, message: bytes) -> None:
        """Send a handshake message, in front of the data that is sent next. One too many is
        dropped: the far end reads nothing."""
        if len(self.due) < _MAX_DUE:
            self._owe((RecordType.HANDSHAKE, message))

    def close(self) -> None:
        """Send close_notify, if data could be sent."""
        self._owe(_CLOSE_NOTIFY)
        self.is_shut = True

    def alert(self, alert: int) -> None:
        """Send an alert, if data could be sent; user_canceled is a warning, all others are
        fatal."""
        level = _WARNING if alert == Alert.USER_CANCELED else _FATAL
        self._owe((RecordType.ALERT, bytes([level, alert])))
        self.is_shut = self.is_shut or level == _FATAL

    def _owe(self, record: tuple[RecordType, bytes]) -> None:
        """One answer is enough for several that ask (RFC 8446 §4.6.3)."""
        if not self.is_shut and record not in self.due:
            self.due.append(record)

    def _owe_all(self, records: list[tuple[RecordType, bytes]]) -> None:
        for record in records:
            self._owe(record)

    def _shut(self) -> None:
        self.due.clear()
        self.is_shut = True

    def seal_due(self) -> bytes:
        """The records that are due, which are to be sent now, before all others."""
        if not self.due:
            return b""
        sealed = bytearray()
        for record in self.due:
            kind, content = record
            for at in range(0, len(content), self._max_content):
                sealed += self._seals.seal(kind, content[at : at + self._max_content])
            if record is _KEY_UPDATE:
                assert isinstance(self._seals, Protection13)
                self._seals = self._seals.updated()
            elif record is CHANGE and self._renegotiation:
                self._seals = self._renegotiation.seals
        self.due.clear()
        return bytes(sealed)

    def seal(self, data: memoryview, into: memoryview) -> tuple[int, int]:
        """Write records of data to `into`, which has room for one at least, and return how many
        bytes of data are in them, and the length of the records.

        What is due goes first: call this only if nothing is. Fewer are taken than there are if
        there is no room for more, and after RECORDS_A_TURN records; and none where a KeyUpdate is
        due before them.
        """
        seals, size = self._seals, self._max_content
        if seals.sequence >= _SEALED_WITH_ONE_KEY and not self._is_tls12:
            self._owe(_KEY_UPDATE)
            return 0, 0
        taken = written = 0
        room, left = len(into) - seals.overhead, len(data)
        if 0 < left <= size and left <= room:
            return left, seals.seal_into(_DATA, data, into)
        for _ in range(RECORDS_A_TURN):
            count = min(size, left)
            if not count or written + count > room:
                break
            content = data[taken : taken + count]
            written += seals.seal_into(_DATA, content, into[written:])
            taken += count
            left -= count
        return taken, written


def _count(count: int, limit: int, what: str) -> int:
    """One more. Raises TlsError if there are more than `limit` of them."""
    if count == limit:
        raise TlsError(Alert.UNEXPECTED_MESSAGE, f"too many {what}")
    return count + 1


def _refuse_message(kind: int) -> NoReturn:
    raise TlsError(Alert.UNEXPECTED_MESSAGE, f"an unexpected handshake message of type {kind}")
