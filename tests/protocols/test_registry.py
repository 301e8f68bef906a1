"""Detection over all rows: one answer, for every split of the bytes.

`OPENINGS` holds the first bytes of real conversations, in the order in which they are caused: a
server's bytes answer all that stands above them. A new row of the registry needs an entry here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import Direction, Opening, Protocol, Verdict
from mitml4.protocols.parts.starttls import StartTLS
from mitml4.protocols.registry import BEGINNING, MAX_OPENING, PROTOCOLS, Registry, by_name, detect

UP, DOWN = Direction.UP, Direction.DOWN
Trace = list[tuple[Direction, bytes]]

OPENINGS: dict[str, list[Trace]] = {
    "openwire": [[(UP, b"\0\0\1\x48\x01ActiveMQ\0\0\0\x0c"), (DOWN, b"\0\0\1\x48\x01ActiveMQ")]],
    "gearman": [[(UP, b"\0REQ\0\0\0\x07\0\0\0\x0c"), (DOWN, b"\0RES\0\0\0\x08\0\0\0\4")]],
    "nsq": [[(UP, b"  V2IDENTIFY\n\0\0\0\x10"), (DOWN, b"\0\0\0\6\0\0\0\0OK")]],
    "pulsar": [[(UP, b"\0\0\0\x20\0\0\0\x1c\x08\x02\x12\x18"), (DOWN, b"\0\0\0\x10")]],
    "beanstalkd": [
        [(UP, b"put 0 0 60 5\r\nhello\r\n"), (DOWN, b"INSERTED 1\r\n")],
        [(UP, b"use mail\r\n"), (DOWN, b"USING mail\r\n")],
    ],
    "giop": [[(UP, b"GIOP\1\2\1\0\x20\0\0\0"), (DOWN, b"GIOP\1\2\1\1")]],
    "openflow": [[(UP, b"\4\0\0\x08\0\0\0\1"), (DOWN, b"\4\0\0\x10\0\0\0\2\0\1\0\x08\0\0\0\x12")]],
    "ceph": [
        [(UP, b"ceph v2\n\x10\0"), (DOWN, b"ceph v2\n")],
        [(DOWN, b"ceph v027"), (UP, b"ceph v027")],
    ],
    "neo4j": [[(UP, b"\x60\x60\xb0\x17\0\0\4\4" + bytes(12)), (DOWN, b"\0\0\4\4")]],
    "rethinkdb": [[(UP, b"\xc3\xbd\xc2\x34{"), (DOWN, b"{")]],
    "c1222": [
        [
            (
                UP,
                b"\x60\x1a\xa2\4\6\2\x2a\3\xa6\4\6\2\x2a\4\xa8\3\2\1\2\xbe\7\x28\5\x81\3\x80\1\x20",
            ),
            (DOWN, b"\x60\x1a\xa2\4\6\2\x2a\4"),
        ]
    ],
    "couchbase": [
        [
            (UP, b"\x80\x1f\0\4\0\0\0\0\0\0\0\6" + bytes(12) + b"core\0\6"),
            (DOWN, b"\x81\x1f\0\0"),
        ],
        [
            (UP, b"\x08\1\2\3\x08\0\0\1\0\0\0\x12" + bytes(12) + b"\x11\1" + bytes(8) + b"key"),
            (DOWN, b"\x18\1\3\0"),
        ],
    ],
    "kismet": [
        [
            (DOWN, b"*KISMET: 0.0.0 1276329809 \x01Kismet_2009\x01 \x01\x01 0 \n"),
            (UP, b"!0 ENABLE STATUS *\n"),
        ]
    ],
    "hl7": [[(UP, b"\x0bMSH|^~\\&|A|B\r\x1c\r"), (DOWN, b"\x0bMSH|^~")]],
    "rsh": [[(UP, b"1022\0alice\0bob\0uname -a\0"), (DOWN, b"\0Linux")]],
    "gopher": [[(UP, b"/a\r\n"), (DOWN, b"iHello\tfake\t(NULL)\t0\r\n")]],
    "rexec": [[(UP, b"1022\0alice\0secret\0uname -a\0")]],
    "rlogin": [[(UP, b"\0alice\0bob\0xterm/38400\0"), (DOWN, b"\0")]],
    "lpd": [[(UP, b"\x02lp\n"), (DOWN, b"\0")]],
    "syslog": [
        [(UP, b"<34>Oct 11 22:14:15 host su: hello\n")],
        [(UP, b"61 <165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1")],
    ],
    "icap": [[(UP, b"REQMOD icap://a/b ICAP/1.0\r\n"), (DOWN, b"ICAP/1.0 204 No\r\n")]],
    "minecraft": [[(UP, b"\x10\0\xfb\5\x09localhost\x63\xdd\x01\1\0"), (DOWN, b"\x7b\0")]],
    "steam": [[(UP, b"\x10\1\0\0VT01"), (DOWN, b"\x10\0\0\0VT01")]],
    "teamviewer": [[(UP, b"\x17\x24\x0a\x20"), (DOWN, b"\x17\x24\x11\0")]],
    "whatsapp": [[(UP, b"WA\6\3\0\0\x24\x12\x22"), (DOWN, b"\0\1\x5e")]],
    "telegram": [
        [(UP, b"\xef\x0a" + bytes(8) + b"\1\2")],
        [(UP, b"\xee\xee\xee\xee\x28\0\0\0" + bytes(8))],
    ],
    "tls": [
        [(UP, b"\x16\x03\x01\x00\x2e\x01\x00\x00\x2a\x03\x03"), (DOWN, b"\x16\x03\x03\0\x30\2")],
        [(UP, b"\x16\x03\x01\x00\x01\x01\x16\x03\x01\x00\x2d"), (DOWN, b"\x15\3\1\0\2\2\x28")],
    ],
    "http/1": [
        [(UP, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), (DOWN, b"HTTP/1.1 200 OK\r\n")],
        [(UP, b"\r\nBREW /pot HTTP/1.0\r\n\r\n"), (DOWN, b"HTTP/1.1 418 No\r\n")],
        [(UP, b"GET / HTTP/9.9\r\n\r\n"), (DOWN, b"HTTP/1.1 400 Bad Request\r\n")],
        [(UP, b"GET /x\r\n"), (DOWN, b"<html>hello")],
        [(UP, b"HTTP/1.1 200 OK\r\n"), (DOWN, b"GET / HTTP/1.1\r\n")],
    ],
    "http-connect": [
        [(UP, b"CONNECT example.com:443 HTTP/1.1\r\n\r\n"), (DOWN, b"HTTP/1.1 200 OK\r\n\r\n")],
    ],
    "http/2": [
        [
            (UP, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"),
            (DOWN, b"\0\0\0\4\0\0\0\0\0"),
        ],
        [
            (DOWN, b"\0\0\0\4\0\0\0\0\0"),
            (UP, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"),
        ],
    ],
    "socks5": [
        [(UP, b"\x05\x01\x00"), (DOWN, b"\x05\x00"), (UP, b"\x05\x01\x00\x01\x7f\0\0\1\0\x50")],
        [(UP, b"\x05\x04\x00\x01\x02\x80"), (DOWN, b"\x05\x02"), (UP, b"\x01\x01a\x01b")],
    ],
    "socks4": [
        [(UP, b"\x04\x01\x00\x50\xc0\x00\x02\x01me\x00"), (DOWN, b"\x00\x5a" + bytes(6))],
        [(UP, b"\x04\x01\x01\xbb\x00\x00\x00\x01\x00example.com\x00"), (DOWN, b"\x00\x5b")],
    ],
    "proxy-protocol": [
        [(UP, b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n"), (DOWN, b"220 hello")],
        [(UP, b"PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n")],
        [(UP, b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\0\2\1\xc0\0\2\2\xdc\4\x01\xbb")],
    ],
    "ssh": [
        [(UP, b"SSH-2.0-Go\r\n"), (DOWN, b"SSH-2.0-OpenSSH_9.6\r\n\0\0\1")],
        [(DOWN, b"Authorized use only\r\nSSH-1.99-x\r\n"), (UP, b"SSH-2.0-OpenSSH_9.6\r\n\0")],
    ],
    "smtp": [
        [(DOWN, b"220 mx.example ESMTP\r\n"), (UP, b"ehlo me\r\n"), (DOWN, b"250 mx\r\n")],
        [(DOWN, b"220-hello\r\n220 there\r\n"), (UP, b"HELO me\r\n"), (DOWN, b"250 mx\r\n")],
        [(DOWN, b"220 mx LMTP\r\n"), (UP, b"QUIT\r\n"), (DOWN, b"221 bye\r\n")],
        [(DOWN, b"554 mx ESMTP no\r\n"), (UP, b"QUIT\r\n"), (DOWN, b"221 bye\r\n")],
        [(DOWN, b"421 busy\r\n"), (UP, b"EHLO me\r\n")],
    ],
    "postgresql": [
        [(UP, b"\0\0\0\x08\x04\xd2\x16\x2f"), (DOWN, b"N"), (UP, b"\0\0\0\x10\0\3\0\0user\0a\0\0")],
        [(UP, b"\0\0\0\x10\0\3\0\0user\0a\0\0"), (DOWN, b"R\0\0\0\x08\0\0\0\0")],
    ],
    "mysql": [
        [
            (DOWN, b"\x1e\0\0\0\x0a8.0.36\0\1\0\0\0saltsalt\0\xff\xff\xff\2\0\xff\xdf\x15\0"),
            (UP, b"\x20\0\0\1\x85\xae\xff\x19\0\0\0\1\xff" + bytes(23)),
        ],
        [
            (DOWN, b"\x16\0\0\0\x0a5.1\0\1\0\0\0saltsalt\0\xff\xf7\x08\2"),
            (UP, b"\x24\0\0\1\x85\xa6\xff\x19\0\0\0\1\xff" + bytes(23) + b"me\0\0"),
            (DOWN, b"\7\0\0\2\0\0\0\2\0\0\0"),
        ],
    ],
    "ftp": [
        [(DOWN, b"220 (vsFTPd 3.0.3)\r\n"), (UP, b"AUTH TLS\r\n"), (DOWN, b"234 Go\r\n")],
        [(DOWN, b"220-hello\r\n220 there\r\n"), (UP, b"user me\r\n"), (DOWN, b"331 ?\r\n")],
        [(DOWN, b"220-hello\r\n220 FTP\r\n"), (UP, b"QUIT\r\n"), (DOWN, b"221 bye\r\n")],
        [(DOWN, b"220 ready\r\n"), (UP, b"AUTH SSL\r\n"), (DOWN, b"234 Go\r\n")],
        [(DOWN, b"421 busy\r\n"), (UP, b"USER me\r\n")],
    ],
    "imap": [
        [(DOWN, b"* OK IMAP4rev1\r\n"), (UP, b"a1 CAPABILITY\r\n"), (DOWN, b"* CAPABILITY\r\n")],
        [(DOWN, b"* PREAUTH hi\r\n"), (UP, b". id nil\r\n"), (DOWN, b"* ID nil\r\n")],
        [(DOWN, b"* OK hi\r\n"), (UP, b"GET LOGIN {2}\r\n"), (DOWN, b"+ OK\r\n")],
    ],
    "pop3": [
        [(DOWN, b"+OK POP3\r\n"), (UP, b"USER me\r\n"), (DOWN, b"+OK\r\n")],
        [(DOWN, b"+OK\r\n"), (UP, b"capa\r\n"), (DOWN, b"+OK\r\nSTLS\r\n.\r\n")],
        [(DOWN, b"+OK <1@a>\r\n"), (UP, b"AUTH PLAIN\r\n"), (DOWN, b"+ \r\n")],
        [(DOWN, b"+OK ready\r\n"), (UP, b"QUIT\r\n"), (DOWN, b"+OK\r\n")],
        [(DOWN, b"-ERR busy\r\n"), (UP, b"USER me\r\n")],
    ],
    "nntp": [
        [(DOWN, b"200 hi\r\n"), (UP, b"MODE READER\r\n"), (DOWN, b"200 hi\r\n")],
        [(DOWN, b"201 NNTP\r\n"), (UP, b"LIST\r\n"), (DOWN, b"215 list\r\n.\r\n")],
        [(DOWN, b"200 hi\r\n"), (UP, b"STARTTLS\r\n"), (DOWN, b"382 go\r\n")],
        [(DOWN, b"502 no\r\n"), (UP, b"MODE READER\r\n")],
    ],
    "managesieve": [
        [
            (DOWN, b'"IMPLEMENTATION" "Sieve 1"\r\n"STARTTLS"\r\nOK\r\n'),
            (UP, b"STARTTLS\r\n"),
            (DOWN, b"OK\r\n"),
        ],
    ],
    "irc": [
        [(UP, b"NICK me\r\nUSER me 0 * :Me\r\n"), (DOWN, b":irc.example 001 me :Hi\r\n")],
        [(DOWN, b"NOTICE AUTH :***\r\n"), (UP, b"USER me 0 * :Me\r\nNICK me\r\n")],
        [(UP, b"PASS x\r\nNICK a\r\n"), (DOWN, b"PING :1\r\n"), (UP, b"PONG :1\r\n")],
        [(UP, b"STARTTLS\r\n"), (DOWN, b":irc.example 670 * :go\r\n")],
        [(UP, b"JOIN #x\r\n"), (DOWN, b":irc.example 451 * :no\r\n")],
        [(UP, b":al!al@host PRIVMSG #x :hello\r\n"), (DOWN, b"PONG :x\r\n")],
    ],
    "xmpp": [
        [
            (UP, b"<?xml version='1.0'?>\n<stream:stream to='a' xmlns='jabber:client'>"),
            (DOWN, b"<?xml version='1.0'?><stream:stream from='a'>"),
        ],
        [(UP, b'<stream:stream xmlns:stream="http://etherx.jabber.org/streams">'), (DOWN, b"<s")],
    ],
    "rtsp": [
        [(UP, b"OPTIONS rtsp://a/b RTSP/1.0\r\nCSeq: 1\r\n\r\n"), (DOWN, b"RTSP/1.0 200 OK\r\n")],
        [(UP, b"OPTIONS * RTSP/2.0\r\n\r\n"), (DOWN, b"RTSP/2.0 200 OK\r\n")],
    ],
    "sip": [
        [(UP, b"REGISTER sip:a.example SIP/2.0\r\n"), (DOWN, b"SIP/2.0 401 No\r\n")],
        [(UP, b"\r\n\r\nOPTIONS sips:b SIP/2.0\r\n"), (DOWN, b"\r\n")],
        [(UP, b"SIP/2.0 200 OK\r\n")],
    ],
    "stomp": [
        [(UP, b"CONNECT\naccept-version:1.2\nhost:a\n\n\0"), (DOWN, b"CONNECTED\nversion:1.2\n")],
        [(UP, b"STOMP\r\nhost:a\r\n\r\n\0"), (DOWN, b"CONNECTED\n")],
        [(UP, b"CONNECT\n\n\0"), (DOWN, b"CONNECTED\n")],
    ],
    "rtmp": [
        [(UP, b"\3\0\0\0\0\0\0\0\0" + b"x" * 1528), (DOWN, b"\3\0\0\0\1")],
    ],
    "git": [
        [(UP, b"001egit-upload-pack /a\0host=b\0"), (DOWN, b"00c9348534c760")],
        [(UP, b"0018git-receive-pack /a\0")],
    ],
    "svn": [
        [
            (DOWN, b"( success ( 2 2 ( ) ( edit-pipeline svndiff1 "),
            (UP, b"( 2 ( edit-pipeline ) 20:svn://127.0.0.1/repo "),
        ],
    ],
    "rsync": [
        [
            (DOWN, b"@RSYNCD: 31.0 md5 md4\n"),
            (UP, b"@RSYNCD: 31.0\nhome\n"),
            (DOWN, b"@RSYNCD: OK\n"),
        ],
        [(UP, b"@RSYNCD: 27\n"), (DOWN, b"@RSYNCD: 30.0\n")],
    ],
    "vnc": [
        [(DOWN, b"RFB 003.008\n"), (UP, b"RFB 003.007\n"), (DOWN, b"\1\1")],
    ],
    "telnet": [
        [(DOWN, b"\xff\xfd\x18\xff\xfd\x20\xff\xfd\x23"), (UP, b"\xff\xfb\x18")],
        [(UP, b"\xff\xfb\x1f\xff\xfa\x1f\0\x50\0\x18\xff\xf0\xff\xfb\x03"), (DOWN, b"login: ")],
    ],
    "tds": [
        [
            (UP, b"\x12\1\0\x1a\0\0\1\0\0\0\x0b\0\6\1\0\x11\0\1\xff\x11\0\0\0\0\0\0"),
            (DOWN, b"\4\1\0\x1a\0\0\1\0\0\0\x0b\0\6\1\0\x11\0\1\xff\x10\0\3\xe8\0\0\1"),
        ],
        [(UP, b"\x10\1\1\0\0\0\1\0\xf8\0\0\0\4\0\0\x74"), (DOWN, b"\4\1\0\x20")],
    ],
    "rdp": [
        [
            (UP, b"\3\0\0\x13\x0e\xe0\0\0\0\0\0\1\0\x08\0\3\0\0\0"),
            (DOWN, b"\3\0\0\x13\x0e\xd0\0\0\x12\x34\0\2\0\x08\0\2\0\0\0"),
        ],
        [(UP, b"\3\0\0\x20\x1b\xe0\0\0\0\0\0Cookie: mstshash=me\r\n"), (DOWN, b"\3\0\0\x0b\6\xd0")],
    ],
    "ldap": [
        [(UP, b"0\x0c\2\1\1`\7\2\1\3\4\0\x80\0"), (DOWN, b"0\x0c\2\1\1a\7\x0a\1\0\4\0\4\0")],
        [
            (UP, b"0\x84\0\0\0\x16\2\1\1\x63\x84\0\0\0\x0d\4\0\x0a\1\0"),
            (DOWN, b"0\x84\0\0\0\x20\2\1\1d\x84\0\0\0\x17\4\0"),
        ],
        [(UP, b"0\x1d\2\1\1w\x18\x80\x161.3.6.1.4.1.1466.20037"), (DOWN, b"0\x0c\2\1\1x\7\x0a\1")],
    ],
    "mongodb": [
        [
            (UP, b"\x25\0\0\0\1\0\0\0\0\0\0\0\xdd\7\0\0\0\0\0\0\0\x10\0\0\0\x10hello\0\1\0\0\0\0"),
            (DOWN, b"\x25\0\0\0\2\0\0\0\1\0\0\0\xdd\7\0\0"),
        ],
        [
            (UP, b"\x36\0\0\0\1\0\0\0\0\0\0\0\xd4\7\0\0\0\0\0\0a.$cmd\0\0\0\0\0\1\0\0\0"),
            (UP, b"\x13\0\0\0\x10ismaster\0"),
        ],
    ],
    "smb": [
        [
            (UP, b"\0\0\0\x2f\xffSMBr" + bytes(42)),
            (DOWN, b"\0\0\0\xcd\xfeSMB\x40"),
        ],
        [
            (UP, b"\x81\0\0\x44 " + b"CKFDENEC" * 4 + b"\0 " + b"EGFCCACA" * 4 + b"\0"),
            (DOWN, b"\x82\0\0\0"),
            (UP, b"\0\0\0\x9b\xffSMBr"),
        ],
    ],
    "netbios-ssn": [
        [
            (UP, b"\x81\0\0\x44 " + b"EJECEJEG" * 4 + b"\0 " + b"EGFCCACA" * 4 + b"\0"),
            (DOWN, b"\x82\0\0\0"),
            (UP, b"\0\0\0\x05hello"),
        ],
    ],
    "dcerpc": [
        [
            (UP, b"\5\0\x0b\3\x10\0\0\0\x48\0\0\0\1\0\0\0\xd0\x16\0\x20"),
            (DOWN, b"\5\0\x0c\3\x10\0\0\0\x3c\0\0\0\1\0\0\0"),
        ],
    ],
    "kerberos": [
        [
            (UP, bytes.fromhex("000000eb6a81e83081e5a103020105a20302010aa3153013")),
            (DOWN, bytes.fromhex("000001127e82010e3082010aa003020105a10302011ea411")),
        ],
        [(UP, bytes.fromhex("0000063c6c82063830820634a103020105a20302010ca382"))],
    ],
    "rpc": [
        [
            (UP, b"\x80\0\0\x28\x7c\x12\xaf\x6e\0\0\0\0\0\0\0\2\0\1\x86\xa3\0\0\0\3" + bytes(20)),
            (DOWN, b"\x80\0\0\x18\x7c\x12\xaf\x6e\0\0\0\1" + bytes(16)),
        ],
    ],
    "modbus": [
        [
            (UP, b"\0\1\0\0\0\6\1\1\0\0\0\3"),
            (DOWN, b"\0\1\0\0\0\4\1\1\1\4"),
        ],
        [(UP, b"\0\0\0\0\0\4\0\x5a\0\2\0\1\0\0\0\5\0\x5a\0\1\0")],
    ],
    "dnp3": [
        [
            (UP, b"\5\x64\x11\xc4\2\0\3\0\xcc\xfb\xea"),
            (DOWN, b"\5d\x0aD\3\0\2\0S\x82"),
        ],
    ],
    "iec104": [
        [(UP, b"\x68\4\7\0\0\0"), (DOWN, b"\x68\4\x0b\0\0\0")],
        [(UP, b"\x68\x0e\2\0\2\0\x64\1\6\0\1\0\0\0\0\x14\x68\x0e\4\0\2\0\x64\1\6\0\1\0\0\0\0\x14")],
    ],
    "opcua": [
        [(UP, b"HELF\x20\0\0\0" + bytes(24)), (DOWN, b"ACKF\x1c\0\0\0" + bytes(20))],
    ],
    "tpkt": [
        [
            (UP, b"\3\0\0\x16\x11\xe0\0\0\0\1\0\xc0\1\x0a\xc1\2\1\0\xc2\2\1\2"),
            (DOWN, b"\3\0\0\x16\x11\xd0\0\1\0\1\0\xc0\1\x0a\xc1\2\1\0\xc2\2\1\2"),
        ],
    ],
    "enip": [
        [
            (UP, b"\x65\0\4\0" + bytes(20) + b"\1\0\0\0"),
            (DOWN, b"\x65\0\4\0\1\2\3\4" + bytes(16) + b"\1\0\0\0"),
        ],
    ],
    "hislip": [
        [
            (UP, b"HS\0\0\1\0RS\0\0\0\0\0\0\0\7hislip0"),
            (DOWN, b"HS\1\0\1\0\0\1" + bytes(8)),
        ],
    ],
    "bgp": [
        [
            (UP, b"\xff" * 16 + b"\0\x2d\1\4\xfe\x4c\0\xb4"),
            (DOWN, b"\xff" * 16 + b"\0\x2d\1\4\xfe\xb0\0\xb4"),
        ],
        [(DOWN, b"\xff" * 16 + b"\0\x13\4"), (UP, b"\xff" * 16 + b"\0\x13\4")],
    ],
    "ldp": [
        [
            (UP, b"\0\1\0\x20\x0a\0\1\1\0\0\2\0\0\x16\0\0\2\5\5\0"),
            (DOWN, b"\0\1\0\x28\x0a\0\0\6\0\0\2\0\0\x16\0\0\1\5\5\0"),
        ],
    ],
    "diameter": [
        [
            (UP, bytes.fromhex("01000074c00001010000000012345678abcdef01000001084000001a")),
            (DOWN, bytes.fromhex("01000050400001010000000012345678abcdef010000010c4000000c")),
        ],
    ],
    "smpp": [
        [
            (UP, b"\0\0\0\x23\0\0\0\2\0\0\0\0\0\0\0\1me\0secret\0SMPP\0\x34\0\0\0"),
            (DOWN, b"\0\0\0\x15\x80\0\0\2"),
        ],
    ],
    "stun": [
        [
            (UP, b"\0\3\0\x08\x21\x12\xa4\x42" + bytes(12)),
            (DOWN, b"\1\x13\0\x74\x21\x12\xa4\x42" + bytes(12)),
        ],
        [(UP, b"\0\x68\0\1\0\x54\x21\x12\xa4\x42"), (DOWN, b"\0\x60\1\1\0\x4c\x21\x12\xa4\x42")],
    ],
    "openvpn": [
        [(UP, b"\0\x0e\x38sessions\0\0\0\0\0"), (DOWN, b"\0\x1a\x40")],
        [(UP, b"\0\x2a\x38sessions" + bytes(23) + b"\1time" + bytes(5)), (DOWN, b"\0\x36\x40")],
        [(UP, b"\0\x36\x38sessions\0\0\0\1timetag"), (DOWN, b"\0\x42\x40SERVERID")],
        [(UP, b"\1\x61\x50sessions\x0f\0\0\1timetag"), (DOWN, b"\0\x42\x40SERVERID")],
    ],
    "pptp": [
        [(UP, b"\0\x9c\0\1\x1a\x2b\x3c\x4d\0\1"), (DOWN, b"\0\x9c\0\1\x1a\x2b\x3c\x4d\0\2")],
    ],
    "drda": [
        [(UP, b"\0\x89\xd0\x41\0\1\0\x83\x10\x41\0\x39"), (DOWN, b"\0\x5b\xd0\x43\0\1\0\x55")],
    ],
    "oracle-tns": [
        [(UP, b"\0\xc8\0\0\1\0\0\0\1\x3a\1\x2c\0\0"), (DOWN, b"\0\x20\0\0\2\0\0\0\1\x3a")],
    ],
    "elasticsearch": [
        [
            (UP, b"ES\0\0\0\x34\0\0\0\0\0\0\0\1\x08\0\x5c\xc6\x63"),
            (DOWN, b"ES\0\0\0\x13\0\0\0\0\0\0\0\1\x09\0\x5c\xc6\x63"),
        ],
        [(UP, b"ES\xff\xff\xff\xff")],
    ],
    "zookeeper": [
        [
            (UP, b"\0\0\0\x2d" + bytes(14) + b"\x75\x30" + bytes(11) + b"\x10" + bytes(17)),
            (DOWN, b"\0\0\0\x25\0\0\0\0\0\0\x75\x30"),
        ],
    ],
    "clickhouse": [
        [
            (UP, b"\0\x11ClickHouse client\x17\x08\xbf\xa9\3"),
            (DOWN, b"\0\x0aClickHouse\x17\x08\xbf\xa9\3"),
        ],
    ],
    "bittorrent": [
        [(UP, b"\x13BitTorrent protocol" + bytes(8)), (DOWN, b"\x13BitTorrent protocol")],
    ],
    "gnutella": [
        [(UP, b"GNUTELLA CONNECT/0.6\r\nNode: x\r\n"), (DOWN, b"GNUTELLA/0.6 503 No\r\n")],
    ],
    "bitcoin": [
        [
            (UP, b"\xf9\xbe\xb4\xd9version\0\0\0\0\0\x66\0\0\0abcd"),
            (DOWN, b"\xf9\xbe\xb4\xd9version\0\0\0\0\0\x66\0\0\0efgh"),
        ],
    ],
    "ajp13": [
        [(UP, b"\x12\x34\0\1\x0a"), (DOWN, b"AB\0\1\x09")],
        [(UP, b"\x12\x34\3\x36\2\4\0\x08HTTP/1.1"), (DOWN, b"AB\0\x0a\4")],
    ],
    "jdwp": [
        [(UP, b"JDWP-Handshake"), (DOWN, b"JDWP-Handshake")],
    ],
    "java-rmi": [
        [(UP, b"JRMI\0\2\x4b"), (DOWN, b"\x4e\0\x09127.0.0.1")],
    ],
    "x11": [
        [(UP, b"\x6c\0\x0b\0\0\0\x12\0\x10\0\0\0MIT-MAGIC"), (DOWN, b"\1\0\x0b\0\0\0")],
        [(UP, b"\x42\0\0\x0b\0\0\0\0\0\0\0\0"), (DOWN, b"\1\0\0\x0b\0\0")],
    ],
    "adb": [
        [
            (UP, b"CNXN\1\0\0\1\0\0\4\0\7\0\0\0\x32\2\0\0\xbc\xb1\xa7\xb1host::\0"),
            (DOWN, b"AUTH\1\0\0\0"),
        ],
        [(UP, b"000chost:version"), (DOWN, b"OKAY")],
    ],
    "zabbix": [
        [(UP, b"ZBXD\1\x09\0\0\0\0\0\0\0agent.ping"), (DOWN, b"ZBXD\1\1\0\0\0")],
    ],
    "ident": [
        [(UP, b"6193, 23\r\n"), (DOWN, b"6193, 23 : USERID : UNIX :me\r\n")],
    ],
    "finger": [
        [(UP, b"/W root\r\n"), (DOWN, b"Login: root\r\n")],
        [(UP, b"\r\n"), (DOWN, b"\r\n")],
    ],
    "whois": [[(UP, b"example.org\r\n"), (DOWN, b"% Hello\n")]],
    "fix": [
        [
            (UP, b"8=FIX.4.2\x019=65\x0135=A\x0149=me\x01"),
            (DOWN, b"8=FIX.4.2\x019=65\x0135=A\x0149=you\x01"),
        ],
    ],
    "thrift": [
        [(UP, b"\x80\1\0\1\0\0\0\4ping\0\0\0\1"), (DOWN, b"\x80\1\0\2\0\0\0\4ping")],
        [(UP, b"\0\0\0\x11\x80\1\0\1\0\0\0\4ping\0\0\0\1\0"), (DOWN, b"\0\0\0\x11\x80\1\0\2")],
        [(UP, b"\x82\x21\1\4ping\0"), (DOWN, b"\x82\x41\1\4ping\0")],
    ],
    "redis": [
        [(UP, b"*2\r\n$4\r\nAUTH\r\n$1\r\na\r\n"), (DOWN, b"+OK\r\n"), (UP, b"*1\r\n")],
        [(UP, b"get key\r\n"), (DOWN, b"$5\r\nvalue\r\n")],
    ],
    "mqtt": [
        [(UP, b"\x10\x11\0\4MQTT\4\2\0\x3c\0\5Bus41"), (DOWN, b"\x20\2\0\0")],
        [(UP, b"\x10\x10\0\6MQIsdp\3\2\0\x3c\0\2me"), (DOWN, b"\x20\2\0\5")],
    ],
    "amqp": [
        [(UP, b"AMQP\0\0\x09\1"), (DOWN, b"\1\0\0\0\0\1\xe5\0\x0a\0\x0a\0\x09")],
        [(UP, b"AMQP\2\1\0\0"), (DOWN, b"AMQP\2\1\0\0"), (UP, b"\x16\3\1")],
        [(UP, b"\1\0\1\0\0\0\x0a\0\x3c\0\x28\0\0\1a\0\0\xce\2\0\1"), (DOWN, b"\1\0\1")],
    ],
    "dns": [
        [
            (UP, b"\0\x19\x43\x19\1\x20\0\1\0\0\0\0\0\0\3www\3org\0\0\1\0\1"),
            (DOWN, b"\0\x19\x43\x19\x85\0\0\1\0\0\0\0\0\0\3www\3org\0\0\1\0\1"),
        ],
        [(UP, b"\0\x11\0\1\0\0\0\1\0\0\0\0\0\0\0\0\2\0\1"), (DOWN, b"\1\0\0\1\x80\0")],
    ],
    "kafka": [
        [(UP, b"\0\0\0\x0d\0\x12\0\0\0\0\0\1\0\3you"), (DOWN, b"\0\0\1\x5a\0\0\0\1\0\0")],
        [(UP, b"\0\0\0\x0a\0\x12\0\0\0\0\0\1\xff\xff"), (DOWN, b"\0\0\1\x5a\0\0\0\1\0\0")],
        [(UP, b"\0\0\0\x10\0\3\0\0\0\0\0\2\0\2me\0\0\0\0"), (DOWN, b"\0\0\0\x74\0\0\0\2")],
    ],
    "nats": [
        [(DOWN, b'INFO {"server_id":"N","port":4222}\r\n'), (UP, b'CONNECT {"lang":"go"}\r\n')],
    ],
    "memcached": [
        [(UP, b"get key\r\n"), (DOWN, b"VALUE key 0 1\r\na\r\nEND\r\n")],
        [(UP, b"stats\r\n"), (DOWN, b"STAT pid 1\r\n")],
        [(UP, b"\x80\0\0\3\0\0\0\0\0\0\0\3" + bytes(12) + b"key"), (DOWN, b"\x81\0\0\0")],
    ],
    "cassandra": [
        [(UP, b"\4\0\0\0\5\0\0\0\0"), (DOWN, b"\x84\0\0\0\6\0\0\0\x34")],
        [(UP, b"\3\0\0\0\5\0\0\0\0"), (DOWN, b"\x83\0\0\0\6\0\0\0\x34")],
        [(UP, b"\3\0\0\1\1\0\0\0\x16\0\1\0\x0bCQL_VERSION\0\x053.0.0"), (DOWN, b"\x83\0\0\1\2")],
    ],
}
HINTED = {"finger": 79, "whois": 43, "gopher": 70, "rexec": 512}
"""What is likely at a port, and never more: any text would do."""
TRACES = [(name, trace) for name, traces in OPENINGS.items() for trace in traces]
FINAL = (Verdict.MATCH, Verdict.REJECT)
DETECTORS = tuple(row for row in PROTOCOLS if row.detect is not None)


def joined(trace: Trace, direction: Direction) -> bytes:
    return b"".join(data for way, data in trace if way is direction)


def splits(trace: Trace) -> Iterator[Opening]:
    """Every opening that can be seen on the way: the client may be ahead of the server's answers,
    the server never ahead of what it answers to."""
    up = joined(trace, UP)
    caused, down = 0, b""
    for direction, data in [*trace, (DOWN, b"")]:
        if direction is UP:
            caused += len(data)
            continue
        for size in range(len(data) + 1):
            for ahead in range(caused, len(up) + 1):
                yield Opening(up=up[:ahead], down=down + data[:size])
        down += data
    for ahead in range(len(up) + 1):
        yield Opening(up=up[:ahead])


def verdict(row: Protocol, opening: Opening) -> Verdict:
    assert row.detect is not None
    return row.detect(opening)


def rows_for(up: bytes, down: bytes) -> list[Protocol]:
    """Those that detection asks: the first bytes hide no candidate, which another test holds."""

    def lets_through(firsts: Collection[int] | None, side: bytes) -> bool:
        return not side or firsts is None or side[0] in firsts

    return [
        row
        for row in DETECTORS
        if lets_through(row.client_first, up) and lets_through(row.server_first, down)
    ]


def row(name: str, answer: Verdict, *, terminates: bool = False, first: bytes = b"a") -> Protocol:
    return Protocol(name=name, detect=lambda _: answer, client_first=first, terminates=terminates)


def test_a_match_is_the_answer_whatever_else_is_possible() -> None:
    rows = [row("one", Verdict.LIKELY), row("two", Verdict.MATCH), row("three", Verdict.NEED_MORE)]
    detection = Registry(rows).detect(Opening(up=b"a"))
    assert detection.match is rows[1]
    assert not detection.undecided


def test_a_conclusive_match_needs_no_second_opinion() -> None:
    def never_asked(_: Opening) -> Verdict:
        raise AssertionError

    sure = Protocol(name="sure", detect=lambda _: Verdict.MATCH, conclusive=True)
    other = Protocol(name="other", detect=never_asked)
    registry = Registry([sure, other])
    registry._narrowed[b"a", ()] = (sure, other)
    assert registry.detect(Opening(up=b"a")).match is sure


def test_two_matches_contradict_each_other_and_are_no_answer() -> None:
    rows = [row("one", Verdict.MATCH), row("two", Verdict.MATCH)]
    detection = Registry(rows).detect(Opening(up=b"a"))
    assert detection.match is None
    assert not detection.undecided


def test_undecided_names_the_candidates_and_the_likely_one() -> None:
    rows = [row("one", Verdict.LIKELY), row("two", Verdict.NEED_MORE), row("no", Verdict.REJECT)]
    detection = Registry(rows).detect(Opening(up=b"a"))
    assert detection.undecided
    assert detection.candidates == (rows[0], rows[1])
    assert detection.likely is rows[0]


def test_two_likely_ones_are_none() -> None:
    rows = [row("one", Verdict.LIKELY), row("two", Verdict.LIKELY)]
    detection = Registry(rows).detect(Opening(up=b"a"))
    assert detection.undecided
    assert detection.likely is None


def test_a_candidate_that_terminates_holds_the_clients_bytes() -> None:
    rows = [row("tls", Verdict.NEED_MORE, terminates=True), row("other", Verdict.NEED_MORE)]
    assert Registry(rows).detect(Opening(up=b"a")).terminating
    assert not Registry(rows[1:]).detect(Opening(up=b"a")).terminating


def test_only_rows_that_can_begin_so_are_asked() -> None:
    def explode(_: Opening) -> Verdict:
        raise AssertionError

    rows = [
        Protocol(name="c", detect=explode, client_first=b"c", server_first=b""),
        Protocol(name="s", detect=explode, client_first=b"c", server_first=b"s"),
        Protocol(name="never", detect=None),
    ]
    registry = Registry(rows)
    assert not registry.detect(Opening(up=b"x")).undecided
    assert not registry.detect(Opening(up=b"x", down=b"s")).undecided
    assert registry.detect(Opening(down=b"x")).undecided
    with pytest.raises(AssertionError):
        registry.detect(Opening(down=b"s"))


def test_a_server_that_speaks_first_rules_nothing_out_while_the_client_is_silent() -> None:
    registry = Registry([row("no", Verdict.REJECT)])
    assert registry.detect(Opening(down=b"hello")).undecided
    assert not registry.detect(Opening(down=b"hello", up_ended=True)).undecided
    assert not registry.detect(Opening(down=b"x" * MAX_OPENING)).undecided


def test_an_opening_that_stays_unclear_too_long_is_what_is_likely() -> None:
    registry = Registry([row("likely", Verdict.LIKELY)])
    half = MAX_OPENING // 2
    assert registry.detect(Opening(up=b"a" * half, down=b"a" * (half - 1))).undecided
    detection = registry.detect(Opening(up=b"a" * half, down=b"a" * half))
    assert not detection.undecided
    assert detection.likely is registry.rows[0]


def test_before_the_first_byte_everything_is_possible() -> None:
    assert set(detect(Opening()).candidates) == set(DETECTORS)


def test_names_are_unique_and_found() -> None:
    reversed_tls = PROTOCOLS[-1]
    rows = PROTOCOLS[:-1]
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert by_name(row.name) is row
    assert by_name(reversed_tls.name) is PROTOCOLS[0]
    assert by_name("no-such-protocol") is None


def test_every_row_that_detects_has_an_opening() -> None:
    assert set(OPENINGS) == {row.name for row in DETECTORS}


def test_an_opening_is_known_for_what_it_is() -> None:
    for name, trace in TRACES:
        port = HINTED.get(name)
        detection = detect(Opening(up=joined(trace, UP), down=joined(trace, DOWN), port=port))
        found = detection.likely if port else detection.match
        assert found is not None, name
        assert found.name == name


def test_no_split_of_an_opening_gives_another_answer() -> None:
    for name, trace in TRACES:
        for opening in splits(trace):
            detection = detect(replace(opening, port=HINTED.get(name)))
            if detection.match:
                assert detection.match.name == name, opening
            else:
                assert name in [row.name for row in detection.candidates], opening


def test_a_verdict_never_flips_as_bytes_grow() -> None:
    for name, trace in TRACES:
        openings = list(splits(trace))
        for row in rows_for(joined(trace, UP), joined(trace, DOWN)):
            verdicts = {
                (len(opening.up), len(opening.down)): verdict(row, opening) for opening in openings
            }
            assert list(flips(verdicts)) == [], (row.name, name)


def flips(verdicts: dict[tuple[int, int], Verdict]) -> Iterator[tuple[int, int]]:
    """Where a final verdict became another one with the next byte of either side."""
    for (up, down), said in verdicts.items():
        for grown in ((up + 1, down), (up, down + 1)):
            if said in FINAL and verdicts.get(grown, said) is not said:
                yield grown


WAITED_FOR = {"nats"}
"""Whose greeting is a proof, and has to be one before the client answers it with TLS."""


def test_nothing_is_certain_of_a_server_while_the_client_is_silent() -> None:
    for side in {side for example in EXAMPLES for side in example}:
        rows = [row for row in rows_for(b"", side) if row.name not in WAITED_FOR]
        for size in range(len(side) + 1):
            opening = Opening(down=side[:size])
            matches = [row.name for row in rows if verdict(row, opening) is Verdict.MATCH]
            assert matches == [], side[:size]


EXAMPLES = [(joined(trace, UP), joined(trace, DOWN)) for _, trace in TRACES]
NOISE = st.tuples(st.binary(max_size=80), st.binary(max_size=80))


@st.composite
def mutants(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """An example's first bytes, cut anywhere, with a few bytes changed, perhaps half of another."""
    up, down = (bytearray(side) for side in draw(st.sampled_from(EXAMPLES)))
    if draw(st.booleans()):
        down = bytearray(draw(st.sampled_from(EXAMPLES))[1])
    sides = []
    for side in (up, down):
        del side[draw(st.integers(0, len(side))) :]
        for _ in range(draw(st.integers(0, 3)) if side else 0):
            side[draw(st.integers(0, len(side) - 1))] = draw(st.integers(0, 255))
        sides.append(bytes(side) + draw(st.binary(max_size=8)))
    return sides[0], sides[1]


