"""A capture file, whatever its format: packets, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

from mitml4.capture.files.pcap import MAGICS, read_pcap
from mitml4.capture.files.pcapng import SECTION_HEADER, read_pcapng
from mitml4.capture.files.source import Source
from mitml4.capture.packet import Packet
from mitml4.errors import CaptureError

__all__ = ["packets_of", "read_packets"]


def read_packets(
    stream: BinaryIO,
    name: str,
    *,
    on_secrets: Callable[[bytes], object] = lambda _: None,
    on_comment: Callable[[float, str], object] = lambda _time_s, _comment: None,
    on_read: Callable[[], object] = lambda: None,
) -> Iterator[Packet]:
    """The packets of a pcap or pcapng capture, plain or compressed by gzip or zstd.

    Reads forwards only, in chunks of 128 KiB, and closes nothing. The TLS key log lines that a
    pcapng brings along are handed to `on_secrets` before the packets that stand behind them.
    A packet's time and comment go to `on_comment` before the packet.
    `on_read` is called each time before the stream is read, which may block.
    Raises CaptureError, which names the file and the offset, once everything before the fault has
    been yielded.
    """
    return packets_of(Source(stream, name, on_read), on_secrets, on_comment)


def packets_of(
    source: Source,
    on_secrets: Callable[[bytes], object],
    on_comment: Callable[[float, str], object],
) -> Iterator[Packet]:
    """The packets of a source that has just been opened, as `read_packets`."""
    if not source.data:
        source.finish("")
        raise CaptureError(f"{source.name} is empty", hint="is the capture still being written?")
    magic = source.data[:4]
    if magic in MAGICS:
        return read_pcap(source)
    if magic == SECTION_HEADER:
        return read_pcapng(source, on_secrets, on_comment)
    if source.data.lstrip().startswith(b"{"):
        raise CaptureError(f"{source.name} has events, not packets", hint="mitml4 view FILE")
    raise CaptureError(
        f"{source.name} is not a pcap or pcapng file: it begins with {magic.hex(' ')}",
        hint="make one with: tcpdump -w capture.pcap, or: tshark -w capture.pcapng",
    )
