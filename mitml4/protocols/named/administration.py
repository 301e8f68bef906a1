"""Administration of hosts, desktops and users. Named only.

x11      42|6C 00, 11, 0, lengths of the authorization      X Window System protocol §8
zabbix   "ZBXD" flags length(4 or 8) …                      Zabbix documentation, "Header"
kismet   "*KISMET: " version …; "!" id SP command …        Kismet's README (2016), client protocol
ident    6193, 23 CRLF; the same ports, then " : USERID …"  RFC 1413 §4
finger   ["/W" ] [user] [@host …] CRLF; text               RFC 1288 §2.3, port 79
whois    a line of text CRLF; text                         RFC 3912 §2, port 43

The last two are any text on a known port. A port is only a hint, so they are at most
LIKELY, and any other rule that matches is preferred.
"""

from __future__ import annotations

import re
from typing import Final

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Opening, Protocol, Verdict
from mitml4.protocols.parts.evidence import Detector, Rule, single_message
from mitml4.protocols.parts.fields import Reader, evaluate
from mitml4.protocols.parts.lines import TEXT, in_lines
from mitml4.regex import regex

__all__ = ["PROTOCOLS"]

BIG_ENDIAN: Final = b"\x42"
LITTLE_ENDIAN: Final = b"\x6c"
MAX_AUTHORIZATION: Final = 1024


def read_x11(reader: Reader) -> None:
    """A client's connection set-up. The server answers in the client's byte order."""
    little = reader.one_of(BIG_ENDIAN, LITTLE_ENDIAN) == LITTLE_ENDIAN
    reader.take(1)
    for version in (11, 0):
        reader.uint(2, version, version, little=little)
    for _ in ("name", "data"):
        reader.uint(2, 0, MAX_AUTHORIZATION, little=little)


def read_zabbix(reader: Reader) -> None:
    """The header up to its flags: always 1, also compressed (2), also large (4)."""
    reader.one_of(b"ZBXD")
    reader.one_of(b"\x01", b"\x03", b"\x05", b"\x07")


DIGITS: Final = b"0123456789"
CAPITALS: Final = bytes(range(ord("A"), ord("Z") + 1))


def read_kismet(reader: Reader) -> None:
    """The server's greeting."""
    reader.one_of(b"*KISMET: ")
    reader.take(1, DIGITS)


def read_kismet_command(reader: Reader) -> None:
    """A client's command; its number comes back with the answer."""
    reader.one_of(b"!")
    if not reader.until(b" ", 10, DIGITS):
        raise ProtocolError("no number")
    reader.take(4, CAPITALS)
    reader.until(b" ", 20, CAPITALS)


def detect_kismet(opening: Opening) -> Verdict:
    """The greeting, which the client's first command may not contradict."""
    greeting = evaluate(read_kismet, opening.down)
    command = evaluate(read_kismet_command, opening.up)
    if Verdict.REJECT in (greeting, command):
        return Verdict.REJECT
    if greeting is command or opening.up_ended:
        return greeting
    first = command if opening.up else greeting
    return Verdict.LIKELY if first is Verdict.MATCH else Verdict.NEED_MORE


MAX_LINE: Final = 32


def read_ident(reader: Reader) -> None:
    """A line with a pair of ports."""
    line = reader.until(b"\n", MAX_LINE, DIGITS + b" ,\r")
    if not all(port.isdigit() and 1 <= int(port) <= 0xFFFF for port in ports(line)):
        raise ProtocolError("no ports")


def ports(line: bytes) -> tuple[bytes, bytes]:
    """The texts before and after the comma."""
    first, _, second = line.partition(b",")
    return first.strip(), second.strip()


def ident_reply(up: bytes) -> Rule:
    """The same ports, and the owner of the connection, or why it is not given."""
    asked = ports(up.partition(b"\n")[0])

    def read(reader: Reader) -> None:
        if ports(reader.until(b":", MAX_LINE, DIGITS + b" ,\t")) != asked:
            raise ProtocolError("other ports")
        if reader.until(b":", MAX_LINE).strip() not in (b"USERID", b"ERROR"):
            raise ProtocolError("neither a user nor an error")

    return read


IDENT_PORT: Final = 113


def detect_ident(opening: Opening) -> Verdict:
    """A pair of ports, which other protocols may send too: it needs the answer, or the port to be
    LIKELY."""
    if opening.down and not opening.up:
        return Verdict.REJECT
    query = evaluate(read_ident, opening.up)
    if query is not Verdict.MATCH:
        return query
    reply = evaluate(ident_reply(opening.up), opening.down)
    unanswered = opening.port == IDENT_PORT and not opening.down
    return Verdict.LIKELY if reply is Verdict.NEED_MORE and unanswered else reply


_FINGER_QUERY: Final = regex(rb"(?:/W)? *[!-~]{0,64}\r?\n", re.IGNORECASE)
_WHOIS_QUERY: Final = regex(rb"(?! *\r?\n)[ -~\x80-\xff]{1,256}\r?\n")


def by_port(port: int, query: re.Pattern[bytes]) -> Detector:
    """A detector for one line from the client, answered by any text: LIKELY on this port."""

    def detect(opening: Opening) -> Verdict:
        if opening.port not in (None, port) or (opening.down and not opening.up):
            return Verdict.REJECT
        if not (in_lines(opening.up) and in_lines(opening.down)):
            return Verdict.REJECT
        if b"\n" not in opening.up:
            return Verdict.NEED_MORE
        if query.fullmatch(opening.up) is None:
            return Verdict.REJECT
        return Verdict.LIKELY if opening.port and opening.down else Verdict.NEED_MORE

    return detect


PROTOCOLS: Final = (
    Protocol(
        name="x11",
        detect=single_message(read_x11),
        client_first=BIG_ENDIAN + LITTLE_ENDIAN,
        server_first=b"",
    ),
    Protocol(
        name="zabbix", detect=single_message(read_zabbix), client_first=b"Z", server_first=b""
    ),
    Protocol(
        name="ident",
        detect=detect_ident,
        client_first=DIGITS + b" ",
        server_first=b"",
    ),
    Protocol(name="finger", detect=by_port(79, _FINGER_QUERY), client_first=TEXT, server_first=b""),
    Protocol(name="whois", detect=by_port(43, _WHOIS_QUERY), client_first=TEXT, server_first=b""),
    Protocol(
        name="kismet",
        detect=detect_kismet,
        client_first=b"!",
        server_first=b"*",
    ),
)
