"""What servers say inside TLS of logins that are bound to it."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.protocols.conversation import SWITCH, Conversation, Direction, LayerContext
from mitml4.protocols.imap import Imap
from mitml4.protocols.irc import Irc
from mitml4.protocols.ldap import Ldap
from mitml4.protocols.managesieve import ManageSieve
from mitml4.protocols.nntp import Nntp
from mitml4.protocols.parts.sasl import binds_channel
from mitml4.protocols.pop3 import Pop3
from mitml4.protocols.postgresql import Postgresql
from mitml4.protocols.rdp import Rdp
from mitml4.protocols.smtp import Smtp
from mitml4.protocols.xmpp import Xmpp

UP, DOWN = Direction.UP, Direction.DOWN
PLUS = b"SCRAM-SHA-256-PLUS"


def test_mechanisms_that_bind_are_known_by_their_names() -> None:
    for offer, binds in (
        (PLUS, True),
        (b"AUTH=SCRAM-SHA-1-PLUS", True),
        (b"250-AUTH PLAIN SCRAM-SHA-512-PLUS LOGIN", True),
        (b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0", True),
        (b'"SASL" "scram-sha3-512-plus"', True),
        (b"GS2-KRB5-PLUS", True),
        (b"HT-SHA-256-ENDP", True),
        (b"HT-SHA-256-NONE", False),
        (b"SCRAM-SHA-256 PLAIN LOGIN", False),
        (b"SCRAM-SHA-256-PLUSH", False),
        (b"-PLUS", False),
        (b"a text that is 3-plus-x long", False),
    ):
        assert binds_channel(offer) is binds


def pg(kind: bytes, body: bytes) -> tuple[Direction, bytes]:
    return DOWN, kind + (len(body) + 4).to_bytes(4, "big") + body


def ber(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    length = bytes([len(body)]) if len(body) < 128 else b"\x82" + len(body).to_bytes(2, "big")
    return bytes([tag]) + length + body


def ldap(number: int, operation: bytes) -> bytes:
    return ber(0x30, ber(2, bytes([number])), operation)


def root(*mechanisms: bytes) -> bytes:
    """The root's entry, with its supportedSASLMechanisms."""
    values = ber(0x31, *(ber(4, each) for each in mechanisms))
    attribute = ber(0x30, ber(4, b"supportedSASLMechanisms"), values)
    return ldap(1, ber(0x64, ber(4), ber(0x30, attribute)))


def bind(dn: bytes, authentication: bytes) -> bytes:
    return ldap(2, ber(0x60, b"\2\1\3", ber(4, dn), authentication))


STARTUP = b"\0\0\0\x11\0\3\0\0user\0me\0\0"
SEARCH = ldap(1, ber(0x63, b"\4\0\x0a\1\0\x0a\1\0\2\1\0\2\1\0\1\1\0", ber(0x87, b"x"), ber(0x30)))
FEATURES = b"<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>"
STREAM = b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' to='x'>"

