"""The alerts of TLS, and the error that a peer of TLS answers with one."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from mitml4.enums import plain_members
from mitml4.errors import ProtocolError

__all__ = ["Alert", "TlsError", "alert_name", "is_alert"]


@plain_members
class Alert(IntEnum):
    """Every alert that was ever defined: RFC 8446 §6, RFC 6066 §9, RFC 7507, RFC 9849, and older
    versions of TLS; https://www.iana.org/assignments/tls-parameters lists them."""

    CLOSE_NOTIFY = 0
    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    DECRYPTION_FAILED = 21
    RECORD_OVERFLOW = 22
    DECOMPRESSION_FAILURE = 30
    HANDSHAKE_FAILURE = 40
    NO_CERTIFICATE = 41
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    CERTIFICATE_REVOKED = 44
    CERTIFICATE_EXPIRED = 45
    CERTIFICATE_UNKNOWN = 46
    ILLEGAL_PARAMETER = 47
    UNKNOWN_CA = 48
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    EXPORT_RESTRICTION = 60
    PROTOCOL_VERSION = 70
    INSUFFICIENT_SECURITY = 71
    INTERNAL_ERROR = 80
    INAPPROPRIATE_FALLBACK = 86
    USER_CANCELED = 90
    NO_RENEGOTIATION = 100
    MISSING_EXTENSION = 109
    UNSUPPORTED_EXTENSION = 110
    CERTIFICATE_UNOBTAINABLE = 111
    UNRECOGNIZED_NAME = 112
    BAD_CERTIFICATE_STATUS_RESPONSE = 113
    BAD_CERTIFICATE_HASH_VALUE = 114
    UNKNOWN_PSK_IDENTITY = 115
    CERTIFICATE_REQUIRED = 116
    NO_APPLICATION_PROTOCOL = 120
    ECH_REQUIRED = 121


class TlsError(ProtocolError):
    """What a peer has sent ends the connection; `alert` is what it is told."""

    def __init__(self, alert: Alert, message: str) -> None:
        super().__init__(message)
        self.alert = alert


def is_alert(description: int) -> bool:
    """Whether an alert of this number was ever defined."""
    return description in _NAMES


def alert_name(description: int) -> str:
    """`handshake_failure`, as RFC 8446 §6 writes it."""
    return _NAMES.get(description, f"0x{description:02x}")


_NAMES: Final = {alert.value: alert.name.lower() for alert in Alert}
