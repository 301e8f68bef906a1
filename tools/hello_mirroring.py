"""How much of a client's ClientHello reaches the server: fingerprints, order, lengths and bodies.

    python tools/hello_mirroring.py PATH...
    python tools/hello_mirroring.py PATH... --intercept              as root, in namespaces
    python tools/hello_mirroring.py --record DIRECTORY               hellos of local clients

A PATH is a capture, a directory of captures, or a file with the records of one hello. Every
distinct ClientHello that offers TLS 1.3 is relayed, and what the server gets is compared with what
the client has sent. The table has how many hellos kept their JA3, their JA4, the order of their
extensions, and every byte but those of the fields that are replaced. A hello that is not relayed is
listed with the reason.

Without an option, only the code that writes the hello runs. With --intercept, each hello goes
through `mitml4 intercept` to a server of OpenSSL, which keeps what it gets and does the whole
handshake. The client is mitml4's own code for the side of the server: it sends the recorded hello,
with keys that it knows. `--server retry` has one group only, which most clients send no key for:
then the second hello is compared too. `--server older` has TLS 1.2.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from mitml4.capture.fast_path import fast_path
from mitml4.capture.files.reader import read_packets
from mitml4.capture.flow import ALL, CloseReason, Flow
from mitml4.capture.network.dissector import Dissector
from mitml4.capture.reassembly import Reassembler
from mitml4.crypto import groups
from mitml4.errors import CaptureError, ProtocolError
from mitml4.lab.certificates import LabAuthority
from mitml4.lab.network import LAN, SERVER_V4, LabNetwork
from mitml4.net.netns import NetNamespace
from mitml4.protocols.conversation import MAX_PEEK, Direction
from mitml4.protocols.tls.fingerprints import ja3, ja3s, ja4, ja4s
from mitml4.protocols.tls.hello import ClientHello, parse_client_hello, parse_server_hello
from mitml4.protocols.tls.records import RecordType
from mitml4.tls.bridge.errors import CannotBridge
from mitml4.tls.bridge.extensions import RawExtensions
from mitml4.tls.bridge.flight import Flight, Retry, ServerFinished
from mitml4.tls.bridge.hello import Replacements, relay_hello
from mitml4.tls.bridge.leg import PeerAlert
from mitml4.tls.bridge.messages import ServerHello
from mitml4.tls.bridge.server_leg import ServerLeg
from mitml4.tls.bridge.wire import Fields, message, uint16, vector

ROOT: Final = Path(__file__).parent.parent
TIMEOUT_S: Final = 20.0
TLS_1_3: Final = 0x0304
CAPTURES: Final = (".pcap", ".pcapng", ".cap", ".trace", ".gz", ".zst")
NOTES: Final = (".md", ".jsonl")
MAX_STREAM: Final = 1 << 20
"""How much of a client's stream is searched."""

SESSION_TICKET: Final = 35
PRE_SHARED_KEY: Final = 41
EARLY_DATA: Final = 42
COOKIE: Final = 44
KEY_SHARE: Final = 51
ENCRYPTED_CLIENT_HELLO: Final = 0xFE0D


class NotRelayed(Exception):  # noqa: N818, it is a result
    """The hello goes another way; the message says why."""


@dataclass(frozen=True, slots=True)
class Relayed:
    """What both ends have seen of a handshake."""

    hellos: list[tuple[bytes, bytes]]
    """The hello that the client has sent, and the one that the server got, as records; and the same
    of the second hello, if there was one."""
    answer: tuple[bytes, bytes] | None = None
    """What the server has sent, and what the client got. None: there was no server."""


Relay: TypeAlias = Callable[[bytes], Relayed]
"""Relays a recorded hello. Raises NotRelayed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What of a hello is the same at the server."""

    ja3: bool
    ja4: bool
    order: bool
    """The extensions, in their order."""
    bodies: bool
    """Every byte, but for the fields that are replaced."""
    records: bool
    """Sizes and versions of the records."""
    ja3s: bool | None = None
    """Of the server's answer, at the client. None: there was no server."""
    ja4s: bool | None = None


def compare(relayed: Relayed) -> Comparison:
    """What is the same in each pair."""
    hellos = [(parsed(one), parsed(other)) for one, other in relayed.hellos]
    raw = [(message_of(one), message_of(other)) for one, other in relayed.hellos]
    sent, got = map(parse_server_hello, relayed.answer or (b"", b""))
    return Comparison(
        ja3=all(ja3(one) == ja3(other) for one, other in hellos),
        ja4=all(ja4(one) == ja4(other) for one, other in hellos),
        order=all(one.extensions == other.extensions for one, other in hellos),
        bodies=all(masked(one) == masked(other) for one, other in raw),
        records=all(layout_of(one) == layout_of(other) for one, other in relayed.hellos),
        ja3s=ja3s(sent) == ja3s(got) if sent and got else None,
        ja4s=ja4s(sent) == ja4s(got) if sent and got else None,
    )


