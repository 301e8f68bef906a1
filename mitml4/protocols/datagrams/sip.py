"""SIP over UDP (RFC 3261 §18): a message in each datagram, which may announce media."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Direction, Verdict
from mitml4.protocols.datagram import DatagramConversation, DatagramProtocol, Evidence
from mitml4.protocols.parts.fields import Reader
from mitml4.protocols.parts.heads import parse_head
from mitml4.protocols.parts.sdp import announced_media
from mitml4.protocols.sip import Sip, SipDetails, SipHeads, message

__all__ = ["PROTOCOL", "SipDatagrams"]

_SDP: Final = b"application/sdp"


def read_sip(reader: Reader) -> None:
    """A request or an answer, by its first line."""
    if message(reader.data) is not Verdict.MATCH:
        raise ProtocolError("no SIP")


@dataclass(slots=True)
class SipDatagrams(DatagramConversation):
    """The first heads of both sides, and the media of all messages."""

    name: ClassVar[str] = Sip.name

    heads: SipHeads = field(default_factory=SipHeads)

    def take(self, direction: Direction, datagram: bytes) -> None:
        head, _, body = datagram.lstrip(b"\r\n").partition(b"\r\n\r\n")
        line, headers = parse_head(head)
        if line:
            self.heads.add(direction, line, headers, self.context.shown)
            self.details_ready = True
        if headers.get(b"content-type", headers.get(b"c", b"")).lower().startswith(_SDP):
            self.announced += announced_media(body)

    def details(self) -> SipDetails:
        return self.heads.details()


PROTOCOL: Final = DatagramProtocol(
    name=SipDatagrams.name,
    request=read_sip,
    ports=frozenset({5060}),
    evidence=Evidence.MAGIC,
    converse=lambda context: SipDatagrams(context=context),
)