WITHIN = st.sampled_from([(), *((row.name, "tls") for row in DETECTORS if row.converse)])
PORTS = st.sampled_from([None, 21, 25, 110, 119, 1935, 6379, 6667])


@given(sides=NOISE | mutants(), within=WITHIN, port=PORTS, ended=st.booleans())
def test_two_rows_never_match_the_same_bytes(
    sides: tuple[bytes, bytes], within: tuple[str, ...], port: int | None, ended: bool
) -> None:
    up, down = sides
    opening = Opening(up=up, down=down, up_ended=ended, stack=within, port=port)
    rows = Registry(PROTOCOLS).possible(DETECTORS, within)
    matches = [row.name for row in rows if verdict(row, opening) is Verdict.MATCH]
    assert len(matches) < 2, matches


def test_behind_starttls_only_the_protocol_that_asked_for_it_goes_on() -> None:
    for row in PROTOCOLS:
        names = {other.name for other in PROTOCOLS if other.starttls}
        inside = Registry(PROTOCOLS).possible(PROTOCOLS, ("socks5", row.name, "tls"))
        left = names & {other.name for other in inside}
        assert left == ({row.name} if row.starttls else names)
    for within in ((), ("tls",), ("smtp",), ("smtp", "tls", "http/1")):
        assert Registry(PROTOCOLS).possible(PROTOCOLS, within) == PROTOCOLS
    answer = Opening(up=b"QUIT\r\n", down=b":a 001 b :Welcome\r\n", stack=("smtp", "tls"))
    assert Registry(PROTOCOLS).detect(answer).match is by_name("smtp")


