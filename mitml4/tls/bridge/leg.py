"""What both legs of a bridged handshake have in common: records, messages, alerts, the transcript,
and the key log.

A leg is fed with bytes, and has bytes to send. It raises TlsError where the other end violates the
protocol: then `fail` makes the alert that RFC 8446 names. It raises CannotBridge where the other
end does something that is allowed, and that the bridge does not do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from mitml4.crypto import signatures
from mitml4.crypto.records import Protection
from mitml4.crypto.schedule import Schedule, Secrets
from mitml4.crypto.signatures import CannotVerify, PublicKey
from mitml4.dataclass import dataclass
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.records import RecordType
from mitml4.tls.bridge.errors import CannotBridge
from mitml4.tls.bridge.records import MAX_CONTENT, Messages, RecordsIn, RecordsOut
from mitml4.tls.bridge.transcript import Transcript

__all__ = ["CHANGE_CIPHER_SPEC", "KeyLog", "Leg", "Message", "PeerAlert"]

KeyLog: TypeAlias = Callable[[bytes], None]
"""Takes a line of a key log (SSLKEYLOGFILE), without its end."""

Message: TypeAlias = tuple[int, bytes]
"""A handshake message: its type, and all of it with its header."""

CHANGE_CIPHER_SPEC: Final = -1
"""Stands for the type of a ChangeCipherSpec, which is no handshake message; in TLS 1.2 it has its
place among them."""

_WARNING: Final = 1
_FATAL: Final = 2
_MAX_WARNINGS: Final = 4
_CHANGES: Final = b"\x01"


@dataclass(frozen=True, slots=True)
class PeerAlert:
    """The other end has ended the handshake with this alert."""

    alert: int


class Leg:
    """One end of a TLS connection, during its handshake."""

    def __init__(self, random: bytes, keylog: KeyLog | None) -> None:
        """`random`: of the ClientHello on this leg, by which its secrets are found."""
        self.records_in = RecordsIn()
        self.records_out = RecordsOut()
        self.transcript = Transcript()
        self._messages = Messages()
        self._random = random
        self._keylog = keylog
        self._pending = bytearray()
        self._warnings = 0

    def receive(self, data: bytes | memoryview) -> None:
        """Bytes from the other end."""
        self.records_in.feed(data)

    def to_send(self) -> bytes:
        """What is to be sent now, once."""
        data = bytes(self._pending)
        self._pending.clear()
        return data

    def fail(self, alert: int) -> bytes:
        """A fatal alert, protected as far as this leg has come."""
        return self.records_out.seal(RecordType.ALERT, bytes([_FATAL, alert]))

    def send(self, message: bytes) -> None:
        """Send a handshake message, and add it to the transcript."""
        self.transcript.add(message)
        self._pending += self.records_out.seal(RecordType.HANDSHAKE, message)

    def send_change_cipher_spec(self) -> None:
        """RFC 5246 §7.1. In TLS 1.3 it has no meaning, but middleboxes expect it (RFC 8446
        §D.4)."""
        self._pending += bytes([RecordType.CHANGE_CIPHER_SPEC, 3, 3, 0, 1]) + _CHANGES

    def next_message(self) -> Message | PeerAlert | None:
        """The next handshake message: its type, and all of it; None if there is none yet."""
        while True:
            if message := self._messages.next():
                return message
            dropped = self.records_in.dropped
            record = self.records_in.next()
            if self.records_in.dropped != dropped and not self._messages.is_between:
                raise TlsError(Alert.UNEXPECTED_MESSAGE, "a ChangeCipherSpec inside a message")
            if record is None:
                return None
            kind, content = record
            if kind is RecordType.HANDSHAKE:
                if message := self._messages.next_with(content):
                    return message
            elif not self._messages.is_between:
                raise TlsError(Alert.UNEXPECTED_MESSAGE, "a record interrupts a handshake message")
            elif kind is RecordType.ALERT:
                if alert := self._read_alert(content):
                    return alert
            elif kind is RecordType.CHANGE_CIPHER_SPEC and content == _CHANGES:
                return CHANGE_CIPHER_SPEC, b""
            else:
                raise TlsError(Alert.UNEXPECTED_MESSAGE, "another record than the handshake's")

    def _read_alert(self, content: bytes) -> PeerAlert | None:
        """RFC 8446 §6: all others than close_notify and user_canceled "MUST be treated as error
        alerts when received regardless of the AlertLevel". Up to TLS 1.2, and as long as the
        version is not known, the level counts."""
        if len(content) != 2:
            raise TlsError(Alert.DECODE_ERROR, "an alert of another length than two bytes")
        level, alert = content
        if level not in (_WARNING, _FATAL):
            raise TlsError(Alert.ILLEGAL_PARAMETER, "an alert of an unknown level")
        is_1_3 = self.records_in.protection is not None and not self.records_in.is_tls12
        may_be_warning = alert == Alert.USER_CANCELED if is_1_3 else alert != Alert.CLOSE_NOTIFY
        if level == _WARNING and may_be_warning:
            self._warnings += 1
            if self._warnings > _MAX_WARNINGS:
                raise TlsError(Alert.UNEXPECTED_MESSAGE, "too many warnings")
            return None
        return PeerAlert(alert)

    def expect(self, message: Message, *types: int) -> tuple[int, bytes]:
        """The type and the body of a message. Raises TlsError if it is none of these."""
        kind, raw = message
        if kind not in types:
            raise TlsError(Alert.UNEXPECTED_MESSAGE, f"a handshake message of type {kind}")
        return kind, raw[4:]

    def verify(
        self, scheme: int, key: PublicKey, signature: bytes, content: bytes, *, version: int
    ) -> None:
        """Raises TlsError for a signature that does not hold, CannotBridge for an unknown one."""
        try:
            signatures.verify(scheme, key, signature, content, version=version)
        except CannotVerify as error:
            raise CannotBridge(f"signature scheme {error}") from None

    def read_with(self, protection: Protection) -> None:
        """What comes next has this key. RFC 8446 §5.1: no message goes on across a change."""
        self.end_flight()
        self.records_in.protection = protection

    def end_flight(self) -> None:
        """Raises TlsError if the last record has more than the message that it has to end with."""
        if not self._messages.is_between:
            raise TlsError(Alert.UNEXPECTED_MESSAGE, "a record goes on behind the last message")

    def limit_records(self, *, sent: int, received: int) -> None:
        """The most bytes of content in a record, where the two ends have agreed on limits."""
        self.records_out.max_content = min(MAX_CONTENT, sent)
        self.records_in.max_content = min(MAX_CONTENT, received)

    def choose_tls12(self) -> None:
        """There, a ChangeCipherSpec has its place; before the version was chosen it had none."""
        if self.records_in.dropped:
            raise TlsError(Alert.UNEXPECTED_MESSAGE, "a ChangeCipherSpec before the ServerHello")
        self.records_in.is_tls12 = True

    def log_handshake(self, secrets: Secrets) -> None:
        if self._keylog:
            self.log("CLIENT_HANDSHAKE_TRAFFIC_SECRET", secrets.client)
            self.log("SERVER_HANDSHAKE_TRAFFIC_SECRET", secrets.server)

    def log_application(self, secrets: Secrets, schedule: Schedule, transcript: bytes) -> None:
        """`transcript`: up to the server's Finished."""
        if self._keylog:
            self.log("CLIENT_TRAFFIC_SECRET_0", secrets.client)
            self.log("SERVER_TRAFFIC_SECRET_0", secrets.server)
            self.log("EXPORTER_SECRET", schedule.exporter(transcript))

    def log(self, label: str, secret: bytes) -> None:
        if self._keylog:
            self._keylog(f"{label} {self._random.hex()} {secret.hex()}".encode())