CASES: dict[str, tuple[type[Conversation], list[tuple[Direction, bytes]], list[Any]]] = {
    # protocol: up to the offer, and the login that succeeds
    "postgresql": (
        Postgresql,
        [(UP, STARTUP), pg(b"R", b"\0\0\0\x0a" + PLUS + b"\0SCRAM-SHA-256\0\0")],
        [pg(b"R", b"\0\0\0\x0bserver-first"), pg(b"R", b"\0\0\0\x0cfinal"), pg(b"R", bytes(4))],
    ),
    "imap, greeting": (
        Imap,
        [(DOWN, b"* OK [CAPABILITY IMAP4rev1 AUTH=" + PLUS + b"] ready\r\n")],
        [(UP, b"a LOGIN me secret\r\n"), (DOWN, b"a OK [CAPABILITY IMAP4rev1] hello\r\n")],
    ),
    "imap, command": (
        Imap,
        [
            (DOWN, b"* OK ready\r\n"),
            (UP, b"a CAPABILITY\r\n"),
            (DOWN, b"* CAPABILITY IMAP4rev1 AUTH=PLAIN AUTH=" + PLUS + b"\r\na OK done\r\n"),
        ],
        [(UP, b"b AUTHENTICATE PLAIN AGEAYg==\r\n"), (DOWN, b"b OK hello\r\n")],
    ),
    "pop3": (
        Pop3,
        [
            (DOWN, b"+OK POP3 ready\r\n"),
            (UP, b"CAPA\r\n"),
            (DOWN, b"+OK\r\nUIDL\r\nSASL PLAIN " + PLUS + b"\r\n.\r\n"),
        ],
        [
            (UP, b"USER me\r\n"),
            (DOWN, b"+OK\r\n"),
            (UP, b"PASS secret\r\n"),
            (DOWN, b"+OK hello\r\n"),
        ],
    ),
    "smtp": (
        Smtp,
        [
            (DOWN, b"220 mx ESMTP\r\n"),
            (UP, b"EHLO me\r\n"),
            (DOWN, b"250-mx\r\n250-AUTH PLAIN " + PLUS + b"\r\n250 SIZE\r\n"),
        ],
        [
            (UP, b"AUTH LOGIN\r\n"),
            (DOWN, b"334 VXNlcm5hbWU6\r\n"),
            (UP, b"STARTTLS\r\n"),  # good base64, and a user's name
            (DOWN, b"334 UGFzc3dvcmQ6\r\n"),
            (UP, b"c2VjcmV0\r\n"),
            (DOWN, b"235 hello\r\n"),
        ],
    ),
    "nntp": (
        Nntp,
        [
            (DOWN, b"200 NNTP ready\r\n"),
            (UP, b"CAPABILITIES\r\n"),
            (DOWN, b"101 list:\r\nVERSION 2\r\nSASL PLAIN " + PLUS + b"\r\n.\r\n"),
        ],
        [(UP, b"AUTHINFO SASL PLAIN AGEAYg==\r\n"), (DOWN, b"281 hello\r\n")],
    ),
    "managesieve": (
        ManageSieve,
        [(DOWN, b'"IMPLEMENTATION" "x"\r\n"SASL" "PLAIN ' + PLUS + b'"\r\nOK\r\n')],
        [(UP, b'AUTHENTICATE "PLAIN" "AGEAYg=="\r\n'), (DOWN, b"OK\r\n")],
    ),
    "irc": (
        Irc,
        [(UP, b"CAP LS 302\r\n"), (DOWN, b":irc CAP * LS :sasl=PLAIN,SCRAM-SHA-512-PLUS\r\n")],
        [(UP, b"NICK me\r\n"), (DOWN, b":irc 001 me :Welcome\r\n")],
    ),
    "xmpp": (
        Xmpp,
        [
            (UP, STREAM),
            (DOWN, STREAM + FEATURES),
            (DOWN, b"<mechanism>PLAIN</mechanism><mechanism>\n  SCRAM-SHA-1-PLUS</mechanism>"),
        ],
        [
            (DOWN, b"</mechanisms></stream:features>"),
            (UP, b"<auth mechanism='PLAIN'>AGEAYg==</auth>"),
            (DOWN, b"<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"),
        ],
    ),
    "ldap": (
        Ldap,
        [(UP, SEARCH), (DOWN, root(b"EXTERNAL", PLUS))],
        [
            (UP, bind(b"", ber(0xA3, ber(4, b"SCRAM-SHA-256"), ber(4, b"n,,")))),
            (DOWN, ldap(2, ber(0x61, b"\x0a\1\x0e", ber(4), ber(4)))),  # more is to come
            (UP, bind(b"", ber(0xA3, ber(4, b"SCRAM-SHA-256"), ber(4, b"c=biws")))),
            (DOWN, ldap(2, ber(0x61, b"\x0a\1\0", ber(4), ber(4)))),
        ],
    ),
}


def test_an_offer_is_learned_and_a_login_takes_it_back(converse: Any) -> None:
    inside = LayerContext(secure=True, stack=("tls",))
    for kind, offer, login in CASES.values():
        for chunk in (None, 1):
            first, second, third, fourth = (kind(context=inside) for _ in range(4))
            converse(first, offer, chunk=chunk)
            assert first.channel_binding is True
            converse(second, [*offer, *login[:-1]], chunk=chunk)
            assert second.channel_binding is True
            talk = converse(third, [*offer, *login], chunk=chunk)
            assert third.channel_binding is False
            assert not any(talk.kept.values())
            bare = [(side, data.replace(b"-PLUS", b"-NONE")) for side, data in offer]
            converse(fourth, bare, chunk=chunk)
            assert fourth.channel_binding is None


@pytest.mark.parametrize(
    ("kind", "script"),
    [
        (Smtp, [(DOWN, b"220 mx ESMTP\r\n"), (UP, b"HELP\r\n"), (DOWN, b"214 " + PLUS + b"\r\n")]),
        (Imap, [(DOWN, b"* OK " + PLUS + b"\r\n")]),
        (Xmpp, [(UP, STREAM), (DOWN, STREAM + b"<message><body>" + PLUS + b"</body></message>")]),
        (Ldap, [(UP, SEARCH), (DOWN, ldap(1, ber(0x64, ber(4, b"cn=x"), ber(0x30, PLUS))))]),
        (Ldap, [(UP, SEARCH), (DOWN, root(b"PLAIN"))]),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_name_elsewhere_is_no_offer(converse: Any, kind: Any, script: Any) -> None:
    conversation = kind(context=LayerContext(secure=True, stack=("tls",)))
    converse(conversation, script)
    assert conversation.channel_binding is None


@pytest.mark.parametrize(
    ("chosen", "why"), [(1, None), (2, "channel binding"), (4, None), (8, "channel binding")]
)
def test_rdp_says_before_its_tls_whether_the_login_proves_the_servers_key(
    converse: Any, chosen: int, why: str | None
) -> None:
    def tpkt(code: bytes, kind: int, value: int) -> bytes:
        body = code + bytes(5) + bytes([kind, 0, 8, 0]) + value.to_bytes(4, "little")
        return b"\3\0" + (len(body) + 5).to_bytes(2, "big") + bytes([len(body)]) + body

    conversation = Rdp()
    converse(conversation, [(UP, tpkt(b"\xe0", 1, 0xB)), (DOWN, tpkt(b"\xd0", 2, chosen))])
    assert conversation.up is SWITCH
    assert conversation.passthrough_reason == why
