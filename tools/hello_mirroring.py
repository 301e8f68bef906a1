"""How much of a client's ClientHello reaches the server: fingerprints, order, lengths and bodies.

    python tools/hello_mirroring.py DIRECTORY|FILE...

Every distinct ClientHello in the captures that offers TLS 1.3 is relayed, and what the server gets
is compared with what the client wrote. A FILE that is no capture has the records of one hello, as
a client sent them. The table has how many hellos kept their JA3, their JA4, the order of their
extensions, and every byte but those of the fields that are replaced. A hello that is not relayed is
listed with the reason.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from mitml4.capture.fast_path import fast_path
from mitml4.capture.files.reader import read_packets
from mitml4.capture.flow import ALL, CloseReason, Flow
from mitml4.capture.network.dissector import Dissector
from mitml4.capture.reassembly import Reassembler
from mitml4.crypto import groups
from mitml4.errors import CaptureError, ProtocolError
from mitml4.protocols.conversation import MAX_PEEK, Direction
from mitml4.protocols.tls.fingerprints import ja3, ja4
from mitml4.protocols.tls.hello import ClientHello, parse_client_hello
from mitml4.tls.bridge.errors import CannotBridge
from mitml4.tls.bridge.hello import Replacements, relay_hello

TLS_1_3: Final = 0x0304
CAPTURES: Final = (".pcap", ".pcapng", ".cap", ".trace", ".gz", ".zst")
NOTES: Final = (".md", ".jsonl")
MAX_STREAM: Final = 1 << 20
"""How much of a client's stream is searched."""

SESSION_TICKET: Final = 35
PRE_SHARED_KEY: Final = 41
KEY_SHARE: Final = 51
ENCRYPTED_CLIENT_HELLO: Final = 0xFE0D

Relay: TypeAlias = Callable[[bytes], bytes]
"""From a client's records to those that the server gets. Raises NotRelayed."""


class NotRelayed(Exception):  # noqa: N818, it is a result
    """The hello goes another way; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What of a hello is the same at the server."""

    ja3: bool
    ja4: bool
    order: bool
    """The extensions, in their order."""
    bodies: bool
    """Every byte, but for the fields that are replaced."""
    records: bool
    """Sizes and versions of the records."""


def compare(received: bytes, sent: bytes) -> Comparison:
    """Of the records that a client has sent, and of those that the server gets."""
    ours, theirs = parsed(received), parsed(sent)
    return Comparison(
        ja3=ja3(ours) == ja3(theirs),
        ja4=ja4(ours) == ja4(theirs),
        order=ours.extensions == theirs.extensions,
        bodies=masked(message_of(received)) == masked(message_of(sent)),
        records=layout_of(received) == layout_of(sent),
    )


def parsed(stream: bytes) -> ClientHello:
    hello = parse_client_hello(stream)
    assert hello
    return hello


# A hello's bytes, read here once more: this must not depend on the code that is measured.


def layout_of(stream: bytes) -> list[bytes]:
    """The headers of the records."""
    headers, at = [], 0
    while at < len(stream):
        headers.append(stream[at : at + 5])
        at += 5 + int.from_bytes(stream[at + 3 : at + 5], "big")
    return headers


def message_of(stream: bytes) -> bytes:
    """The handshake message that records contain."""
    message, at = b"", 0
    while at < len(stream):
        end = at + 5 + int.from_bytes(stream[at + 3 : at + 5], "big")
        message += stream[at + 5 : end]
        at = end
    return message


def masked(message: bytes) -> bytes:
    """The message with zeros in every field that may be replaced."""
    plain = bytearray(message)
    for start, end in replaceable(message):
        plain[start:end] = bytes(end - start)
    return bytes(plain)


def replaceable(message: bytes) -> Iterator[tuple[int, int]]:
    """Where the fields are that differ for each connection, and may be replaced."""

    def number(at: int, width: int = 2) -> int:
        return int.from_bytes(message[at : at + width], "big")

    yield 6, 38  # random
    yield 39, 39 + message[38]  # legacy_session_id
    at = 39 + message[38]
    at += 2 + number(at)
    at += 1 + message[at] + 2
    while at < len(message):
        kind, start, end = number(at), at + 4, at + 4 + number(at + 2)
        at = end
        if kind == SESSION_TICKET:
            yield start, end
        elif kind == KEY_SHARE:
            slot = start + 2
            while slot < end:
                share = slot + 4, slot + 4 + number(slot + 2)
                if number(slot) in groups.SUPPORTED:
                    yield share
                slot = share[1]
        elif kind == ENCRYPTED_CLIENT_HELLO and message[start] == 0:
            enc = start + 8
            payload = enc + number(enc - 2) + 2
            yield enc, payload - 2
            yield payload, end
        elif kind == PRE_SHARED_KEY:
            identity, identities = start + 2, start + 2 + number(start)
            while identity < identities:
                yield identity + 2, identity + 2 + number(identity)
                identity += 2 + number(identity) + 4
            binder = identities + 2
            while binder < end:
                yield binder + 1, binder + 1 + message[binder]
                binder += 1 + message[binder]


