"""TLS: detection by its first bytes, and handshakes of OpenSSL's followed without opening them."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import FORWARD_ALL, Direction, Opening, Verdict
from mitml4.protocols.tls.hello import ClientHello
from mitml4.protocols.tls.protocol import PROTOCOL, TlsConversation, TlsDetails, detect

Script = list[tuple[Direction, bytes]]

GROUP = "X25519MLKEM768" if ssl.OPENSSL_VERSION_INFO >= (3, 5) else "x25519"
"""What OpenSSL agrees on in TLS 1.3 by default."""

CLIENT_START = b"\x16\x03\x01\x02\x00\x01"
SERVER_START = b"\x16\x03\x03\x00\x7a\x02"
DATA_START = b"\x17\x03\x03\x00\x12\x00"
CCS = b"\x14\x03\x03\x00\x01\x01"
ALERT = b"\x15\x03\x03\x00\x02\x02\x32"
CERTIFICATE_START = bytes.fromhex("1603030feb0b000fe7000fe4")
SSLV2_START = bytes.fromhex("802e0103010015000000100100")
MATCH, LIKELY, NEED_MORE, REJECT = (
    Verdict.MATCH,
    Verdict.LIKELY,
    Verdict.NEED_MORE,
    Verdict.REJECT,
)


def test_the_first_bytes_decide() -> None:
    for opening, verdict in (
        (Opening(), NEED_MORE),
        (Opening(up=CLIENT_START), MATCH),
        (Opening(up=CLIENT_START + b"anything"), MATCH),
        (Opening(up=b"\x16\x03\x01\x00\x01\x01\x16\x03\x01\x00\x01\x00"), MATCH),
        (Opening(up=CLIENT_START, down=b"HTTP/1.1 400 Bad Request"), MATCH),
        (Opening(up=SERVER_START), LIKELY),
        (Opening(up=SERVER_START, down=CLIENT_START), MATCH),
        (Opening(up=SERVER_START, down=b"\0\1\2" + CLIENT_START), REJECT),
        (Opening(up=SSLV2_START), MATCH),
        (Opening(down=CLIENT_START), LIKELY),
        (Opening(down=SERVER_START, up_ended=True), LIKELY),
        (Opening(down=b"SSH-2.0-x\r\n"), NEED_MORE),
        (Opening(up=b"GET / ", down=CLIENT_START), REJECT),
        (Opening(up=b"\x16\x03\x05"), REJECT),
        (Opening(up=b"\x16\x03\x01\x00\x00"), NEED_MORE),
        (Opening(up=b"\x16\x03\x01\x00\x00" + CLIENT_START), MATCH),
        (Opening(up=b"\x16\x03\x01\x00\x00" * 33 + CLIENT_START), REJECT),
        (Opening(up=b"\x16\x03\x01\x00\x00GET /"), REJECT),
        (Opening(up=b"\x16\x03\x01\x49"), REJECT),
        (Opening(up=b"\x16\x03\x01\x00\x0f\x0b"), REJECT),
        (Opening(up=CERTIFICATE_START), LIKELY),
        (Opening(up=b"\x16\x03\x04\x04\x00\x04"), REJECT),
        (Opening(up=CERTIFICATE_START + bytes(4068) + b"\x16\x03\x03"), MATCH),
        (Opening(up=CERTIFICATE_START + bytes(4068) + b"\x16\x03\x00"), REJECT),
        (Opening(up=CCS), MATCH),
        (Opening(up=CCS[:5]), NEED_MORE),
        (Opening(up=CCS[:5] + b"\2"), REJECT),
        (Opening(down=CCS), LIKELY),
        (Opening(up=ALERT), MATCH),
        (Opening(up=ALERT[:6]), NEED_MORE),
        (Opening(up=ALERT[:6] + b"\x33"), MATCH),
        (Opening(up=ALERT[:6] + b"\x34"), REJECT),
        (Opening(up=ALERT[:5] + b"\3"), REJECT),
        (Opening(down=ALERT), LIKELY),
        (Opening(up=b"\x16\x02"), REJECT),
        (Opening(up=b"\x80\x2e\x02"), REJECT),
        (Opening(up=SSLV2_START[:6] + b"\x14" + SSLV2_START[7:]), REJECT),
        (Opening(up=CLIENT_START[:5], up_ended=True), REJECT),
        (Opening(up=DATA_START), LIKELY),
        (Opening(up=DATA_START + bytes(17) + b"\x15\x03\x03"), MATCH),
        (Opening(up=DATA_START + bytes(17) + b"\x17\x03\x01"), REJECT),
        (Opening(up=b"\x17\x03"), NEED_MORE),
        (Opening(up=b"\x17\x04"), REJECT),
        (Opening(up=b"\x17\x03\x03\x00\x0f\x00"), REJECT),
        (Opening(down=DATA_START), LIKELY),
        (Opening(up_ended=True, down_ended=True), REJECT),
    ):
        assert detect(opening) is verdict


@given(
    st.binary(max_size=40),
    st.sampled_from(
        [b"", CLIENT_START, SERVER_START, SSLV2_START, DATA_START, CCS, ALERT, CERTIFICATE_START]
    ),
)
def test_a_verdict_never_flips_as_bytes_grow(tail: bytes, head: bytes) -> None:
    verdicts = [detect(Opening(up=(head + tail)[:n])) for n in range(len(head + tail) + 1)]
    certainty = [NEED_MORE, LIKELY, verdicts[-1]]
    assert verdicts == sorted(verdicts, key=certainty.index)


def test_first_bytes_of_the_registry_row_hold_for_what_matches() -> None:
    assert PROTOCOL.client_first is not None
    starts = (CLIENT_START, SERVER_START, DATA_START, CCS, ALERT, SSLV2_START)
    assert {start[0] for start in starts} <= set(PROTOCOL.client_first)
    assert PROTOCOL.server_first is not None
    assert {start[0] for start in starts[:5]} <= set(PROTOCOL.server_first)


@pytest.fixture(scope="module")
def contexts() -> Callable[..., tuple[ssl.SSLContext, ssl.SSLContext]]:
    authority = trustme.CA()
    leaf = authority.issue_cert("example.org", "192.0.2.1", common_name="example.org")

    def make(version: ssl.TLSVersion) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        client, server = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.configure_trust(client)
        leaf.configure_cert(server)
        client.maximum_version = client.minimum_version = version
        for context in (client, server):
            context.set_alpn_protocols(["h2", "http/1.1"])
        return client, server

    return make


def handshake(
    client: ssl.SSLContext, server: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[Script, ssl.SSLObject, ssl.SSLObject]:
    """What moves between two ends until both are ready and one message has been answered."""
    pipes = {direction: ssl.MemoryBIO() for direction in Direction}
    near = client.wrap_bio(
        pipes[Direction.DOWN], pipes[Direction.UP], server_hostname="example.org", session=session
    )
    far = server.wrap_bio(pipes[Direction.UP], pipes[Direction.DOWN], server_side=True)
    script: Script = []
    turns: list[tuple[Direction, Any]] = [
        (Direction.UP, near.do_handshake),
        (Direction.DOWN, far.do_handshake),
        (Direction.UP, near.do_handshake),
        (Direction.DOWN, far.do_handshake),
        (Direction.UP, near.do_handshake),
        (Direction.UP, lambda: near.write(b"ping")),
        (Direction.DOWN, lambda: far.write(far.read(4))),
        (Direction.DOWN, lambda: near.read(4)),
    ]
    for direction, turn in turns:
        try:
            turn()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            turns.clear()
        if data := pipes[direction].read():
            script.append((direction, data))
            pipes[direction].write(data)
    return script, near, far


@pytest.mark.parametrize("chunk", [None, 1, 5])
def test_a_tls13_handshake_is_followed(contexts: Any, converse: Any, chunk: int | None) -> None:
    script, near, _ = handshake(*contexts(ssl.TLSVersion.TLSv1_3))
    conversation = TlsConversation()
    talk = converse(conversation, script, chunk=chunk)
    details = conversation.details()
    assert conversation.details_ready
    assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
    assert not any(talk.kept.values())
    assert (details.sni, details.alpn_offered) == ("example.org", (b"h2", b"http/1.1"))
    assert details.version == near.version() == "TLSv1.3"
    assert details.cipher == (near.cipher() or [None])[0]
    assert (details.group, details.resumed, details.certificate) == (GROUP, False, None)
    assert details.version_offered == ("TLSv1.3",)


@pytest.mark.parametrize("chunk", [None, 1, 5])
def test_a_tls12_handshake_shows_its_certificate(
    contexts: Any, converse: Any, chunk: int | None
) -> None:
    script, near, _ = handshake(*contexts(ssl.TLSVersion.TLSv1_2))
    conversation = TlsConversation()
    converse(conversation, script, chunk=chunk)
    details = conversation.details()
    assert conversation.details_ready
    assert details.version == near.version() == "TLSv1.2"
    assert details.cipher == (near.cipher() or [None])[0]
    assert (details.alpn, details.group, details.resumed) == (b"h2", "x25519", False)
    assert details.certificate is not None
    assert details.certificate.san == ("example.org", "192.0.2.1")
    assert "CN=example.org" in details.certificate.subject
    assert details.certificate.key == "EC P-256"
    assert details.certificate.verify is None


def test_a_resumed_tls12_session_is_told_by_the_missing_certificate(
    contexts: Any, converse: Any
) -> None:
    client, server = contexts(ssl.TLSVersion.TLSv1_2)
    _, near, _ = handshake(client, server)
    script, again, _ = handshake(client, server, near.session)
    assert again.session_reused
    conversation = TlsConversation()
    converse(conversation, script)
    assert conversation.details_ready
    assert (conversation.details().resumed, conversation.details().certificate) == (True, None)


def test_a_resumed_tls13_session_is_told_by_the_chosen_key(contexts: Any, converse: Any) -> None:
    client, server = contexts(ssl.TLSVersion.TLSv1_3)
    _, near, _ = handshake(client, server)
    script, again, _ = handshake(client, server, near.session)
    assert again.session_reused
    conversation = TlsConversation()
    converse(conversation, script)
    assert conversation.details().resumed


def test_a_hello_retry_request_is_not_the_answer(contexts: Any, converse: Any) -> None:
    client, server = contexts(ssl.TLSVersion.TLSv1_3)
    server.set_ecdh_curve("secp384r1")
    script, _, _ = handshake(client, server)
    assert [direction for direction, _ in script[:4]] == [Direction.UP, Direction.DOWN] * 2
    conversation = TlsConversation()
    converse(conversation, script[:2])
    assert not conversation.details_ready
    converse(conversation, script[2:])
    assert conversation.details_ready
    assert conversation.details().group == "secp384r1"


@pytest.mark.parametrize("chunk", [None, 1])
def test_an_alert_in_the_clear_is_named(contexts: Any, converse: Any, chunk: int | None) -> None:
    client, server = contexts(ssl.TLSVersion.TLSv1_2)
    server.minimum_version = ssl.TLSVersion.TLSv1_3
    script, _, _ = handshake(client, server)
    conversation = TlsConversation()
    converse(conversation, script, chunk=chunk)
    assert conversation.details_ready
    assert conversation.details().alert == "server: protocol_version"


def test_a_middle_without_hellos_excludes_inner_and_says_nothing(converse: Any) -> None:
    conversation = TlsConversation()
    converse(conversation, [(Direction.UP, DATA_START + bytes(17))])
    assert conversation.details_ready
    assert conversation.details() == TlsDetails()


@pytest.mark.parametrize("chunk", [None, 1])
def test_an_encrypted_message_in_the_middle_is_none_that_is_broken(
    converse: Any, chunk: int | None
) -> None:
    conversation = TlsConversation()
    finished = b"\x16\x03\x03\x00\x28" + bytes(range(100, 140))
    converse(conversation, [(Direction.UP, finished + DATA_START + bytes(17))], chunk=chunk)
    assert conversation.details_ready
    assert conversation.details() == TlsDetails()


def test_an_alert_without_hellos_is_named(converse: Any) -> None:
    conversation = TlsConversation()
    converse(conversation, [(Direction.DOWN, ALERT)])
    assert conversation.details() == TlsDetails(alert="server: decode_error")


def test_an_sslv2_hello_has_no_fingerprint() -> None:
    hello = ClientHello(legacy_version=0x0303, random=b"", cipher_suites=(0x2F,), sslv2=True)
    details = TlsDetails.of(hello)
    assert details.version_offered == ("TLSv1.2",)
    assert (details.ja3, details.ja4) == (None, None)


def test_why_it_was_not_opened_is_said_of_what_is_no_hello_too() -> None:
    conversation = TlsConversation(passthrough="not openable")
    with pytest.raises(ProtocolError):
        conversation.feed(Direction.UP, b"\x16\x03\x01\x00\x08\x01\x00\x00\x04junk")
    assert conversation.details().passthrough == "not openable"


def test_reversed_roles_give_the_same_details(contexts: Any, converse: Any) -> None:
    script, _, _ = handshake(*contexts(ssl.TLSVersion.TLSv1_2))
    straight, reversed_ = TlsConversation(), TlsConversation()
    converse(straight, script)
    converse(reversed_, [(direction.other, data) for direction, data in script])
    assert reversed_.details() == straight.details()


def test_an_answer_that_is_no_tls_is_a_protocol_error(contexts: Any, converse: Any) -> None:
    script, _, _ = handshake(*contexts(ssl.TLSVersion.TLSv1_3))
    with pytest.raises(ProtocolError):
        converse(TlsConversation(), [script[0], (Direction.DOWN, b"HTTP/1.1 400 Bad Request\r\n")])


def test_a_leaf_that_is_no_certificate_stays_unknown(converse: Any) -> None:
    body = b"\0\0\x08\0\0\x05trash"
    message = b"\x0b" + len(body).to_bytes(3, "big") + body
    conversation = TlsConversation()
    converse(
        conversation,
        [(Direction.DOWN, b"\x16\x03\x03" + len(message).to_bytes(2, "big") + message)],
    )
    assert conversation.details() == TlsDetails(resumed=False)


def test_mutated_handshakes_raise_nothing_but_protocol_errors(contexts: Any) -> None:
    script, _, _ = handshake(*contexts(ssl.TLSVersion.TLSv1_2))

    @given(st.data())
    def mutate(data: st.DataObject) -> None:
        conversation = TlsConversation()
        for direction, sent in script:
            broken = bytearray(sent)
            for _ in range(data.draw(st.integers(0, 3))):
                at = data.draw(st.integers(0, len(broken) - 1))
                broken[at] = data.draw(st.integers(0, 255))
            if conversation.directive(direction) is FORWARD_ALL:
                continue
            try:
                conversation.feed(direction, bytes(broken))
            except ProtocolError:
                return

    mutate()
