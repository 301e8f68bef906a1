"""A body: its content codings undone, or as it came where they cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mitml4.dataclass import dataclass
from mitml4.payload.budget import Payload
from mitml4.payload.codings import DECODER_BYTES, BrokenCodingError, Chain, Decoder
from mitml4.payload.keep import Keep

__all__ = ["Body", "Content"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What is shown of a body or message that has ended."""

    data: bytes
    size: int
    """As sent."""
    decoded_size: int | None
    """With the codings in `encoding` undone; None if it was not read to its end."""
    encoding: tuple[str, ...]
    """The codings that were undone, in the order in which they were applied."""
    truncated: bool
    """Whether there is more than `data`."""
    fault: str | None
    """Why the codings were not undone, or what was wrong with them."""


class Body:
    """Takes a body piece by piece.

    The bytes as sent are kept beside the decoded ones, since a coding may turn out to be broken at
    the end.
    """

    __slots__ = (
        "_codings",
        "_decoded",
        "_decoder",
        "_fault",
        "_given",
        "_is_cut",
        "_payload",
        "_raw",
        "_reserved",
    )

    def __init__(
        self, payload: Payload, codings: Sequence[str] = (), decoder: Decoder | None = None
    ) -> None:
        """`decoder`: undoes the codings, if they are not content codings."""
        self._payload = payload
        self._codings = tuple(codings)
        self._raw = Keep(payload)
        self._decoded: Keep | None = None
        self._decoder: Decoder | None = None
        self._given = decoder
        self._reserved = 0
        self._fault: str | None = None
        self._is_cut = False
        """Whether decoding has stopped before the end."""

    @property
    def size(self) -> int:
        """Bytes so far, as sent."""
        return self._raw.size

    @property
    def is_wanted(self) -> bool:
        """Whether the next bytes are of use; if not, they need only be counted (`skip`)."""
        return self._decoder is not None or not self._raw.is_full

    def write(self, data: bytes) -> None:
        """The next bytes."""
        if self._codings and data and not self.size:
            self._begin_decoding()
        self._raw.add(data)
        if self._decoder and data:
            self._decode(lambda decoder, room: decoder.read(data, room))

    def skip(self, count: int) -> None:
        """The next bytes are so many, and were not seen."""
        if count and self._decoder:
            self._stop_decoding()
        self._raw.skip(count)

    def end(self, *, is_complete: bool) -> Content:
        """Nothing more comes. Call it once: it gives the memory back. `is_complete`: whether the
        body has ended, not only the connection."""
        if is_complete and self.size:
            self._decode(lambda decoder, room: decoder.finish(room))
        if self._decoder:
            self._fault = self._decoder.fault
        content = self._content(is_complete)
        self.discard()
        return content

    def discard(self) -> None:
        """Give the memory back; nothing will be shown."""
        self._drop_decoder()
        self._raw.clear()
        if self._decoded:
            self._decoded.clear()

    def _begin_decoding(self) -> None:
        needed = DECODER_BYTES * len(self._codings)
        self._reserved = self._payload.hold(needed)
        if self._payload.is_used_up:
            self._break("not decoded: nothing more is shown in this session")
            return
        try:
            self._decoder = self._given or Chain(self._codings, self._payload.limit)
        except BrokenCodingError as error:
            self._break(str(error))
            return
        self._decoded = Keep(self._payload)
        if self._reserved < needed and not self._decoder.reads_all:
            self._break("not decoded: too many bodies at the same time")

    def _decode(self, read: Callable[[Decoder, Callable[[], int]], Iterator[bytes]]) -> None:
        decoder, decoded = self._decoder, self._decoded
        if decoder is None or decoded is None:
            return
        # One byte more than is shown tells whether there is more.
        most = self._payload.limit + 1
        try:
            for piece in read(decoder, lambda: 0 if decoded.is_cut else most - decoded.size):
                decoded.add(piece)
        except BrokenCodingError as error:
            self._break(str(error))
            return
        if decoded.is_cut or decoder.is_exhausted:
            self._stop_decoding()

    def _stop_decoding(self) -> None:
        """What is decoded is shown. The rest is only counted, unless a later body needs it."""
        self._raw.clear()
        self._is_cut = True
        if self._decoder and not self._decoder.reads_all:
            self._drop_decoder()

    def _break(self, fault: str) -> None:
        """The body is shown as it came."""
        self._fault = fault
        self._drop_decoder()
        if self._decoded:
            self._decoded.clear()
            self._decoded = None

    def _drop_decoder(self) -> None:
        self._decoder = None
        self._payload.release(self._reserved)
        self._reserved = 0

    def _content(self, is_complete: bool) -> Content:
        kept = self._raw if self._decoded is None else self._decoded
        is_cut = kept.is_cut or (self._decoded is not None and self._is_cut)
        shown = bytes(kept.data[: self._payload.take(len(kept.data))])
        return Content(
            data=shown,
            size=self.size,
            decoded_size=None if self._decoded is not None and is_cut else kept.size,
            encoding=() if self._decoded is None else self._codings,
            truncated=is_cut or not is_complete or len(shown) < len(kept.data),
            fault=self._fault,
        )