def test_a_row_says_whether_its_conversation_may_turn_into_tls() -> None:
    for row in PROTOCOLS:
        lines = row.converse is not None and isinstance(row.converse(LayerContext()), StartTLS)
        assert row.starttls is lines, row.name


@given(sides=mutants(), within=WITHIN, port=PORTS, data=st.data())
def test_no_verdict_of_a_mutant_flips_as_it_grows(
    sides: tuple[bytes, bytes], within: tuple[str, ...], port: int | None, data: st.DataObject
) -> None:
    up, down = sides
    grown = Opening(up=up, down=down, stack=within, port=port)
    up_size = data.draw(st.integers(0, len(up)))
    down_size = data.draw(st.integers(0, len(down)))
    prefix_pattern = replace(grown, up=up[:up_size], down=down[:down_size])
    for row in DETECTORS:
        said = verdict(row, prefix_pattern)
        if said in FINAL:
            assert verdict(row, grown) is said, row.name


STRANGERS = [
    (b"SOURCE /a ICE/1.0\r\n\r\n", b""),
    (b"GET foo\r\n", b""),
    (b"HEAD\r\n", b""),
    (b"NICK x\r\n", b"220 hello\r\n"),
    (b"USER x\r\n", b""),
    (b"AUTH LOGIN\r\n", b""),
    (b"QUIT\r\n", b"220 hello\r\n"),
    (b"QUIT\r\n", b"+OK\r\n"),
    (b"HELP\r\n", b"200 hello\r\n"),
    (b"OPTIONS * \r\n", b""),
    (b"CONNECT\r\n", b""),
    (b"STOMP the yard\n", b""),
    (b"RFB and others\n", b""),
    (b"<stream:stream>", b""),
    (b"\3\0\0\0\0\0\0\0\0", b""),
    (b"\xff\xfb\1 hello", b"\xff\xfd\1"),
    (b"0014hello, world\n", b""),
]


