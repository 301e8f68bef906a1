"""XMPP up to STARTTLS (RFC 6120 §5): streams of XML, of which only the outermost tags are read.

    <stream:stream to='…'>    ───────►
                              ◄───────  <stream:stream from='…'> <stream:features>…
    <starttls/>               ───────►                           the client's side waits
                              ◄───────  <proceed/>               TLS begins, or
                              ◄───────  <failure/>               the stream goes on

There is no XML parser: a scanner counts the depth of tags, and bounds the length of each. Elements
directly inside the stream are known by name. Text and deeper elements are skipped, so `<starttls/>`
in a message, quoted or in CDATA, asks for nothing. After stanzas, or an authentication that
succeeded, no TLS begins.
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import PAUSE, PEEK, Direction, Opening, Protocol, Verdict
from mitml4.protocols.parts.lines import prefix_pattern
from mitml4.protocols.parts.starttls import StartTLS, StartTLSDetails
from mitml4.regex import regex

__all__ = ["MAX_TAG", "PROTOCOL", "Xmpp", "XmppDetails"]

MAX_TAG: Final = 8192
"""Bytes of one tag; a stream header has a few hundred."""

_BEFORE_STREAM: Final = (rb"[ \t\r\n]*", rb"(?:<\?xml[^>]{0,200}>[ \t\r\n]*)?")
_PREFIX: Final = rb"(?:[A-Za-z][\w.\-]{0,15}:)?"
"""The prefix of the streams' namespace; that it is `stream` is only a custom (RFC 6120 §4.8.5)."""
# RFC 6120 §4.8: the namespaces of streams, and of what they carry.
_HEADER: Final = regex(
    b"".join(_BEFORE_STREAM)
    + rb"<"
    + _PREFIX
    + rb"stream[ \t\r\n][^>]{0,2000}?(?:['\"]jabber:|etherx\.jabber\.org/streams)"
)
_HEADER_BEGUN: Final = prefix_pattern(
    rb"[ \t\r\n]*(?:<\?xml[^>]{0,200}(?:>[ \t\r\n]*)?)?",
    rb"<",
    rb"[A-Za-z][\w.:\-]{0,22}",
    rb"[ \t\r\n][^>]{0,2040}",
)
_STANZA: Final = regex(
    rb"<(?:iq [^>]{0,2000}?type=['\"](?:get|set|result|error)['\"]"
    rb"|(?:message|presence) [^>]{0,2000}?(?:to|from)=['\"][^'\">@]{1,1000}@)"
)
_STANZA_BEGUN: Final = regex(rb"<(?:iq|message|presence) [^>]{0,2040}")
"""RFC 6120 §8.1: the beginning of a capture from the middle of a stream."""
_PROLOGUE_BEGUN: Final = prefix_pattern(*(re.escape(b"<?xml"[at : at + 1]) for at in range(5)))

# No two parts begin with the same byte, so that a tag which does not end costs one pass and back.
_TAG: Final = regex(
    rb"<(?P<close>/)?(?P<name>[^\s<>/!?'\"=]++)(?:[^<>'\"]++|'[^'<]*+'|\"[^\"<]*+\")*>"
)
_OTHERS: Final = ((b"<![CDATA[", b"]]>"), (b"<!--", b"-->"), (b"<?", b"?>"))
"""Other markup that begins with `<`, and its end."""

STANZAS: Final = frozenset({b"iq", b"message", b"presence", b"handshake", b"result", b"verify"})
"""After one of these neither a client nor a server asks for TLS."""
SUCCESS: Final = frozenset({b"success", b"compressed"})
"""Answers of a server after which the streams begin anew, or are compressed."""
MAX_MECHANISM: Final = 64
"""Bytes of the longest name of a SASL mechanism (RFC 4422 §3.1: 20), with blanks."""


def detect(opening: Opening) -> Verdict:
    """A stream header of the client's; or the server's, where there is no other."""
    client = _header(opening.up)
    if opening.up and client is not Verdict.NEED_MORE:
        return client
    server = _header(opening.down)
    if server is not Verdict.MATCH:
        return Verdict.NEED_MORE if opening.up else server
    return Verdict.MATCH if opening.up_ended and not opening.up else Verdict.LIKELY


def _header(data: bytes) -> Verdict:
    if _HEADER.match(data) or _STANZA.match(data):
        return Verdict.MATCH
    possible = _HEADER_BEGUN.fullmatch(data) or _PROLOGUE_BEGUN.fullmatch(data.lstrip(b" \t\r\n"))
    possible = possible or _STANZA_BEGUN.fullmatch(data)
    return Verdict.NEED_MORE if possible else Verdict.REJECT