def parsed(stream: bytes) -> ClientHello:
    hello = parse_client_hello(stream)
    assert hello
    return hello


# A hello's bytes, read here once more: this must not depend on the code that is measured.


def layout_of(stream: bytes) -> list[bytes]:
    """The headers of the records."""
    headers, at = [], 0
    while at < len(stream):
        headers.append(stream[at : at + 5])
        at += 5 + int.from_bytes(stream[at + 3 : at + 5], "big")
    return headers


def message_of(stream: bytes) -> bytes:
    """The handshake message that records contain."""
    message, at = b"", 0
    while at < len(stream):
        end = at + 5 + int.from_bytes(stream[at + 3 : at + 5], "big")
        message += stream[at + 5 : end]
        at = end
    return message


def masked(message: bytes) -> bytes:
    """The message with zeros in every field that may be replaced."""
    plain = bytearray(message)
    for start, end in replaceable(message):
        plain[start:end] = bytes(end - start)
    return bytes(plain)


def replaceable(message: bytes) -> Iterator[tuple[int, int]]:
    """Where the fields are that differ for each connection, and may be replaced."""

    def number(at: int, width: int = 2) -> int:
        return int.from_bytes(message[at : at + width], "big")

    yield 6, 38  # random
    yield 39, 39 + message[38]  # legacy_session_id
    at = 39 + message[38]
    at += 2 + number(at)
    at += 1 + message[at] + 2
    while at < len(message):
        kind, start, end = number(at), at + 4, at + 4 + number(at + 2)
        at = end
        if kind == SESSION_TICKET:
            yield start, end
        elif kind == KEY_SHARE:
            slot = start + 2
            while slot < end:
                share = slot + 4, slot + 4 + number(slot + 2)
                if number(slot) in groups.SUPPORTED:
                    yield share
                slot = share[1]
        elif kind == ENCRYPTED_CLIENT_HELLO and message[start] == 0:
            enc = start + 8
            payload = enc + number(enc - 2) + 2
            yield enc, payload - 2
            yield payload, end
        elif kind == PRE_SHARED_KEY:
            identity, identities = start + 2, start + 2 + number(start)
            while identity < identities:
                yield identity + 2, identity + 2 + number(identity)
                identity += 2 + number(identity) + 4
            binder = identities + 2
            while binder < end:
                yield binder + 1, binder + 1 + message[binder]
                binder += 1 + message[binder]


# Where hellos come from


class _ClientStream:
    """Keeps the beginning of what a flow's client says."""

    def __init__(self, found: list[bytes]) -> None:
        self.kept_bytes = 0
        self._found = found
        self._stream = bytearray()

    def data(self, direction: Direction, data: bytes, time_s: float) -> None:
        if direction is Direction.UP:
            self._stream += data[: MAX_STREAM - len(self._stream)]

    def passed(self, direction: Direction, count: int, time_s: float) -> None:
        pass

    def lost(self, direction: Direction, count: int, time_s: float) -> None:
        if direction is Direction.UP:
            self._stream += bytes(1)  # no hello goes on across a hole

    def end(self, direction: Direction, time_s: float) -> None:
        pass

    def over(self) -> None:
        pass

    def close(self, flow: Flow, reason: CloseReason) -> None:
        self._found.extend(hellos_in(bytes(self._stream)))

    def unseen(self, direction: Direction) -> int:
        return ALL if direction is Direction.DOWN or len(self._stream) >= MAX_STREAM else 0

    def give_up(self, time_s: float) -> None:
        pass


def hellos_in(stream: bytes) -> Iterator[bytes]:
    """The records of every ClientHello, also after a CONNECT or STARTTLS."""
    at = stream.find(b"\x16\x03")
    while at >= 0:
        hello = None
        with suppress(ProtocolError):
            hello = parse_client_hello(stream[at : at + MAX_PEEK])
        if hello:
            yield stream[at : at + hello.wire_length]
            at += hello.wire_length
        else:
            at += 1
        at = stream.find(b"\x16\x03", at)


