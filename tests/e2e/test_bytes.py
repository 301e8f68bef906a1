"""Whatever bytes do, they do it through mitml4 as they would without: split, shut, reset, all at
once. The far end is a socket of the test's own, to see exactly what arrives."""

import contextlib
import hashlib
import os
import socket
import ssl
import struct
import threading

import pytest

V4, V6 = "198.51.100.2", "2001:db8:2::2"
TIMEOUT_S = 10
UNKNOWN = b"\xc0\xff\xee\x00"
"""The start of no protocol."""


class Peer:
    """A server of one connection: its handler runs in a thread, and what it raises is raised at
    the end of the test. The value it returns is `result`."""

    def __init__(self, namespace, handler, address, port):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listener = namespace.socket(family)
        self.listener.settimeout(TIMEOUT_S)
        self.listener.bind((address, port))
        self.listener.listen()
        self.port = port
        self.handler = handler
        self.result = self.error = None
        self.thread = threading.Thread(target=self._serve, name="peer")
        self.thread.start()

    def _serve(self):
        try:
            sock, _ = self.listener.accept()
            with sock:
                sock.settimeout(TIMEOUT_S)
                self.result = self.handler(sock)
        except BaseException as error:
            self.error = error

    def join(self):
        self.thread.join(2 * TIMEOUT_S)
        self.listener.close()
        if self.error is not None:
            raise self.error
        return self.result


@pytest.fixture
def peer(lab, new_port):
    peers = []

    def start(handler, address=V4):
        peers.append(Peer(lab.server, handler, address, new_port()))
        return peers[-1]

    yield start
    for started in peers:
        started.join()


def read_all(sock):
    data = bytearray()
    while chunk := sock.recv(1 << 18):
        data += chunk
    return bytes(data)


def digest_all(sock):
    digest = hashlib.sha256()
    while chunk := sock.recv(1 << 18):
        digest.update(chunk)
    return digest.digest()


def reset(sock):
    """Close with an RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def server_context(identity):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    return context


@pytest.fixture
def trusting(bundle):
    return ssl.create_default_context(cafile=bundle)


def hello_bytes(context):
    """A ClientHello as one TLS record, and the objects that go on from there."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="www.example")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read(), tls, incoming, outgoing


def finish_handshake(sock, tls, incoming, outgoing):
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            data = sock.recv(65536)
            assert data, "the server hung up"
            incoming.write(data)
        else:
            sock.sendall(outgoing.read())
            return


def read_inside(sock, tls, incoming):
    while True:
        try:
            return tls.read(65536)
        except ssl.SSLWantReadError:  # session tickets come first
            data = sock.recv(65536)
            assert data, "the server hung up"
            incoming.write(data)


# --- ends


@pytest.mark.parametrize("address", [V4, V6])
def test_a_refused_connection_is_refused(client, session, address):
    watch = session.watch()
    with pytest.raises(ConnectionError), client.connect(address, 9) as sock:
        sock.recv(1)
    flow = watch.flow()
    assert flow.closed["reason"] == "refused"
    assert flow.stack == []
    assert [(e["side"], e["stage"], e["kind"]) for e in flow.errors] == [
        ("server", "connect", "refused")
    ]


@pytest.mark.parametrize("address", [V4, V6])
def test_a_clients_half_close_keeps_the_answer_coming(peer, client, session, address):
    answer = os.urandom(300_000)

    def handler(sock):
        asked = read_all(sock)
        sock.sendall(answer)
        return asked

    server = peer(handler, address)
    with client.connect(address, server.port) as sock:
        sock.sendall(UNKNOWN + b"question")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == answer
    assert server.join() == UNKNOWN + b"question"


def test_a_servers_half_close_keeps_the_upload_going(peer, client, session):
    upload = os.urandom(300_000)

    def handler(sock):
        sock.sendall(b"\x00bye")
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock)

    server = peer(handler)
    with client.connect(V4, server.port) as sock:
        assert read_all(sock) == b"\x00bye"
        sock.sendall(upload)
    assert server.join() == upload


def test_a_question_with_its_fin_is_answered(peer, client, session):
    server = peer(lambda sock: (read_all(sock), sock.sendall(b"answer"))[0])
    with client.connect(V4, server.port) as sock:
        sock.sendall(b"?")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"answer"
    assert server.join() == b"?"


def test_a_reset_at_once_is_a_reset(peer, client, session):
    server = peer(reset)
    watch = session.watch()
    with pytest.raises(ConnectionResetError), client.connect(V4, server.port) as sock:
        sock.recv(1)
    assert watch.flow().closed["reason"] == "reset"