@dataclass(frozen=True, slots=True, kw_only=True)
class XmppDetails(StartTLSDetails):
    """The host that the client asks for, and the server's name."""

    host: bytes | None = None
    server: bytes | None = None


@dataclass(slots=True)
class Xmpp(StartTLS):
    """Reads both streams, until TLS begins or no longer can."""

    name: ClassVar[str] = "xmpp"

    host: bytes | None = None
    server: bytes | None = None
    _depths: dict[Direction, int] = field(default_factory=lambda: dict.fromkeys(Direction, 0))
    _texts: dict[Direction, bytes] = field(default_factory=lambda: dict.fromkeys(Direction, b""))
    """The end of the text since the last tag."""

    def feed(self, direction: Direction, data: bytes) -> int:
        """Take text and every whole tag, as long as the direction is read.

        Stop after a tag that changes the other side's directive: it may be its turn now.
        """
        at = 0
        others = self.directive(direction.other)
        while (
            at < len(data)
            and self.directive(direction) is PEEK
            and self.directive(direction.other) is others
        ):
            start = data.find(b"<", at)
            if start != at:
                end = start if start > 0 else len(data)
                self._texts[direction] = (self._texts[direction] + data[at:end])[-MAX_MECHANISM:]
                at = end
                continue
            end = self._markup(direction, data, at)
            if (end or len(data)) - at > MAX_TAG:
                raise ProtocolError("xmpp: a tag that does not end")
            if not end:
                break
            at = end
        return at

    def _markup(self, direction: Direction, data: bytes, at: int) -> int:
        """Read the markup at `at`. Returns where it ends, 0 if it is not whole."""
        for opens, closes in _OTHERS:
            if data.startswith(opens, at):
                end = data.find(closes, at + len(opens))
                return end + len(closes) if end >= 0 else 0
        tag = _TAG.match(data, at)
        if tag is None:
            return 0
        if tag.end() - at <= MAX_TAG:
            self._tag(direction, tag)
        self._texts[direction] = b""
        return tag.end()

    def _tag(self, direction: Direction, tag: re.Match[bytes]) -> None:
        name = tag["name"].rpartition(b":")[2]
        depth = self._depths[direction]
        empty = tag[0].endswith(b"/>")
        if tag["close"]:
            depth -= 1
            if name == b"mechanism" and direction is Direction.DOWN:
                self.offer(self._texts[direction])
        elif depth == 0 and name in STANZAS:
            self.stay_plain()  # a capture that begins in the middle
        elif depth == 0:
            self._stream_begins(direction, tag[0])
        elif depth == 1:
            self._element_begins(direction, name)
        if not tag["close"] and not empty:
            depth += 1
        if depth < 0:
            raise ProtocolError("xmpp: an end tag without its tag")
        self._depths[direction] = depth
        if depth == 1 and (tag["close"] or empty):
            self._element_ended(direction, name)

    def _stream_begins(self, direction: Direction, tag: bytes) -> None:
        if direction is Direction.UP:
            self.host = _attribute(tag, b"to")
        else:
            self.greeting = tag
            self.server = _attribute(tag, b"from")

    def _element_begins(self, direction: Direction, name: bytes) -> None:
        if name == b"success" and direction is Direction.DOWN:
            self.let_in()
        elif name in (STANZAS if direction is Direction.UP else SUCCESS):
            self.stay_plain()

    def _element_ended(self, direction: Direction, name: bytes) -> None:
        if direction is Direction.UP:
            if name == b"starttls":
                self.ask()
        elif self.up is PAUSE and name == b"proceed":
            self.accept()
        elif self.up is PAUSE and name == b"failure":
            self.refuse()

    def details(self) -> XmppDetails:
        return XmppDetails(
            greeting=self.greeting, upgraded=self.upgraded, host=self.host, server=self.server
        )


def _attribute(tag: bytes, name: bytes) -> bytes | None:
    found = re.search(rb"\s" + name + rb"\s*=\s*(?:'([^']*)'|\"([^\"]*)\")", tag)
    return None if found is None else found[1] if found[1] is not None else found[2]


PROTOCOL: Final = Protocol(
    name=Xmpp.name,
    detect=detect,
    converse=lambda context: Xmpp(context=context),
    starttls=True,
    client_first=b"< \t\r\n",
    server_first=b"< \t\r\n",
)
