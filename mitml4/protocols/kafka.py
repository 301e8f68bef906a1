"""Kafka's first request (Kafka protocol guide, "Request and Response Headers").

    client                                                        server
    length  api key  api version  correlation id  client id …  ─►
                                                               ◄─ length  correlation id …

A request is recognised by its header. A usual first request with a client's name is certain; any
other needs the answer, which repeats the correlation id. Where only answers were captured, the
first is recognised by its contents: the sorted list of what the server supports.
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
from mitml4.protocols.parts.evidence import either, single_message
from mitml4.protocols.parts.fields import PRINTABLE, Reader, evaluate
from mitml4.protocols.parts.units import Units

__all__ = ["PROTOCOL", "Kafka", "KafkaDetails"]

SMALLEST: Final = 10
LARGEST: Final = 0x10FFFF
"""Bytes of a first request: less than the length and id of a DNS message, read as one number."""
MAX_VERSION: Final = 20
MAX_CLIENT_ID: Final = 255
NO_CLIENT_ID: Final = 0xFFFF
LONG_ENOUGH: Final = 3
"""Characters of a client id that are hardly there by chance."""
CORRELATION_HIGHS: Final = tuple(bytes([byte]) for byte in (*range(0x20), 0x7F))
"""Ids count from 0; Java's SASL uses the last ones before 2³¹. No name in a PostgreSQL start-up
begins with these."""

# "API Keys"
API_VERSIONS: Final = 18
APIS: Final = {
    0: "Produce",
    1: "Fetch",
    2: "ListOffsets",
    3: "Metadata",
    8: "OffsetCommit",
    9: "OffsetFetch",
    10: "FindCoordinator",
    11: "JoinGroup",
    12: "Heartbeat",
    13: "LeaveGroup",
    14: "SyncGroup",
    15: "DescribeGroups",
    16: "ListGroups",
    17: "SaslHandshake",
    API_VERSIONS: "ApiVersions",
    19: "CreateTopics",
    20: "DeleteTopics",
    22: "InitProducerId",
    36: "SaslAuthenticate",
    60: "DescribeCluster",
    71: "GetTelemetrySubscriptions",
}
MAX_API: Final = 92
FIRST: Final = (3, 17, API_VERSIONS)
"""Requests that a client begins with, some of them before it has a name."""
FLEXIBLE: Final = 3
"""From this version on, ApiVersions names the client's software (KIP-511)."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request's header, and the reader of what follows it."""

    api: int
    version: int
    correlation: bytes
    client_id: bytes | None
    body: Reader


def read_request(reader: Reader) -> Request:
    """A request up to the end of the client id in its header."""
    body = reader.part(reader.uint(4, SMALLEST, LARGEST))
    api = body.uint(2, 0, MAX_API)
    version = body.uint(2, 0, MAX_VERSION)
    correlation = body.one_of(*CORRELATION_HIGHS) + body.take(3)
    length = body.uint(2)
    client_id = None
    if length != NO_CLIENT_ID:
        if length > MAX_CLIENT_ID:
            raise ProtocolError("a client id that is too long")
        client_id = body.take(length, PRINTABLE)
    if not client_id and api not in FIRST:
        raise ProtocolError("a request without a client id")
    return Request(api, version, correlation, client_id, body)


def read_answer(reader: Reader, correlation: bytes) -> None:
    """A response up to its correlation id."""
    reader.uint(4, 4, 0x7FFFFFFF)
    reader.one_of(correlation)


def read_versions(reader: Reader) -> None:
    """A response to ApiVersions up to its third range; the first two are those of 0 and 1."""
    body = reader.part(reader.uint(4, SMALLEST + 3 * 6, LARGEST))
    body.one_of(*CORRELATION_HIGHS)
    body.take(3)
    body.one_of(b"\0\0")
    body.uint(4, 3, 2 * MAX_API)
    for key in range(2):
        body.uint(2, key, key)
        body.uint(2, 0, MAX_VERSION)
        body.uint(2, 0, MAX_VERSION)
    body.uint(2, 2, 2)


_certain = single_message(either(read_request, read_versions), read_versions)


def detect(opening: Opening) -> Verdict:
    """A usual first request with a client id; or any request with its answer."""
    verdict = _certain(opening)
    if verdict is not Verdict.MATCH or evaluate(read_request, opening.up) is not Verdict.MATCH:
        return verdict
    request = read_request(Reader(opening.up))
    if request.api in FIRST and len(request.client_id or b"") >= LONG_ENOUGH:
        return Verdict.MATCH
    answer = evaluate(lambda reader: read_answer(reader, request.correlation), opening.down)
    if answer is not Verdict.NEED_MORE:
        return answer
    return Verdict.REJECT if opening.down_ended else Verdict.LIKELY


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaDetails(Details):
    """The first request, and the client's id and software."""

    api: str | None = None
    api_version: int | None = None
    client_id: bytes | None = None
    client_software: bytes | None = None
    """Name and version, with a space between; only in later versions of ApiVersions."""


@dataclass(slots=True)
class Kafka(Units):
    """Reads the header of the first request; the rest passes."""

    name: ClassVar[str] = "kafka"

    down: Directive = FORWARD_ALL
    request: Request | None = None
    client_software: bytes | None = None

    def client_unit(self, reader: Reader) -> None:
        if evaluate(read_request, reader.data) is Verdict.REJECT:
            read_versions(reader)  # the request was not captured
            self.stay_plain()
            return
        request = read_request(reader)
        if request.api == API_VERSIONS and request.version >= FLEXIBLE:
            self.client_software = _software(request.body)
        self.request = request
        self.stay_plain()

    def details(self) -> KafkaDetails:
        request = self.request
        if request is None:
            return KafkaDetails()
        return KafkaDetails(
            api=APIS.get(request.api, f"api {request.api}"),
            api_version=request.version,
            client_id=request.client_id,
            client_software=self.client_software,
        )


def _software(body: Reader) -> bytes:
    """`no tags, name, version`; each string has its length plus one before it."""
    body.one_of(b"\x00")
    return b" ".join(body.take(body.uint(1, 1, 0x7F) - 1, PRINTABLE) for _ in ("name", "version"))


PROTOCOL: Final = Protocol(
    name=Kafka.name,
    detect=detect,
    converse=lambda context: Kafka(context=context),
    client_first=b"\x00",
    server_first=b"\x00",
)