def hellos_of(path: Path) -> list[bytes]:
    """Of a capture, or of a file with one hello."""
    found: list[bytes] = []
    if not path.name.endswith(CAPTURES):
        return list(hellos_in(path.read_bytes()))
    reassembler = Reassembler(lambda _: _ClientStream(found))
    with path.open("rb") as stream, suppress(CaptureError):
        packets = read_packets(stream, path.name)
        for time_s, segment in fast_path(packets, reassembler.halves, {}, Dissector()):
            if len(segment) == 6:
                reassembler.take(time_s, segment)
    reassembler.close()
    return found


def distinct(paths: Iterable[Path]) -> list[bytes]:
    """The hellos that offer TLS 1.3: resumptions and second hellos too, each once."""
    found: dict[bytes, None] = {}
    for path in paths:
        for hello in hellos_of(path):
            if TLS_1_3 in parsed(hello).supported_versions:
                found.setdefault(hello)
    return list(found)


INSECURE: Final = "['ssl' => ['verify_peer' => false, 'verify_peer_name' => false]]"
URL: Final = "https://localhost:PORT/"
CLIENTS: Final = {
    "curl": ["curl", "-sk", URL],
    "wget": ["wget", "-q", "--tries=1", "--no-check-certificate", "-O", "-", URL],
    "git": ["git", "ls-remote", URL],
    "openssl": ["openssl", "s_client", "-connect", "localhost:PORT"],
    "openssl-p521": ["openssl", "s_client", "-groups", "P-521", "-connect", "localhost:PORT"],
    "gnutls": ["gnutls-cli", "--insecure", "-p", "PORT", "localhost"],
    "python": [sys.executable, "-c", f"import urllib.request as u; u.urlopen('{URL}')"],
    "node": ["node", "-e", f"fetch('{URL}').catch(() => 0)"],
    "perl": ["perl", "-MIO::Socket::SSL", "-e", "IO::Socket::SSL->new('localhost:PORT')"],
    "php": ["php", "-r", f"fopen('{URL}', 'r', false, stream_context_create({INSECURE}));"],
    "ruby": ["ruby", "-ropen-uri", "-e", f"URI.open('{URL}')"],
}
"""Commands that connect to a port of this machine."""