def test_what_only_looks_like_a_protocol_matches_none() -> None:
    for up, down in STRANGERS:
        assert detect(Opening(up=up, down=down)).match is None


NEIGHBOURS = {
    "dict": (b"SHOW DB\r\n", b"220 dict.example dictd 1.12 <auth.mime> <1.2.3@dict.example>\r\n"),
    "poppassd": (b"USER me\r\n", b"200 poppassd v1.8 hello, who are you?\r\n"),
    "hylafax, leaving": (b"QUIT\r\n", b"220 fax.example server (HylaFAX 6.0.7) ready.\r\n"),
    "beanstalkd": (b"stats\r\n", b"OK 900\r\n---\n"),
    "gearman": (b"version\r\n", b"OK 1.1.19\r\n"),
    "clamd": (b"PING\r\n", b"PONG\r\n"),
    "spamd": (b"PROCESS SPAMC/1.5\r\n", b"SPAMD/1.1 0 EX_OK\r\n"),
    "mpd": (b"status\n", b"OK MPD 0.23.5\n"),
    "tor's control": (b"AUTHENTICATE\r\n", b"250 OK\r\n"),
    "graphite": (b"a.b.c 1.5 1700000000\n", b""),
    "numbers": (b"1,2\n3,4\n", b""),
    "gopher": (b"/a\r\n", b"iHello\tfake\t(NULL)\t0\r\n"),
    "json": (b'{"id":1,"method":"a"}\n', b'{"id":1,"result":null}\n'),
    "of nobody's": (b"COUNT\r\n", b"+OK 5 items\r\n"),
    "of nobody's, refused": (b"LIST\r\n", b"ERROR what?\r\n"),
    "a list": (b"( hello )\n", b"( success ( 1 ) )\n"),
    "xml": (b"<?xml version='1.0'?><message to='tom'/>", b"<ok/>"),
}


