"""Old services of Unix: remote shells and printing, logs, gopher, and ICAP. Named only.

rsh      port NUL user NUL user NUL command NUL; NUL          BSD's rcmd(3), port 514
rexec    the same, with a password, on port 512               BSD's rexec(3)
rlogin   NUL user NUL user NUL terminal/speed NUL             RFC 1282
lpd      01–05 queue … LF; NUL                                RFC 1179 §5
syslog   [length SP] "<" priority ">" version or date         RFC 6587 §3.4, RFC 5424 §6, RFC 3164
gopher   [selector] CRLF; text                                RFC 1436 §2, port 70
icap     method SP "icap://"… SP "ICAP/1.0" CRLF              RFC 3507 §4.3
"""

from __future__ import annotations

from typing import Final

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Opening, Protocol, Verdict
from mitml4.protocols.named.administration import by_port
from mitml4.protocols.parts.evidence import (
    Rule,
    either,
    either_side,
    request_response,
    single_message,
)
from mitml4.protocols.parts.fields import PRINTABLE, Reader
from mitml4.protocols.parts.lines import TEXT, begins, prefix_pattern
from mitml4.regex import regex

__all__ = ["PROTOCOLS"]

DIGITS: Final = b"0123456789"
NUL: Final = b"\0"
MAX_NAME: Final = 32
MAX_COMMAND: Final = 1024
REXEC_PORT: Final = 512


_TERMINAL: Final = regex(rb"[^/ ]+/[0-9]+")


def read_name(reader: Reader) -> bytes:
    """A name, which is not empty."""
    name = reader.until(NUL, MAX_NAME, NAME)
    if not name:
        raise ProtocolError("no name")
    return name


NAME: Final = bytes(byte for byte in PRINTABLE if byte != ord(" "))


def read_rsh(reader: Reader) -> None:
    """A port for errors, two names, and a command."""
    port = reader.until(NUL, 5, DIGITS)
    read_name(reader)
    read_name(reader)
    command = reader.until(NUL, MAX_COMMAND)
    if not command or (not port and _TERMINAL.fullmatch(command)):
        raise ProtocolError("no command, or a terminal of rlogin")


def read_nul(reader: Reader) -> None:
    """The server agrees."""
    reader.one_of(NUL)


def nul_reply(_up: bytes) -> Rule:
    return read_nul


_shell: Final = request_response(read_rsh, nul_reply)


def detect_rsh(opening: Opening) -> Verdict:
    """Anywhere but on rexec's port."""
    return Verdict.REJECT if opening.port == REXEC_PORT else _shell(opening)


def detect_rexec(opening: Opening) -> Verdict:
    """Only its port tells it from rsh."""
    if opening.port not in (None, REXEC_PORT):
        return Verdict.REJECT
    verdict = _shell(opening)
    return verdict if opening.port or verdict is Verdict.REJECT else Verdict.NEED_MORE


def read_rlogin(reader: Reader) -> None:
    """Two names, and the terminal with its speed."""
    reader.one_of(NUL)
    read_name(reader)
    read_name(reader)
    if _TERMINAL.fullmatch(read_name(reader)) is None:
        raise ProtocolError("no terminal with a speed")


LPD_COMMANDS: Final = bytes(range(1, 6))


def read_lpd(reader: Reader) -> None:
    """A command, and the name of a queue with its operands."""
    reader.take(1, LPD_COMMANDS)
    if not reader.until(b"\n", 255):
        raise ProtocolError("no queue")


MONTHS: Final = tuple(
    f"{month} ".encode()
    for month in (
        "Jan",
        "Feb",
        "Mar",
        "Apr",
        "May",
        "Jun",
        "Jul",
        "Aug",
        "Sep",
        "Oct",
        "Nov",
        "Dec",
    )
)
MAX_PRIORITY: Final = 191


def read_message(reader: Reader) -> None:
    """A priority, and the version of RFC 5424 or a date of RFC 3164."""
    reader.one_of(b"<")
    priority = reader.until(b">", 3, DIGITS)
    if not priority or int(priority) > MAX_PRIORITY:
        raise ProtocolError("no priority")
    reader.one_of(b"1 ", *MONTHS)


def read_counted(reader: Reader) -> None:
    """The same behind its length."""
    if not reader.until(b" ", 5, DIGITS):
        raise ProtocolError("no length")
    read_message(reader)


_GOPHER: Final = regex(rb"[ -~\t]{0,255}\r?\n")
_URI: Final = rb"icap://[^\x00-\x20\x7f]+"
_ICAP: Final = regex(rb"(?:OPTIONS|REQMOD|RESPMOD) " + _URI + rb" ICAP/1\.0\r?\n")
_ICAP_BEGUN: Final = prefix_pattern(
    rb"(?:OPTIONS|REQMOD|RESPMOD|[A-Z]{1,7}\Z)",
    *(b" ", b"i", b"c", b"a", b"p", b":", b"/", b"/"),
    rb"[^\x00-\x20\x7f]+",
    *(b" ", b"I", b"C", b"A", b"P", b"/", b"1", rb"\.", b"0", b"\r"),
)
_ICAP_ANSWER: Final = regex(rb"ICAP/1\.0 [1-5][0-9]{2}[ \r\n]")
_ICAP_ANSWER_BEGUN: Final = prefix_pattern(
    *(b"I", b"C", b"A", b"P", b"/", b"1", rb"\.", b"0", b" ", b"[1-5]"), *[b"[0-9]"] * 2
)


def icap_message(data: bytes) -> Verdict:
    """A request line, or a status line."""
    request = begins(data, _ICAP, _ICAP_BEGUN)
    answer = begins(data, _ICAP_ANSWER, _ICAP_ANSWER_BEGUN)
    if Verdict.MATCH in (request, answer):
        return Verdict.MATCH
    return answer if request is Verdict.REJECT else request


PROTOCOLS: Final = (
    Protocol(name="rsh", detect=detect_rsh, client_first=DIGITS + NUL, server_first=b""),
    Protocol(name="rexec", detect=detect_rexec, client_first=DIGITS + NUL, server_first=b""),
    Protocol(name="rlogin", detect=single_message(read_rlogin), client_first=NUL, server_first=b""),
    Protocol(
        name="lpd",
        detect=request_response(read_lpd, nul_reply),
        client_first=LPD_COMMANDS,
        server_first=b"",
    ),
    Protocol(
        name="syslog",
        detect=single_message(either(read_message, read_counted)),
        client_first=b"<" + DIGITS,
        server_first=b"",
    ),
    Protocol(name="gopher", detect=by_port(70, _GOPHER), client_first=TEXT, server_first=b""),
    Protocol(
        name="icap", detect=either_side(icap_message), client_first=b"IOR", server_first=b"IOR"
    ),
)