@pytest.mark.parametrize(
    "first", [UNKNOWN, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["unknown", "http"]
)
def test_a_servers_reset_is_a_reset(peer, client, session, first):
    server = peer(lambda sock: (sock.recv(100), reset(sock)))
    watch = session.watch()
    with client.connect(V4, server.port) as sock:
        sock.sendall(first)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert watch.flow().closed["reason"] == "reset"


@pytest.mark.parametrize("address", [V4, V6])
def test_a_client_may_connect_again_from_the_port_that_was_reset(lab, client, session, address):
    """As NFS does. The kernel remembers the connection for ten seconds more each time."""
    watch = session.watch()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with lab.server.socket(family) as listener:
        listener.bind((address, 0))
        listener.listen()
        listener.settimeout(TIMEOUT_S)
        port = 0
        for count in range(1, 4):
            with client.namespace.socket(family) as sock:
                sock.settimeout(TIMEOUT_S)
                sock.bind(("", port))
                port = sock.getsockname()[1]
                sock.connect((address, listener.getsockname()[1]))
                reset(listener.accept()[0])
                with pytest.raises(ConnectionResetError):
                    sock.recv(1)
            assert watch.flows(count)[-1].closed["reason"] == "reset"


def test_a_clients_reset_is_a_reset(peer, client, session):
    def handler(sock):
        sock.sendall(b"\x00go")
        with pytest.raises(ConnectionResetError):
            read_all(sock)
        return "reset"

    server = peer(handler)
    sock = client.connect(V4, server.port)
    assert sock.recv(3) == b"\x00go"
    reset(sock)
    assert server.join() == "reset"


def test_a_client_that_is_gone_before_it_is_accepted_is_told_of(lab, client, session):
    watch = session.watch()
    with lab.server.socket() as listener:
        listener.bind((V4, 0))
        listener.listen()
        for _ in range(20):
            reset(client.connect(V4, listener.getsockname()[1]))
        assert [flow.closed["reason"] for flow in watch.flows(20)] == ["reset"] * 20


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset_reaches_a_side_that_takes_nothing(peer, client, session, wait_until, who):
    """It has what it had room for, and then the reset, though it was not looking."""

    def flood(sock):
        assert sock.recv(1) == b"!"
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.send(bytes(1 << 20))
        reset(sock)

    def stand_still(sock):
        sock.sendall(b"!")
        wait_until(lambda: sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 7, "reset")

    watch = session.watch()
    server = peer(flood if who == "server" else stand_still)
    with client.connect(V4, server.port) as sock:
        (stand_still if who == "server" else flood)(sock)
    server.join()
    assert watch.flow().closed["reason"] == "reset"


def test_a_servers_reset_inside_tls_is_a_reset(peer, client, session, identity, trusting):
    def handler(sock):
        with server_context(identity).wrap_socket(sock, server_side=True) as tls:
            tls.sendall(b"\x00begun")
            tls.recv(1)
            reset(tls)

    server = peer(handler)
    hello, tls, incoming, outgoing = hello_bytes(trusting)
    with client.connect(V4, server.port) as sock:
        sock.sendall(hello)
        finish_handshake(sock, tls, incoming, outgoing)
        assert read_inside(sock, tls, incoming) == b"\x00begun"
        tls.write(b"!")
        sock.sendall(outgoing.read())
        with pytest.raises(ConnectionResetError):
            read_all(sock)


def test_a_client_that_ends_without_close_notify_has_ended_well(
    peer, client, session, identity, trusting
):
    """OpenSSL answers it with an alert, which is no error of the flow."""

    def handler(sock):
        context = server_context(identity)
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        with context.wrap_socket(sock, server_side=True) as tls:
            tls.sendall(tls.recv(100))
            with contextlib.suppress(ssl.SSLError):  # with some builds of Python
                tls.recv(1)

    server = peer(handler)
    watch = session.watch()
    with client.connect(V4, server.port) as sock:
        tls = trusting.wrap_socket(sock, server_hostname="www.example")
        tls.sendall(b"\x00question")
        assert tls.recv(100) == b"\x00question"
        tls.close()  # sends no close_notify
    server.join()
    flow = watch.flow()
    assert (flow.closed["reason"], flow.errors) == ("closed", [])


def test_a_server_that_hangs_up_on_the_hello_hangs_up(peer, client, session, trusting):
    server = peer(lambda sock: sock.recv(65536))
    hello, *_ = hello_bytes(trusting)
    with client.connect(V4, server.port) as sock:
        sock.sendall(hello)
        assert sock.recv(100) == b""  # and no alert of ours


def test_a_server_that_resets_on_the_hello_resets(peer, client, session, trusting):
    server = peer(lambda sock: (sock.recv(65536), reset(sock)))
    hello, *_ = hello_bytes(trusting)
    with client.connect(V4, server.port) as sock:
        sock.sendall(hello)
        with pytest.raises(ConnectionResetError):
            sock.recv(100)


# --- splits


def in_single_bytes(hello):
    yield from (hello[i : i + 1] for i in range(len(hello)))


def in_single_byte_records(hello):
    """The same handshake message, one byte to a record (RFC 8446 §5.1 allows it)."""
    yield b"".join(hello[:3] + b"\x00\x01" + bytes([byte]) for byte in hello[5:])


def in_two_records(hello):
    body = hello[5:]
    for part in (body[:3], body[3:]):
        yield hello[:3] + struct.pack("!H", len(part)) + part


def with_the_first_byte_alone(hello):
    yield hello[:1]
    yield hello[1:]


def with_the_first_two_bytes_alone(hello):
    yield hello[:2]
    yield hello[2:]


@pytest.mark.parametrize(
    "split",
    [
        in_single_bytes,
        in_single_byte_records,
        in_two_records,
        with_the_first_byte_alone,
        with_the_first_two_bytes_alone,
    ],
)
def test_a_split_hello_is_read_whole(peer, client, session, identity, trusting, split):
    def handler(sock):
        with server_context(identity).wrap_socket(sock, server_side=True) as tls:
            tls.sendall(b"\x00inside")

    server = peer(handler)
    hello, tls, incoming, outgoing = hello_bytes(trusting)
    watch = session.watch()
    with client.connect(V4, server.port) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        first, *others = split(hello)
        sock.sendall(first)
        session.wait_for(lambda: session.flows(watch.since), "flow.open")
        for part in others:
            sock.sendall(part)
        finish_handshake(sock, tls, incoming, outgoing)
        assert read_inside(sock, tls, incoming) == b"\x00inside"
    flow = watch.flow()
    assert flow.stack == ["tls", "unknown"]
    assert flow.layer("tls")["details"]["sni"] == "www.example"


def test_a_request_split_after_two_bytes_is_http(peer, client, session):
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"

    def handler(sock):
        request = bytearray()
        while b"\r\n\r\n" not in request:
            request += sock.recv(1000)
        sock.sendall(page)
        return bytes(request)

    server = peer(handler)
    watch = session.watch()
    with client.connect(V4, server.port) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(b"GE")
        session.wait_for(lambda: session.flows(watch.since), "flow.open")
        for byte in b"T / HTTP/1.1\r\nHost: x\r\n\r\n":
            sock.sendall(bytes([byte]))
        assert read_all(sock) == page
    assert watch.flow().stack == ["http/1"]


def test_an_answer_in_single_bytes_arrives_whole(peer, client, session):
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    def handler(sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.recv(1000)
        for byte in page:
            sock.sendall(bytes([byte]))

    server = peer(handler)
    watch = session.watch()
    with client.connect(V4, server.port) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_all(sock) == page
    (response,) = [e for e in watch.flow().http if e["type"] == "http.response"]
    assert response["status"] == 200


# --- who speaks first


def test_a_server_that_speaks_first_inside_tls_is_heard(peer, client, session, identity, trusting):
    greeting = b"220 mail.example ESMTP\r\n"

    def handler(sock):
        with server_context(identity).wrap_socket(sock, server_side=True) as tls:
            tls.sendall(greeting)
            return tls.recv(100)

    server = peer(handler)
    watch = session.watch()
    with (
        client.connect(V4, server.port) as sock,
        trusting.wrap_socket(sock, server_hostname="www.example") as tls,
    ):
        assert tls.recv(100) == greeting
        tls.sendall(b"QUIT\r\n")
    assert server.join() == b"QUIT\r\n"
    flow = watch.flow()
    assert flow.stack == ["tls", "smtp"]
    assert flow.layer("smtp")["speaker"] == "server"


@pytest.mark.parametrize("first", [b"NICK me\r\n", b"GET foo\r\n", b"\x16\x03", b"\x05", b"\x04"])
def test_a_short_first_word_is_answered_without_a_second(peer, client, session, first):
    """The server answers what looks like the start of something longer: no bytes may be
    held back without end."""

    def handler(sock):
        asked = sock.recv(100)
        sock.sendall(b"\x00seen")
        return asked

    server = peer(handler)
    with client.connect(V4, server.port) as sock:
        sock.sendall(first)
        assert sock.recv(100) == b"\x00seen"
    assert server.join() == first


# --- much


@pytest.mark.parametrize("inside_tls", [False, True], ids=["plain", "tls"])
def test_both_directions_at_once_do_not_wait_for_each_other(
    peer, client, session, identity, trusting, inside_tls
):
    """A client that reads only after it has written everything, and a server that does both."""
    block = os.urandom(1 << 20)
    rounds = 16
    expected = hashlib.sha256(UNKNOWN + block * rounds).digest()

    def send(sock):
        sock.sendall(UNKNOWN)
        for _ in range(rounds):
            sock.sendall(block)

    def handler(sock):
        if not inside_tls:
            sender = threading.Thread(target=send, args=[sock])
            sender.start()
            received = digest_all(sock)
            sender.join()
            sock.shutdown(socket.SHUT_WR)
            return received
        # One TLS connection does not serve two threads: the server sends while it can, then reads.
        with server_context(identity).wrap_socket(sock, server_side=True) as tls:
            return serve_both_ways(tls, UNKNOWN + block * rounds)

    server = peer(handler)
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(client.connect(V4, server.port))
        if inside_tls:
            sock = trusting.wrap_socket(sock, server_hostname="www.example")
            stack.enter_context(sock)
        send(sock)
        if not inside_tls:
            sock.shutdown(socket.SHUT_WR)
        digest, left = hashlib.sha256(), len(UNKNOWN) + len(block) * rounds
        while left:
            chunk = sock.recv(1 << 18)
            assert chunk
            digest.update(chunk)
            left -= len(chunk)
    assert digest.digest() == expected
    assert server.join() == expected


def serve_both_ways(tls, data):
    """Send `data` and read as much, whichever the connection is ready for; the digest read."""
    import select

    tls.setblocking(False)
    outgoing, left, digest = memoryview(data), len(data), hashlib.sha256()
    while outgoing or left:
        readable, writable, _ = select.select([tls], [tls] if outgoing else [], [], TIMEOUT_S)
        assert readable or writable, "stalled"
        if writable:
            with contextlib.suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError):
                outgoing = outgoing[tls.send(outgoing[: 1 << 14]) :]
        if readable:
            with contextlib.suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError):
                while left:
                    chunk = tls.recv(1 << 16)
                    assert chunk, "the client hung up"
                    digest.update(chunk)
                    left -= len(chunk)
    return digest.digest()