def record(directory: Path) -> None:
    """Run the clients that are installed, and write the hello of each to a file."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, argv in CLIENTS.items():
        if shutil.which(argv[0]) is None:
            print(f"{name}: not installed")
            continue
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(TIMEOUT_S)
            port = str(listener.getsockname()[1])
            command = [word.replace("PORT", port) for word in argv]
            nowhere: dict[str, Any] = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
            with subprocess.Popen(command, stdin=subprocess.DEVNULL, **nowhere) as process:
                try:
                    hello = first_hello(listener)
                    (directory / f"{name}.hello").write_bytes(hello)
                    print(f"{name}: {len(hello)} bytes, JA4 {ja4(parsed(hello))}")
                except OSError as error:
                    print(f"{name}: {error}")
                finally:
                    process.kill()


def first_hello(listener: socket.socket) -> bytes:
    """Of the next connection; raises OSError."""
    accepted, _ = listener.accept()
    with accepted:
        accepted.settimeout(TIMEOUT_S)
        return peek_hello(accepted)


def peek_hello(accepted: socket.socket) -> bytes:
    """The records of the hello that a connection begins with, which stay in the socket. Raises
    OSError, and ProtocolError."""
    seen = 0
    while True:
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, seen + 1)
        data = accepted.recv(MAX_PEEK, socket.MSG_PEEK)
        if hello := parse_client_hello(data):
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            return data[: hello.wire_length]
        if len(data) == seen:
            raise ConnectionError("the client has left")
        seen = len(data)


# The ways to the server


def relay_in_process(stream: bytes) -> Relayed:
    """What the bridge would send."""
    try:
        return Relayed([(stream, relay_hello(stream, Replacements()).records())])
    except (CannotBridge, ProtocolError) as error:
        raise NotRelayed(str(error)) from error


class RecordingServer:
    """Does the handshake of every connection, and keeps what both ends have said."""

    def __init__(self, lab: LabNetwork, authority: LabAuthority, kind: str) -> None:
        self.streams: list[tuple[bytearray, bytearray]] = []
        """Of each connection: what the client has sent, and the server."""
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        for key in ("ec", "rsa"):
            identity = authority.issue(f"{key}.example", key=key)
            self.context.load_cert_chain(identity.certificate, identity.key)
        self.context.set_alpn_protocols(["h2", "http/1.1"])
        if kind == "retry":
            self.context.set_ecdh_curve("secp384r1")
        if kind == "older":
            self.context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.listener = lab.server.socket()
        self.listener.bind((SERVER_V4, 0))
        self.listener.listen()
        self.address = self.listener.getsockname()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        with suppress(OSError):  # it was closed
            while True:
                accepted, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=[accepted], daemon=True).start()

    def serve(self, accepted: socket.socket) -> None:
        received, sent = bytearray(), bytearray()
        self.streams.append((received, sent))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.context.wrap_bio(incoming, outgoing, server_side=True)

        def complete(step: Callable[[], object]) -> None:
            """Raises OSError, as ssl does."""
            while True:
                try:
                    step()
                    return
                except ssl.SSLWantReadError:
                    pass
                finally:
                    sent.extend(data := outgoing.read())
                    accepted.sendall(data)
                data = accepted.recv(65536)
                if not data:
                    raise ConnectionError("the client has left")
                received.extend(data)
                incoming.write(data)

        with accepted, suppress(OSError):
            accepted.settimeout(TIMEOUT_S)
            complete(tls.do_handshake)
            complete(lambda: tls.read(1))
            complete(lambda: tls.write(b"ok"))


class RecordedClient:
    """A client that sends a recorded hello, with keys of its own, and does the handshake."""

    def __init__(self, stream: bytes) -> None:
        """Raises CannotBridge and ProtocolError."""
        self.replacements = Replacements()
        hello = relay_hello(stream, self.replacements)
        self.leg = ServerLeg(hello)
        # Compared with what was recorded: the client's own keys are among what may differ.
        self.sent = [stream]
        self.received = bytearray()

    def run(self, connected: socket.socket) -> None:
        """Until the server has answered data. Raises OSError, NotRelayed, and those of the leg."""
        while not self.step(connected):
            pass
        request = self.leg.records_out.seal(RecordType.APPLICATION_DATA, b"?")
        connected.sendall(self.leg.to_send() + request)
        if not connected.recv(65536):
            raise NotRelayed("the connection was closed after the handshake")

    def step(self, connected: socket.socket) -> bool:
        """Do the next step of the handshake. Returns whether it was the last."""
        connected.sendall(self.leg.to_send())
        data = connected.recv(65536)
        if not data:
            raise NotRelayed("the connection was closed in the handshake")
        self.received += data
        self.leg.receive(data)
        match self.leg.next_event():
            case PeerAlert(alert=alert):
                raise NotRelayed(f"alert {alert}")
            case Retry(message=retry):
                self.answer(retry)
            case Flight(older=older):
                self.leg.finish()
                return older is None
            case ServerFinished():
                return True
        return False

    def answer(self, retry: ServerHello) -> None:
        """RFC 8446 §4.1.2: the hello again, with the key that was asked for, and the cookie."""
        received = self.leg.hello.received
        fields = Fields(received, "ClientHello", 38)
        for width in (1, 2, 1):
            fields.vector(width)
        head = received[4 : fields.at]
        items = dict(RawExtensions.read(fields).items)
        items.pop(EARLY_DATA, None)
        items.pop(PRE_SHARED_KEY, None)
        if share := retry.key_share:
            key = bytes(groups.client_share_bytes(share[0]))
            items[KEY_SHARE] = vector(2, uint16(share[0]), vector(2, key))
        if retry.cookie is not None:
            items[COOKIE] = vector(2, retry.cookie)
        again = message(1, head, RawExtensions(tuple(items.items())).encode())
        records = b"\x16\3\3" + vector(2, again)
        hello = relay_hello(records, self.replacements)
        self.leg.send_retried(hello)
        self.sent.append(hello.records())


@dataclass(frozen=True, slots=True)
class Interception:
    """Clients, `mitml4 intercept` and a recording server, in network namespaces."""

    lab: LabNetwork
    server: RecordingServer
    process: subprocess.Popen[str]

    @classmethod
    @contextmanager
    def open(cls, server: str, engine: str) -> Iterator[Interception]:
        """`engine`: as `--tls-engine` names it."""
        with ExitStack() as stack:
            where = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            lab = stack.enter_context(LabNetwork())
            recording = RecordingServer(lab, LabAuthority(where), server)
            stack.callback(recording.listener.close)
            argv = [sys.executable, "-m", "mitml4", "intercept", "--iface", LAN, "--json"]
            argv += ["--ca-dir", str(where / "ca"), "--upstream", "ignore", "--tls-engine", engine]
            pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
            said = stack.enter_context((where / "stderr").open("w+"))
            process = stack.enter_context(
                lab.router.popen(argv, cwd=ROOT, text=True, stderr=said, **pipes)
            )
            stack.callback(process.terminate)
            made = cls(lab, recording, process)
            next(event for event in made.events() if event["type"] == "session.start")
            yield made

    def events(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout
        for line in self.process.stdout:
            yield json.loads(line)

    def details(self, port: int) -> dict[str, Any]:
        """What was found of TLS on the connection of a client's port, which is closed."""
        flow, details = None, {}
        for event in self.events():
            if event["type"] == "flow.open" and event["client"]["port"] == port:
                flow = event["flow"]
            elif event.get("flow") == flow and event.get("protocol") == "tls":
                details = event["details"]
            elif event.get("flow") == flow and event["type"] == "flow.close":
                break
        return details

    def relay(self, stream: bytes) -> Relayed:
        self.server.streams.clear()
        client, port, failure = self.connect(self.lab.client, stream)
        details = self.details(port)
        # The last connection is the one that counts, if the flow has connected again.
        up, down = self.server.streams[-1] if self.server.streams else (b"", b"")
        if failure and self.connect(self.lab.server, stream)[2] == failure:
            failure = f"{failure}, without mitml4 too"
        if reason := details.get("passthrough") or failure:
            raise NotRelayed(reason)
        sent, got = client.sent, list(hellos_in(bytes(up)))
        if len(got) != len(sent):
            raise NotRelayed(f"{len(sent)} hellos sent, {len(got)} received")
        return Relayed(list(zip(sent, got, strict=True)), (bytes(down), bytes(client.received)))

    def connect(self, host: NetNamespace, stream: bytes) -> tuple[RecordedClient, int, str]:
        """The client, its port, and why the handshake failed, if it did."""
        try:
            client = RecordedClient(stream)
        except (CannotBridge, ProtocolError) as error:
            raise NotRelayed(f"not sent: {error}") from error
        failure = ""
        with host.socket() as connected:
            connected.settimeout(TIMEOUT_S)
            connected.connect(self.server.address)
            port = connected.getsockname()[1]
            try:
                client.run(connected)
            except (CannotBridge, ProtocolError, OSError, NotRelayed) as error:
                failure = str(error)
        return client, port, failure


