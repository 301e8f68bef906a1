"""X11, Zabbix, ident, finger and whois."""

from __future__ import annotations

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.named.administration import PROTOCOLS
from mitml4.protocols.registry import detect

MATCH, LIKELY, NEED_MORE, REJECT = Verdict.MATCH, Verdict.LIKELY, Verdict.NEED_MORE, Verdict.REJECT
DETECT = {row.name: row.detect for row in PROTOCOLS if row.detect}


GREETING = b"*KISMET: 0.0.0 1276329809 \x01Kismet_2009\x01 \x01\x01 0 \n"

CASES = [
    ("kismet", b"", GREETING, LIKELY),
    ("kismet", b"!0 ENABLE STATUS *\n", b"", LIKELY),
    ("kismet", b"!0 ENABLE STATUS *\n", b"* OK", REJECT),
    ("kismet", b"!0 ENABLE STATUS *\n", GREETING, MATCH),
    ("kismet", b"!0 ENABLE", GREETING, NEED_MORE),
    ("kismet", b"! ENABLE", b"", REJECT),
    ("kismet", b"", b"*KISMETS", REJECT),
    ("kismet", b"", b"* OK", REJECT),
    ("x11", b"\x6c\0\x0b\0\0\0\x12\0\x10\0", b"", MATCH),
    ("x11", b"\x42\0\0\x0b\0\0\0\x12\0", b"", NEED_MORE),
    ("x11", b"\x42\0\x0b\0", b"", REJECT),  # the other byte order's version
    ("x11", b"\x6c\0\x0a", b"", REJECT),
    ("x11", b"ls -l\n", b"", REJECT),
    ("zabbix", b"ZBXD\1", b"", MATCH),
    ("zabbix", b"ZBXD\2", b"", REJECT),
    ("ident", b"6193, 23\r\n", b"", NEED_MORE),
    ("ident", b"6193, 23\r\n", b"6193, 23 : USERID : UN", MATCH),
    ("ident", b"6193, 23\r\n7, 8\r\n", b"", NEED_MORE),
    ("ident", b"6193, 23\r\n", b"6193, 23 : HELLO : UN", REJECT),
    ("ident", b" 6193 , 23 \r\n", b"6193 , 23 : ERROR : HIDDEN-USER\r\n", MATCH),
    ("ident", b"6193,23\n", b"6193 , 23 : ERROR :", MATCH),
    ("ident", b"6193, 23\r\n", b"6193, 24 :", REJECT),
    ("ident", b"6193, 23\r\nx", b"6193, 24 :", REJECT),
    ("ident", b"6193\r\n", b"", REJECT),
    ("ident", b"6193, 65536\r\n", b"", REJECT),
    ("ident", b"220 hi", b"", REJECT),
]


def test_what_an_opening_is_worth() -> None:
    for name, up, down, verdict in CASES:
        ended = not up and verdict is REJECT  # until then it may be an answer
        opening = Opening(up=up, down=down, up_ended=ended)
        assert DETECT[name](opening) is verdict


def test_what_a_port_adds_to_it() -> None:
    for name, port, up, down, verdict in (
        ("finger", 79, b"\r\n", b"Login    Name\r\n", LIKELY),
        ("finger", 79, b"/W root\r\n", b"root\r\n", LIKELY),
        ("finger", 79, b"a@b@c\r\n", b"\r\n", LIKELY),
        ("finger", 79, b"root\r\n", b"", NEED_MORE),
        ("finger", 79, b"ro", b"", NEED_MORE),
        ("finger", 79, b"two words\r\n", b"hello", REJECT),
        ("finger", 79, b"root\r\nroot\r\n", b"hello", REJECT),
        ("finger", 79, b"root\r\n", b"\x00", REJECT),
        ("finger", 79, b"", b"hello", REJECT),
        ("finger", 80, b"root\r\n", b"hello", REJECT),
        ("finger", None, b"root\r\n", b"hello", NEED_MORE),
        ("whois", 43, b"example.org\r\n", b"% This is the RIPE Database\n", LIKELY),
        ("whois", 43, b"-B -r 192.0.2.1\r\n", b"\r\n", LIKELY),
        ("whois", 43, b"example.org\r\n", b"", NEED_MORE),
        ("whois", 43, b"\r\n", b"hello", REJECT),
        ("whois", 43, b"\x16\x03\x01", b"", REJECT),
        ("whois", 79, b"example.org\r\n", b"hello", REJECT),
        ("ident", 113, b"6193, 23\r\n", b"", LIKELY),
        ("ident", 113, b"6193, 23\r\n", b"6193", NEED_MORE),
    ):
        ended = not up and verdict is REJECT  # until then it may be an answer
        opening = Opening(up=up, down=down, up_ended=ended, port=port)
        assert DETECT[name](opening) is verdict


def test_the_port_is_no_proof() -> None:
    for name, port in (("finger", 79), ("whois", 43), (None, 7)):
        detection = detect(Opening(up=b"root\r\n", down=b"hello\r\n", port=port))
        assert detection.match is None
        assert (detection.likely and detection.likely.name) == name
    web = detect(Opening(up=b"GET / HTTP/1.0\r\n", down=b"HTTP/1.0 200 OK\r\n", port=43))
    assert web.match
    assert web.match.name == "http/1"