# Where hellos come from


class _ClientStream:
    """Keeps the beginning of what a flow's client says."""

    def __init__(self, found: list[bytes]) -> None:
        self.kept_bytes = 0
        self._found = found
        self._stream = bytearray()

    def data(self, direction: Direction, data: bytes, time_s: float) -> None:
        if direction is Direction.UP:
            self._stream += data[: MAX_STREAM - len(self._stream)]

    def passed(self, direction: Direction, count: int, time_s: float) -> None:
        pass

    def lost(self, direction: Direction, count: int, time_s: float) -> None:
        if direction is Direction.UP:
            self._stream += bytes(1)  # no hello goes on across a hole

    def end(self, direction: Direction, time_s: float) -> None:
        pass

    def over(self) -> None:
        pass

    def close(self, flow: Flow, reason: CloseReason) -> None:
        self._found.extend(hellos_in(bytes(self._stream)))

    def unseen(self, direction: Direction) -> int:
        return ALL if direction is Direction.DOWN or len(self._stream) >= MAX_STREAM else 0

    def give_up(self, time_s: float) -> None:
        pass


def hellos_in(stream: bytes) -> Iterator[bytes]:
    """The records of every ClientHello, also after a CONNECT or STARTTLS."""
    at = stream.find(b"\x16\x03")
    while at >= 0:
        hello = None
        with suppress(ProtocolError):
            hello = parse_client_hello(stream[at : at + MAX_PEEK])
        if hello:
            yield stream[at : at + hello.wire_length]
            at += hello.wire_length
        else:
            at += 1
        at = stream.find(b"\x16\x03", at)


def hellos_of(path: Path) -> list[bytes]:
    """Of a capture, or of a file with one hello."""
    found: list[bytes] = []
    if not path.name.endswith(CAPTURES):
        return list(hellos_in(path.read_bytes()))
    reassembler = Reassembler(lambda _: _ClientStream(found))
    with path.open("rb") as stream, suppress(CaptureError):
        packets = read_packets(stream, path.name)
        for time_s, segment in fast_path(packets, reassembler.halves, Dissector(tunnels=True)):
            reassembler.take(time_s, segment)
    reassembler.close()
    return found


def distinct(paths: Iterable[Path]) -> list[bytes]:
    """The hellos that offer TLS 1.3: resumptions and second hellos too, each once."""
    found: dict[bytes, None] = {}
    for path in paths:
        for hello in hellos_of(path):
            if TLS_1_3 in parsed(hello).supported_versions:
                found.setdefault(hello)
    return list(found)


# The ways to the server


def relay_in_process(stream: bytes) -> bytes:
    """What the bridge would send."""
    try:
        return relay_hello(stream, Replacements()).records()
    except (CannotBridge, ProtocolError) as error:
        raise NotRelayed(str(error)) from error


@dataclass(frozen=True, slots=True)
class Score:
    """All hellos, and what became of them."""

    compared: list[Comparison]
    excluded: Counter[str]

    @classmethod
    def of(cls, hellos: Iterable[bytes], relay: Relay) -> Score:
        score = cls([], Counter())
        for hello in hellos:
            try:
                score.compared.append(compare(hello, relay(hello)))
            except NotRelayed as error:
                score.excluded[str(error)] += 1
        return score

    def lines(self) -> Iterator[str]:
        total = len(self.compared) + self.excluded.total()
        yield f"{'ClientHellos that offer TLS 1.3':<40}{total:>6}"
        yield f"{'relayed':<40}{len(self.compared):>6}{share(len(self.compared), total)}"
        for title, kept in (
            ("the same JA3", [each.ja3 for each in self.compared]),
            ("the same JA4", [each.ja4 for each in self.compared]),
            ("the same extensions in the same order", [each.order for each in self.compared]),
            ("the same bytes but for replaced fields", [each.bodies for each in self.compared]),
            ("the same records", [each.records for each in self.compared]),
        ):
            yield f"  {title:<38}{sum(kept):>6}{share(sum(kept), len(kept))}"
        yield f"{'not relayed':<40}{self.excluded.total():>6}"
        for reason, count in self.excluded.most_common():
            yield f"  {reason:<38}{count:>6}"

    @property
    def is_exact(self) -> bool:
        """Whether all that were relayed are the same."""
        wanted = Comparison(ja3=True, ja4=True, order=True, bodies=True, records=True)
        return all(each == wanted for each in self.compared)


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:>8.1f} %" if whole else ""


def files_in(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        yield from (each for each in files if each.suffix not in NOTES)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    score = Score.of(distinct(files_in(parser.parse_args().paths)), relay_in_process)
    print("\n".join(score.lines()))
    return 0 if score.is_exact else 1


if __name__ == "__main__":
    sys.exit(main())
