"""Servers that violate TLS 1.3: a client gets through mitml4 what it gets directly."""

from __future__ import annotations

import socket
import ssl
from functools import partial

import trio

from mitml4.protocols.tls.hello import Extension
from mitml4.protocols.tls.records import HandshakeType, RecordType
from mitml4.tls.bridge import messages
from mitml4.tls.bridge.extensions import RawExtensions
from mitml4.tls.bridge.wire import message
from tests.tls.bridge.scripted import (
    Server13,
    broken,
    extension,
    instead,
    longer,
    plain,
    raw,
    records,
    server_hello,
    twice,
    with_extensions,
    with_fields,
)
from tests.tls.bridge.test_delegation import made

FAULTS = {
    "sound": {},
    "another protocol": {"encrypted_extensions": extension(Extension.ALPN, b"\0\x03\x02h3")},
    "early data": {"encrypted_extensions": with_extensions((Extension.EARLY_DATA, b""))},
    "unknown extension": {"encrypted_extensions": with_extensions((0x1234, b""))},
    "misplaced extension": {"encrypted_extensions": with_extensions((Extension.KEY_SHARE, b""))},
    "server name twice": {
        "encrypted_extensions": with_extensions(*[(Extension.SERVER_NAME, b"")] * 2)
    },
    "another suite": {"server_hello": server_hello(cipher_suite=0x1305)},
    "suite of TLS 1.2": {"server_hello": server_hello(cipher_suite=0xC02B)},
    "another session": {"server_hello": server_hello(session_id=b"another" * 4)},
    "compression": {"server_hello": server_hello(compression=1)},
    "older legacy version": {"server_hello": server_hello(legacy_version=0x0302)},
    "another version": {"server_hello": extension(Extension.SUPPORTED_VERSIONS, b"\x7f\x1c")},
    "TLS 1.2 in TLS 1.3": {"server_hello": extension(Extension.SUPPORTED_VERSIONS, b"\x03\x03")},
    "a lowered version": {
        "server_hello": server_hello(random=bytes(24) + b"DOWNGRD\x01", extensions=RawExtensions())
    },
    "a session that was not offered": {
        "server_hello": with_extensions((Extension.PRE_SHARED_KEY, b"\0\0"))
    },
    "no certificate": {"certificate": with_fields(messages.Certificate, entries=())},
    "certificate with a context": {"certificate": with_fields(messages.Certificate, context=b"?")},
    "staple that was not asked for": {
        "certificate": with_extensions((Extension.STATUS_REQUEST, b"\1\0\0\1?"))
    },
    "credential that was not offered": {
        "certificate": with_extensions((Extension.DELEGATED_CREDENTIAL, made().body))
    },
    "broken signature": {"certificate_verify": broken},
    "PKCS 1": {"certificate_verify": with_fields(messages.CertificateVerify, scheme=0x0401)},
    "SHA-1": {"certificate_verify": with_fields(messages.CertificateVerify, scheme=0x0203)},
    "broken end": {"finished": broken},
    "long end": {"finished": longer},
    "certificate twice": {"certificate": twice},
    "no signature": {"certificate_verify": lambda _: b""},
    "key update": {
        "before:finished": records((RecordType.HANDSHAKE, message(HandshakeType.KEY_UPDATE, b"\0")))
    },
    "data": {"before:finished": records((RecordType.APPLICATION_DATA, b"?"))},
    "plain message": {"before:certificate": raw(plain(RecordType.HANDSHAKE, b"\x0b\0\0\0"))},
    "request instead of a hello": {"server_hello": instead(b"\0\0\0\0")},
}


async def serve(faults, stream: trio.SocketStream) -> None:
    """Answer a hello, and the end of the handshake by a byte of data."""
    async with stream:
        try:
            hello = await receive_record(stream)
            server = Server13(hello, faults)
            server.send_flight()
            await stream.send_all(server.taken())
            answer = await receive_record(stream)
            if answer[0] == RecordType.CHANGE_CIPHER_SPEC:
                answer = await receive_record(stream)
            server.take_answer(answer)
            await stream.send_all(server.record(RecordType.APPLICATION_DATA, b"!"))
            await stream.receive_some()
        except (AssertionError, EOFError, trio.BrokenResourceError):
            return


async def receive_record(stream: trio.SocketStream) -> bytes:
    data = b""
    while len(data) < 5 or len(data) < 5 + int.from_bytes(data[3:5], "big"):
        missing = 5 + int.from_bytes(data[3:5], "big") - len(data)
        if not (more := await stream.receive_some(max(1, missing))):
            raise EOFError
        data += more
    return data


def gets_answer(context: ssl.SSLContext, address: tuple[str, int]) -> bool:
    with socket.create_connection(address, timeout=10) as sock:
        try:
            with context.wrap_socket(sock, server_hostname="example.test") as tls:
                return tls.recv(1) == b"!"
        except OSError:
            return False


async def test_a_client_gets_what_it_gets_directly(lab) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    directly, through = {}, {}
    for name, faults in FAULTS.items():
        handler = partial(serve, faults)
        async with lab(handler) as proxy, trio.open_nursery() as nursery:
            listener, *_ = await nursery.start(
                partial(trio.serve_tcp, handler, 0, host="127.0.0.1")
            )
            direct = "127.0.0.1", listener.socket.getsockname()[1]
            for outcome, address in ((directly, direct), (through, proxy.address)):
                outcome[name] = await trio.to_thread.run_sync(gets_answer, context, address)
            nursery.cancel_scope.cancel()
    assert through == directly
    assert through["sound"]
    assert list(through.values()).count(False) > 20