def test_a_reader_that_pauses_gets_everything(peer, client, session):
    """Backpressure: the server fills every buffer on the way before the client reads at all."""
    total = 24 << 20
    block = bytes(1 << 20)
    stuck = threading.Event()

    def handler(sock):
        sock.sendall(UNKNOWN)
        sock.setblocking(False)
        sent = 0
        while sent < total:
            try:
                sent += sock.send(block[: total - sent])
            except BlockingIOError:
                sock.settimeout(TIMEOUT_S)
                stuck.set()
        return sent

    server = peer(handler)
    with client.connect(V4, server.port) as sock:
        assert stuck.wait(TIMEOUT_S), "the way to the client has no bound"
        received = 0
        while chunk := sock.recv(1 << 20):
            received += len(chunk)
    assert received == total + len(UNKNOWN)
    assert server.join() == total


# --- a proxy's connection that is used twice


def test_connect_after_a_plain_request_opens_the_tunnel(peer, client, session, identity, trusting):
    def read_head(sock):
        head = bytearray()
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        return bytes(head)

    def handler(sock):
        assert read_head(sock).startswith(b"GET http://plain.example/")
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert read_head(sock).startswith(b"CONNECT www.example:443")
        sock.sendall(b"HTTP/1.1 407 No\r\nContent-Length: 3\r\n\r\nwho")
        assert read_head(sock).startswith(b"CONNECT www.example:443")
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with server_context(identity).wrap_socket(sock, server_side=True) as tls:
            tls.sendall(b"\x00through")

    server = peer(handler)
    connect = b"CONNECT www.example:443 HTTP/1.1\r\nHost: www.example:443\r\n\r\n"
    watch = session.watch()
    with client.connect(V4, server.port) as sock:
        sock.sendall(b"GET http://plain.example/ HTTP/1.1\r\nHost: plain.example\r\n\r\n")
        assert read_head(sock).startswith(b"HTTP/1.1 200")
        assert sock.recv(2) == b"ok"
        sock.sendall(connect)
        assert read_head(sock).startswith(b"HTTP/1.1 407")
        assert sock.recv(3) == b"who"
        sock.sendall(connect)
        assert read_head(sock).startswith(b"HTTP/1.1 200")
        with trusting.wrap_socket(sock, server_hostname="www.example") as tls:
            assert tls.recv(100) == b"\x00through"
    flow = watch.flow()
    assert flow.stack[-2:] == ["tls", "unknown"]
    assert "http-connect" in flow.stack
