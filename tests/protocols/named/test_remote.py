"""rsh, rexec, rlogin, lpd, syslog, gopher and ICAP."""

from __future__ import annotations

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.named.remote import PROTOCOLS

MATCH, LIKELY, NEED_MORE, REJECT = Verdict.MATCH, Verdict.LIKELY, Verdict.NEED_MORE, Verdict.REJECT
DETECT = {row.name: row.detect for row in PROTOCOLS if row.detect}

SHELL = b"1022\0me\0you\0ls -l\0"
ICAP = b"RESPMOD icap://a/b ICAP/1.0\r\n"
CASES = [
    ("rsh", SHELL, b"", None, LIKELY),
    ("rsh", SHELL, b"\0", None, MATCH),
    ("rsh", SHELL, b"\1no", None, NEED_MORE),
    ("rsh", SHELL, b"\0", 512, REJECT),
    ("rsh", b"\0me\0you\0ls\0", b"\0", None, MATCH),
    ("rsh", b"\0me\0you\0xterm/9600\0", b"\0", None, REJECT),
    ("rexec", SHELL, b"\0", 512, MATCH),
    ("rexec", SHELL, b"\0", None, NEED_MORE),
    ("rexec", SHELL, b"\0", 514, REJECT),
    ("rlogin", b"\0me\0you\0xterm/9600\0", b"", None, MATCH),
    ("rlogin", b"\0me\0you\0xterm\0", b"", None, REJECT),
    ("lpd", b"\2lp\n", b"", None, LIKELY),
    ("lpd", b"\2lp\n", b"\0", None, MATCH),
    ("lpd", b"\2lp\n", b"no", None, NEED_MORE),
    ("syslog", b"<34>Oct 11 22:14:15 host a: b\n", b"", None, MATCH),
    ("syslog", b"<165>1 2003-08-24T05:14:15Z", b"", None, MATCH),
    ("syslog", b"42 <34>1 -", b"", None, MATCH),
    ("syslog", b"<192>1 -", b"", None, REJECT),
    ("syslog", b"<34>hello", b"", None, REJECT),
    ("gopher", b"/a\r\n", b"iHello\t\t\t0\r\n", 70, LIKELY),
    ("gopher", b"/a\r\n", b"iHello\t\t\t0\r\n", 71, REJECT),
    ("icap", ICAP, b"", None, MATCH),
    ("icap", ICAP[:20], b"", None, NEED_MORE),
    ("icap", b"RESPMOD http://a/b ICAP/1.0\r\n", b"", None, REJECT),
]


def test_what_an_opening_is_worth() -> None:
    for name, up, down, port, verdict in CASES:
        opening = Opening(up=up, down=down, port=port)
        assert DETECT[name](opening) is verdict, (name, up, port)
