"""The protocol of the Android debugger, up to the TLS of a paired device (AOSP's adb,
protocol.txt).

    device    command(4) two arguments(8) length(4) checksum(4) command^FFFFFFFF, data
    server    "000chost:version": a length of four hexadecimal digits, and a request

A host sends CNXN to a device. A paired device answers STLS. Once the host has sent STLS too, TLS
begins, and the device identifies itself inside. Any other device asks for a signature (AUTH), or
identifies itself at once. In that TLS both ends prove their identity with keys that they exchanged
before, so it can only be passed through.
"""

from __future__ import annotations

from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import PAUSE, Details, Direction, Protocol
from mitml4.protocols.parts.evidence import single_message
from mitml4.protocols.parts.fields import Reader
from mitml4.protocols.parts.units import Units

__all__ = ["PROTOCOL", "Adb", "AdbDetails"]

CONNECT: Final = b"CNXN"
START_TLS: Final = b"STLS"
BEGINNINGS: Final = (CONNECT, START_TLS, b"AUTH", b"SYNC")
"""The commands that a capture may begin with; a connection begins with CNXN."""
STREAMS: Final = (b"OPEN", b"OKAY", b"WRTE", b"CLSE")
"""The commands of streams: TLS begins before these, or never."""
MAX_DATA: Final = 1 << 20
MAX_BANNER: Final = 4096
HEX: Final = b"0123456789abcdefABCDEF"


def read_head(reader: Reader, *commands: bytes) -> tuple[bytes, int]:
    """The head of a message: its command, and the length of its data."""
    command = reader.one_of(*commands)
    reader.take(8)
    length = reader.uint(4, 0, MAX_DATA, little=True)
    reader.take(4)
    reader.one_of(bytes(byte ^ 0xFF for byte in command))
    return command, length


def read_request(reader: Reader) -> None:
    """What a client asks of the adb server on its own machine."""
    reader.take(4, HEX)
    reader.one_of(b"host:", b"host-")


def read_adb(reader: Reader) -> None:
    """A message of a device, or a request to a server."""
    if reader.data[:1] == b"0":
        read_request(reader)
    else:
        read_head(reader, CONNECT, START_TLS, b"AUTH")


def read_message(reader: Reader) -> None:
    """A device's first message, which inside TLS comes before the host's."""
    read_head(reader, CONNECT, START_TLS, b"AUTH")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdbDetails(Details):
    """The device's banner (`device::ro.product.name=…`), and whether it switched to TLS."""

    device: bytes | None = None
    upgraded: bool = False


@dataclass(slots=True)
class Adb(Units):
    """Reads messages until both sides have started TLS, or the first stream is opened."""

    name: ClassVar[str] = "adb"

    device: bytes | None = None
    upgraded: bool = False

    def client_unit(self, reader: Reader) -> None:
        if reader.data[:1] == b"0":
            reader.take(reader.left)
            self.stay_plain()
        else:
            self._message(reader, Direction.UP)

    def server_unit(self, reader: Reader) -> None:
        self._message(reader, Direction.DOWN)

    def _message(self, reader: Reader, direction: Direction) -> None:
        command, length = read_head(reader, *BEGINNINGS, *STREAMS)
        if command in STREAMS:
            self.stay_plain()
        elif command == START_TLS:
            self._start_tls(direction)
        elif command == CONNECT and direction is Direction.DOWN:
            banner = reader.take(min(length, MAX_BANNER))
            self.device = banner.rstrip(b"\0")
            self.details_ready = True
            self.skip_body(reader, direction, length - len(banner))
        else:
            self.skip_body(reader, direction, length)

    def _start_tls(self, direction: Direction) -> None:
        """Switch to TLS once both sides have sent STLS, in either order."""
        if self.directive(direction.other) is PAUSE:
            self.upgraded = True
            self.passthrough_reason = "client certificate"
            self.go_inside()
        else:
            self.set_directive(direction, PAUSE)

    def details(self) -> AdbDetails:
        return AdbDetails(device=self.device, upgraded=self.upgraded)


PROTOCOL: Final = Protocol(
    name=Adb.name,
    detect=single_message(read_adb, read_message),
    converse=lambda context: Adb(context=context),
    client_first=b"CSA0",
    server_first=b"CSA",
)