def test_neighbours_without_a_row_are_not_even_likely() -> None:
    for name in NEIGHBOURS:
        up, down = NEIGHBOURS[name]
        for ended in (False, True):
            detection = detect(Opening(up=up, down=down, up_ended=ended, down_ended=ended, port=9))
            assert (detection.match, detection.likely) == (None, None)


def test_no_words_with_anothers_answer_match_two_rows() -> None:
    ups, downs = ({each[side] for each in EXAMPLES} for side in (0, 1))
    for up, down in product(ups, downs):
        opening = Opening(up=up, down=down)
        matches = [row.name for row in rows_for(up, down) if verdict(row, opening) is Verdict.MATCH]
        assert len(matches) < 2, (opening, matches)


@given(sides=NOISE | mutants())
def test_the_first_byte_table_hides_no_candidate(sides: tuple[bytes, bytes]) -> None:
    up, down = sides
    hidden = (Verdict.MATCH, Verdict.LIKELY)
    for row in DETECTORS:
        if up and row.client_first is not None and up[0] not in row.client_first:
            assert verdict(row, Opening(up=up, down=down)) not in hidden, row.name
        if down and row.server_first is not None and down[0] not in row.server_first:
            assert verdict(row, Opening(down=down)) not in hidden, row.name


@given(sides=NOISE | mutants())
def test_a_clients_growing_bytes_never_flip_a_verdict(sides: tuple[bytes, bytes]) -> None:
    up, down = sides
    for row in DETECTORS:
        said = None
        for size in range(1, len(up) + 1):
            now = verdict(row, Opening(up=up[:size], down=down))
            assert said in (None, now), (row.name, size)
            said = now if now in FINAL else None