@dataclass(frozen=True, slots=True)
class Score:
    """All hellos, and what became of them."""

    kinds: int
    """How many different JA4 they have."""
    compared: list[Comparison]
    excluded: Counter[str]

    @classmethod
    def of(cls, hellos: Collection[bytes], relay: Relay) -> Score:
        score = cls(len({ja4(parsed(hello)) for hello in hellos}), [], Counter())
        for hello in hellos:
            try:
                score.compared.append(compare(relay(hello)))
            except NotRelayed as error:
                score.excluded[str(error)] += 1
        return score

    def lines(self) -> Iterator[str]:
        total = len(self.compared) + self.excluded.total()
        yield f"{'ClientHellos that offer TLS 1.3':<40}{total:>6}"
        yield f"{'  of so many different JA4':<40}{self.kinds:>6}"
        yield f"{'relayed':<40}{len(self.compared):>6}{share(len(self.compared), total)}"
        for title, name in (
            ("the same JA3", "ja3"),
            ("the same JA4", "ja4"),
            ("the same extensions in the same order", "order"),
            ("the same bytes but for replaced fields", "bodies"),
            ("the same records", "records"),
            ("the same JA3S at the client", "ja3s"),
            ("the same JA4S at the client", "ja4s"),
        ):
            kept = [getattr(each, name) for each in self.compared]
            if None not in kept:
                yield f"  {title:<38}{sum(kept):>6}{share(sum(kept), len(kept))}"
        yield f"{'not relayed':<40}{self.excluded.total():>6}"
        for reason, count in self.excluded.most_common():
            yield f"  {reason:<38}{count:>6}"

    @property
    def is_exact(self) -> bool:
        """Whether all that were relayed are the same."""
        return all(False not in astuple(each) for each in self.compared)


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:>8.1f} %" if whole else ""


def files_in(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        yield from (each for each in files if each.suffix not in NOTES)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH")
    parser.add_argument("--intercept", action="store_true", help="through `mitml4 intercept`")
    parser.add_argument("--server", choices=("plain", "retry", "older"), default="plain")
    parser.add_argument("--tls-engine", choices=("auto", "bridge", "openssl"), default="auto")
    parser.add_argument("--record", type=Path, metavar="DIRECTORY", help="write hellos there")
    options = parser.parse_args()
    if options.record:
        record(options.record)
        return 0
    hellos = distinct(files_in(options.paths))
    if options.intercept:
        with Interception.open(options.server, options.tls_engine) as interception:
            score = Score.of(hellos, interception.relay)
    else:
        score = Score.of(hellos, relay_in_process)
    print("\n".join(score.lines()))
    return 0 if score.is_exact else 1


if __name__ == "__main__":
    sys.exit(main())
