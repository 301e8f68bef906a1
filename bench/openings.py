"""The first bytes of one flow for each common protocol, and for unknown ones, by name.

The text after a comma distinguishes two openings of one protocol.
"""

from __future__ import annotations

import random
from typing import Final

from bench.synthesis import client_hello
from mitml4.protocols.conversation import Opening

__all__ = ["OPENINGS"]

_NOISE: Final = random.Random(1).randbytes(1400)

OPENINGS: Final[dict[str, Opening]] = {
    "tls": Opening(up=client_hello("www.bench.test", _NOISE[:96])),
    "http/1, GET": Opening(
        up=b"GET /index.html HTTP/1.1\r\nHost: www.bench.test\r\nUser-Agent: bench/1\r\n\r\n"
    ),
    "http/1, POST": Opening(
        up=b"POST /form HTTP/1.1\r\nHost: www.bench.test\r\nContent-Length: 1000\r\n\r\n"
        + b"x" * 1000
    ),
    "http-connect": Opening(
        up=b"CONNECT www.bench.test:443 HTTP/1.1\r\nHost: www.bench.test:443\r\n\r\n"
    ),
    "http/2": Opening(
        up=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("00000604000000000000040000ffff")
    ),
    "socks5": Opening(up=b"\x05\x02\x00\x02"),
    "socks4": Opening(up=b"\x04\x01\x01\xbb\xc0\x00\x02\x01bench\x00"),
    "proxy-protocol": Opening(up=b"PROXY TCP4 192.0.2.1 198.51.100.1 40000 443\r\n"),
    "ssh": Opening(down=b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", up=b"SSH-2.0-OpenSSH_9.2p1\r\n"),
    "smtp": Opening(down=b"220 mail.bench.test ESMTP Postfix\r\n", up=b"EHLO bench.test\r\n"),
    "imap": Opening(down=b"* OK [CAPABILITY IMAP4rev1 STARTTLS] ready\r\n", up=b"a STARTTLS\r\n"),
    "pop3": Opening(down=b"+OK ready\r\n", up=b"CAPA\r\n"),
    "ftp": Opening(down=b"220 (vsFTPd 3.0.3)\r\n", up=b"AUTH TLS\r\n"),
    "xmpp": Opening(
        up=b"<?xml version='1.0'?><stream:stream to='bench.test' xmlns='jabber:client'"
        b" xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
    ),
    "postgresql": Opening(up=bytes.fromhex("0000000804d2162f")),
    "mysql": Opening(
        down=bytes.fromhex("4a0000000a") + b"8.0.36\x00" + b"\x08\x00\x00\x00saltsalt\x00"
        b"\xff\xff\xff\x02\x00\xff\xdf\x15" + bytes(10) + b"saltsaltsalt\x00"
        b"caching_sha2_password\x00",
        up=bytes.fromhex("2000000185aeff190000000108") + bytes(23),
    ),
    "ldap": Opening(up=bytes.fromhex("300c020101600702010304008000")),
    "rdp": Opening(up=bytes.fromhex("030000130ee000000000000100080003000000")),
    "unknown": Opening(up=_NOISE, down=_NOISE[::-1]),
}