@given(sides=NOISE | mutants())
def test_a_servers_growing_bytes_never_flip_a_verdict(sides: tuple[bytes, bytes]) -> None:
    up, down = sides
    for row in DETECTORS:
        said = None
        for size in range(1, len(down) + 1):
            now = verdict(row, Opening(up=up, down=down[:size]))
            assert said in (None, now), (row.name, size)
            said = now if now in FINAL else None


@given(
    sides=NOISE | mutants(),
    ended=st.tuples(st.booleans(), st.booleans()),
    port=st.sampled_from((None, 43, 79, 113, 443, 1935)),
)
def test_who_rejects_how_a_client_begins_rejects_whatever_follows(
    sides: tuple[bytes, bytes], ended: tuple[bool, bool], port: int | None
) -> None:
    up, down = sides
    whole = Opening(up=up, down=down, up_ended=ended[0], down_ended=ended[1], port=port)
    for row in DETECTORS:
        if up and verdict(row, Opening(up=up[:BEGINNING])) is Verdict.REJECT:
            assert verdict(row, whole) is Verdict.REJECT, row.name


def test_who_rejects_how_a_client_begins_is_not_asked_again() -> None:
    asked = []

    def never(opening: Opening) -> Verdict:
        asked.append(opening.up)
        return Verdict.REJECT

    registry = Registry([Protocol(name="never", detect=never)])
    for up in (b"beginning 1", b"beginning 2", b"begin"):
        assert not registry.detect(Opening(up=up)).undecided
    assert asked == [b"beginn", b"begin"]
