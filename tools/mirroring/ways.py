"""The ways of a hello to a server: by the code that writes it alone, and through `mitml4
intercept`."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mirroring.comparison import KEY_SHARE, PRE_SHARED_KEY, NotRelayed, Relayed
from mirroring.hellos import TIMEOUT_S, hellos_in
from mitml4.crypto import groups
from mitml4.errors import ProtocolError
from mitml4.lab.certificates import LabAuthority
from mitml4.lab.network import LAN, SERVER_V4, LabNetwork
from mitml4.net.netns import NetNamespace
from mitml4.protocols.tls.records import RecordType
from mitml4.tls.bridge.errors import CannotBridge
from mitml4.tls.bridge.extensions import RawExtensions
from mitml4.tls.bridge.flight import Flight, Retry, ServerFinished
from mitml4.tls.bridge.hello import Replacements, relay_hello
from mitml4.tls.bridge.leg import PeerAlert
from mitml4.tls.bridge.messages import ServerHello
from mitml4.tls.bridge.server_leg import ServerLeg
from mitml4.tls.bridge.wire import Fields, message, uint16, vector

ROOT: Final = Path(__file__).parents[2]
EARLY_DATA: Final = 42
COOKIE: Final = 44


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
    """A client that sends a recorded hello, with new keys, and does the handshake."""

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
            raise NotRelayed(f"{failure}, without mitml4 too")
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
