"""A lab of real servers and clients, and the real `mitml4 intercept` in the router between them.

A test visits a server twice where it can: from the server's own machine, with nothing between, and
from the client's machine, through mitml4. The two must come to the same.

Starting the interpreter and importing mitml4 would take a third of these tests' CPU time. So some
helpers fork a process that has imported it already, and that is otherwise like one that was started
(forked.py; run/test_forked.py compares them): `intercepting`, with the fixtures `session` and
`intercept`, unless it is given a wrapper; `Host.run` of run/conftest.py; `Copy.mitml4` of
test_ca_install.py; and `forked.run`. Every other command line is started as a user's is. For each
command that covers its start, its privileges, its terminal, its signals and its end by SIGKILL.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mitml4.address import CA_PAGE
from mitml4.lab.certificates import Identity, LabAuthority
from mitml4.lab.network import (
    CLIENT_V4,
    LAN,
    ROUTER_LAN_V4,
    SERVER_V4,
    SERVER_V6,
    LabNetwork,
)
from mitml4.lab.snapshot import difference, take_snapshot
from mitml4.net import netlink
from mitml4.net.netns import NetNamespace
from mitml4.net.owner.diag import INET_REQUEST, SOCK_DIAG_BY_FAMILY
from tests.e2e import forked

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 10.0
"""How long a word of either end may take before a test says that it will not come."""
SLOW_S = 60.0
"""How long what shows nothing by its speed may take: a start, an end, an event."""

NETLINK_SOCK_DIAG, TCP_LISTEN = 4, 10  # linux/netlink.h, net/tcp_states.h

HOST = "www.example"

QUICK_JAVA = "-XX:TieredStopAtLevel=1"
"""Java without its second compiler, whose work pays in programs that run for longer."""


# --- waiting -----------------------------------------------------------------------------------


def poll(condition: Callable[[], Any], what: str) -> Any:
    """Poll what has no event to wait for, such as another program's listening socket."""
    deadline = time.monotonic() + SLOW_S
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited in vain: {what}")
        time.sleep(0.02)
    return value


def open_diag(namespace: NetNamespace) -> socket.socket:
    """A socket for `listening_ports` in that namespace."""
    return namespace.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG)


def listening_ports(diag: socket.socket) -> set[int]:
    """TCP ports that are listened on. /proc/net/tcp would tell too, but to write it the kernel goes
    through a table for the connections of all namespaces, which takes milliseconds."""
    bodies = [
        body
        for family in (socket.AF_INET, socket.AF_INET6)
        for body in netlink.dump(
            diag,
            SOCK_DIAG_BY_FAMILY,
            INET_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 1 << TCP_LISTEN, bytes(48)),
        )
    ]
    return {int.from_bytes(body[4:6], "big") for body in bodies}  # struct inet_diag_msg


# --- programs ----------------------------------------------------------------------------------


def in_a_world_of_its_own(hosts: Path, argv: Sequence[str]) -> list[str]:
    """A command that sees our hosts file and no resolver, and whose children and shared memory die
    with it.

    The shell stays, as the first process of its PID namespace: a server that changes its user
    would lose the signal that it is to die with its parent.
    """
    bind = f"mount --bind {hosts} /etc/hosts && mount --bind /dev/null /etc/resolv.conf"
    bind += " && mount -t tmpfs shm /dev/shm"
    namespaces = ["--mount", "--propagation", "private", "--ipc", "--pid", "--fork", "--kill-child"]
    return ["unshare", *namespaces, "sh", "-c", f'{bind} && "$@"; exit $?', "sh", *argv]


@contextmanager
def running(
    namespace: NetNamespace, hosts: Path, argv: Sequence[str], *, port: int, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A server as a separate process, listening; killed afterwards, with all its children."""
    settings = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL} | options
    command = in_a_world_of_its_own(hosts, argv)
    with (
        open_diag(namespace) as diag,
        namespace.popen(command, stderr=subprocess.PIPE, **settings) as process,
    ):
        try:
            poll(
                lambda: process.poll() is not None or port in listening_ports(diag),
                f"{argv[0]} listens on {port}",
            )
            if process.poll() is not None:
                pytest.fail(f"{argv[0]} ended at once: {process.stderr.read().decode()}")
            yield process
        finally:
            end_world(process)


def end_world(process: subprocess.Popen[bytes]) -> None:
    """Kill the first process of a PID namespace, and wait until all of it is gone: the kernel
    ends a PID namespace before it reports the end of its first process (pid_namespaces(7))."""
    first = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    with suppress(OSError):
        for pid in map(int, first.read_text().split()):
            os.kill(pid, signal.SIGKILL)
            process.wait(SLOW_S)
    process.kill()


@dataclass(frozen=True)
class Outcome:
    """What a client program did, as far as a user can tell."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


@dataclass
class Machine:
    """A namespace to run clients in."""

    namespace: NetNamespace

    def run(self, *argv: str, **options: Any) -> Outcome:
        result: Any = self.namespace.run(
            *argv, check=False, text=False, timeout=3 * TIMEOUT_S, **options
        )
        return Outcome(result.returncode, result.stdout, result.stderr.decode(errors="replace"))

    def connect(self, address: str, port: int) -> socket.socket:
        """A TCP connection with a time limit on everything it does; the caller closes it."""
        return self.namespace.call(
            lambda: socket.create_connection((address, port), timeout=TIMEOUT_S)
        )


# A process group that is not orphaned, as a shell would have it: others are not stopped.
IN_A_GROUP = (
    sys.executable,
    "-c",
    "import os, sys; os.setpgid(0, 0); os.execvp(sys.argv[1], sys.argv[1:])",
)


# --- mitml4 ------------------------------------------------------------------------------------


@dataclass
class Flow:
    """All events of one flow."""

    opened: dict[str, Any]
    layers: list[dict[str, Any]] = field(default_factory=list)
    http: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    closed: dict[str, Any] | None = None

    @property
    def stack(self) -> list[str]:
        return self.closed["stack"]

    def layer(self, protocol: str) -> dict[str, Any]:
        """The outermost layer of that protocol."""
        return next(layer for layer in self.layers if layer["protocol"] == protocol)

    @property
    def actions(self) -> list[str]:
        return [layer["action"] for layer in self.layers]


class Interception:
    """A running `mitml4 intercept`, and what it has said so far."""

    def __init__(self, process: subprocess.Popen[str] | forked.Forked, ca: Path) -> None:
        self.process = process
        self.ca = ca
        self.events: list[dict[str, Any]] = []
        self.ended = False
        self.said: Callable[[], str] = str
        """What it has written to standard error."""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, name="events")
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            with self._changed:
                self.events.append(json.loads(line))
                self._changed.notify_all()
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], Any], what: str) -> Any:
        """Until the events satisfy it. A condition that is not met in time fails the test."""
        with self._changed:
            self._changed.wait_for(lambda: condition() or self.ended, SLOW_S)
            value = condition()
        if not value:
            last = "\n".join(json.dumps(event) for event in self.events[-12:])
            pytest.fail(f"waited in vain: {what}; the last events:\n{last}")
        return value

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    def flows(self, since: int = 0) -> list[Flow]:
        """Flows opened after the first `since` of them, in order."""
        flows: dict[int, Flow] = {}
        for event in list(self.events):
            match event["type"]:
                case "flow.open":
                    flows[event["flow"]] = Flow(event)
                case "flow.layer":
                    flows[event["flow"]].layers.append(event)
                case "flow.error":
                    flows[event["flow"]].errors.append(event)
                case "flow.close":
                    assert flows[event["flow"]].closed is None, "a flow closed twice"
                    flows[event["flow"]].closed = event
                case kind if kind.startswith(("http.", "websocket.")):
                    flows[event["flow"]].http.append(event)
        return list(flows.values())[since:]

    def watch(self, marker: Callable[[], int] | None = None) -> Watch:
        """The flows from now on. A marker's own flow shows that all before it have been told of;
        it returns the client's port."""
        if marker:
            earlier = len(self.flows())  # one of which may have had the same port
            port = marker()
            self.wait_for(
                lambda: any(
                    f.closed and f.opened["client"]["port"] == port for f in self.flows(earlier)
                ),
                "the marker's flow",
            )
        return Watch(self, len(self.flows()))

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """Ask it to end, wait for it, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.wait_ended()

    def wait_ended(self) -> int:
        try:
            code = self.process.wait(timeout=SLOW_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            pytest.fail("mitml4 did not end")
        finally:
            self._reader.join(SLOW_S)
            self.process.stdout.close()
        return code


@dataclass
class Watch:
    """The flows opened since it was made."""

    session: Interception
    since: int

    def flows(self, count: int = 1) -> list[Flow]:
        """Wait until so many flows have been seen, and each of them to its end."""

        def complete() -> list[Flow]:
            flows = self.session.flows(self.since)
            done = len(flows) >= count and all(flow.closed for flow in flows)
            return flows if done else []

        flows = self.session.wait_for(complete, f"{count} flows, closed")
        assert len(flows) == count, [flow.stack for flow in flows]
        return flows

    def flow(self) -> Flow:
        """The only one."""
        return self.flows()[0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """A test that fails shows what mitml4 said last."""
    report = yield
    session = getattr(item, "funcargs", {}).get("session")
    if report.failed and isinstance(session, Interception):
        said = "\n".join(map(json.dumps, session.events[-20:]))
        report.sections.append(("what mitml4 said last", said))
    return report


@contextmanager
def intercepting(
    lab: LabNetwork,
    directory: Path,
    *options: str,
    roots: Sequence[Path] = (),
    iface: str = LAN,
    scope: Sequence[str] = (),
    command: Sequence[str] = ("intercept",),
    wrapper: Sequence[str] | None = None,
) -> Iterator[Interception]:
    """`mitml4 intercept` in the router, ready. It must end cleanly, leave nothing, and have said
    nothing unsound. With a wrapper, which may be empty, the interpreter is started for it; else it
    is forked."""
    before = lab.router.call(take_snapshot)
    stderr = directory / "stderr.txt"
    ca_dir = directory / "ca"
    scope = scope or ("--iface", iface)
    arguments = [*command, *scope, "--json", "--ca-dir", str(ca_dir), *options]
    for root in roots:
        arguments += ["--upstream-ca", str(root)]
    with stderr.open("w") as talk:
        process: subprocess.Popen[str] | forked.Forked
        settings: dict[str, Any] = {
            "cwd": ROOT,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": talk,
        }
        if wrapper is None:
            process = forked.start(arguments, namespace=lab.router, **settings)
        else:
            argv = [*wrapper, sys.executable, "-m", "mitml4", *arguments]
            process = lab.router.popen(argv, text=True, **settings)
    session = Interception(process, ca_dir / "mitml4-ca.pem")
    session.said = stderr.read_text
    try:
        session.wait_for(lambda: session.of_type("session.start"), "session.start")
        yield session
    except BaseException:
        session.stop(signal.SIGKILL)
        print(stderr.read_text())
        raise
    code = session.stop()
    talk_said = stderr.read_text()
    print(talk_said)
    assert code == 0, talk_said
    assert "Traceback" not in talk_said, talk_said
    assert difference(before, lab.router.call(take_snapshot)) == ""
    assert_sound(session.events, is_filtered="--filter" in options)


def assert_sound(events: list[dict[str, Any]], *, is_filtered: bool = False) -> None:
    """What holds for the events of every session, whatever happened in it (docs: events). The
    totals of a filtered one count flows that it does not show."""
    for event in events:
        VALIDATOR.validate(event)
    kinds = [event["type"] for event in events]
    assert kinds[0] == "session.start"
    assert kinds[-1] == "session.stop"
    opened = [event["flow"] for event in events if event["type"] == "flow.open"]
    closed = [event["flow"] for event in events if event["type"] == "flow.close"]
    assert opened == sorted(set(opened))
    assert sorted(closed) == opened
    last: dict[int, str] = {}
    for event in events:
        if "flow" in event:
            assert last.get(event["flow"]) != "flow.close", event
            last[event["flow"]] = event["type"]
    assert is_filtered or events[-1]["flows"] == len(opened)
    internal = [e for e in events if e["type"] == "flow.error" and e["kind"] == "internal"]
    assert internal == []


class _Validator:
    """The published schema, asked for once, as a user gets it."""

    def __init__(self) -> None:
        self._validators = {}

    def validate(self, event: dict[str, Any]) -> None:
        if not self._validators:
            schema = json.loads(forked.run(["schema"], cwd=ROOT).stdout)
            jsonschema_rs.meta.validate(schema)
            # An event is one of these, and its type says which: so an error names the field.
            for each in schema.pop("oneOf"):
                kind = each["$ref"].rpartition("/")[2]
                self._validators[kind] = jsonschema_rs.validator_for(schema | each)
        self._validators[event["type"]].validate(event)


VALIDATOR = _Validator()


# --- fixtures ----------------------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def fork_servers() -> Iterator[None]:
    yield
    forked.close_servers()


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., Any]:
    return poll


def take_usual_buffers() -> None:
    """Those of Linux, however this machine is tuned: a namespace begins with its host's."""
    for name, most in (("rmem", 6 << 20), ("wmem", 4 << 20)):
        Path("/proc/sys/net/ipv4", f"tcp_{name}").write_text(f"4096 131072 {most}")


@pytest.fixture(scope="module")
def lab() -> Iterator[LabNetwork]:
    with LabNetwork() as network:
        for namespace in (network.client, network.router, network.server):
            namespace.call(take_usual_buffers)
        yield network


@pytest.fixture(scope="module")
def lab_without_ca_page_address() -> Iterator[LabNetwork]:
    """A lab where the address of the CA page, which is the router's in `lab`, is the server's, who
    refuses connections to it."""
    with LabNetwork() as network:
        for machine, interface, old, new in (
            (network.router, LAN, ROUTER_LAN_V4, "203.0.113.1"),
            (network.client, "eth0", CLIENT_V4, "203.0.113.2"),
        ):
            machine.run("ip", "address", "del", f"{old}/24", "dev", interface)
            machine.run("ip", "address", "add", f"{new}/24", "dev", interface)
        network.client.run("ip", "route", "replace", "default", "via", "203.0.113.1")
        network.router.run("ip", "route", "add", "default", "via", SERVER_V4)
        network.server.run("ip", "address", "add", f"{CA_PAGE.ip}/32", "dev", "lo")
        yield network


@pytest.fixture(scope="module")
def files() -> Iterator[Path]:
    """A directory for the module's configurations and certificates, readable by any user.

    Not pytest's: it closes its own to other users, whenever another run of it begins.
    """
    with tempfile.TemporaryDirectory(prefix="mitml4-tests-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


@pytest.fixture(scope="module")
def authority(files: Path) -> LabAuthority:
    return LabAuthority(files)


@pytest.fixture(scope="module")
def identity(authority: LabAuthority) -> Identity:
    """A sound certificate for the lab's usual name."""
    return authority.issue(HOST, SERVER_V4, SERVER_V6)


@pytest.fixture(scope="module")
def pin(identity: Identity) -> str:
    """That identity's public key, as curl's --pinnedpubkey takes it."""
    certificate = x509.load_pem_x509_certificate(identity.certificate.read_bytes())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"sha256//{base64.b64encode(hashlib.sha256(key).digest()).decode()}"


@pytest.fixture(scope="module")
def client(lab: LabNetwork) -> Machine:
    """The machine whose connections are intercepted."""
    return Machine(lab.client)


@pytest.fixture(scope="module")
def beside(lab: LabNetwork) -> Machine:
    """The servers' own machine: its clients reach them with nothing between."""
    return Machine(lab.server)


def refused_port(namespace: NetNamespace) -> int:
    """Make a connection that is refused in the end; returns its own port."""
    with namespace.socket() as sock, suppress(ConnectionError):
        sock.settimeout(TIMEOUT_S)
        sock.bind(("", 0))
        port = sock.getsockname()[1]
        sock.connect((SERVER_V4, 1))
        sock.recv(1)
    return port


@pytest.fixture(scope="module")
def session(
    lab: LabNetwork, authority: LabAuthority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Interception]:
    """An interception with default options for all tests of a module."""
    directory = tmp_path_factory.mktemp("session")
    with intercepting(lab, directory, roots=[authority.root]) as running_session:
        running_session.watch = partial(running_session.watch, partial(refused_port, lab.client))
        yield running_session


@pytest.fixture
def intercept(lab: LabNetwork, authority: LabAuthority, tmp_path: Path) -> Iterator[Any]:
    """Starts an interception with options of the test's own: `intercept("--block", "x")`."""
    with ExitStack() as stack:

        def start(*options: str, **settings: Any) -> Interception:
            settings = {"roots": [authority.root]} | settings
            return stack.enter_context(intercepting(lab, tmp_path, *options, **settings))

        yield start


@pytest.fixture(scope="module")
def hosts(files: Path) -> Path:
    """The names that servers know."""
    path = files / "hosts"
    path.write_text(f"127.0.0.1 localhost\n{SERVER_V4} {HOST}\n")
    return path


def _serving(namespace: NetNamespace, hosts: Path) -> Iterator[Callable[..., Any]]:
    with ExitStack() as stack:

        def start(*argv: str, port: int, **options: Any) -> subprocess.Popen[bytes]:
            return stack.enter_context(running(namespace, hosts, argv, port=port, **options))

        yield start


@pytest.fixture(scope="module")
def serve(lab: LabNetwork, hosts: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a server in the server's namespace for the rest of the module."""
    yield from _serving(lab.server, hosts)


@pytest.fixture
def serve_once(lab: LabNetwork, hosts: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a server in the server's namespace for the rest of the test."""
    yield from _serving(lab.server, hosts)


@pytest.fixture
def serve_client(lab: LabNetwork, hosts: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a server on the client's own machine for the rest of the test."""
    yield from _serving(lab.client, hosts)


@pytest.fixture(scope="session")
def big_file() -> Iterator[Path]:
    """24 MiB, beside the modules' directories, for links to it."""
    with tempfile.NamedTemporaryFile(prefix="mitml4-tests-") as file:
        file.write(os.urandom(1 << 20) * 24)
        file.flush()
        os.chmod(file.name, 0o644)
        yield Path(file.name)


@pytest.fixture(scope="module")
def nginx(serve: Callable[..., None], files: Path, identity: Identity, big_file: Path) -> Path:
    """nginx: 80 plain; 443 h2 and http/1.1; 444 TLS 1.2 and http/1.1 only. Returns its root, which
    takes PUT requests too."""
    web = files / "web"
    (web / "put").mkdir(parents=True)
    web.chmod(0o777)
    (web / "put").chmod(0o777)
    (web / "index.html").write_text("hello from nginx\n")
    (web / "big").hardlink_to(big_file)
    config = files / "nginx.conf"
    config.write_text(f"""
        daemon off; master_process off; worker_processes 1; pid {files}/nginx.pid;
        error_log stderr crit;
        events {{ worker_connections 256; }}
        http {{
            access_log off; client_max_body_size 0; default_type text/plain;
            client_body_temp_path {files}/body; proxy_temp_path {files}/proxy;
            fastcgi_temp_path {files}/fastcgi; uwsgi_temp_path {files}/uwsgi;
            scgi_temp_path {files}/scgi;
            ssl_certificate {identity.certificate}; ssl_certificate_key {identity.key};
            server {{
                listen 80; listen [::]:80; listen 443 ssl http2; listen [::]:443 ssl http2;
                ssl_protocols TLSv1.2 TLSv1.3; root {web};
                location /put/ {{ dav_methods PUT; }}
            }}
            server {{ listen 444 ssl; ssl_protocols TLSv1.2; root {web}; }}
        }}
    """)
    serve("nginx", "-c", str(config), "-p", str(files), port=444)
    return web


@pytest.fixture(scope="module")
def bundle(session: Interception, authority: LabAuthority, files: Path) -> Path:
    """Both roots: a client with it is content with and without mitml4."""
    path = files / "bundle.pem"
    path.write_bytes(session.ca.read_bytes() + authority.root.read_bytes())
    return path


WRITE_OUT = "%{http_version} %{http_code} %{ssl_verify_result} %{num_connects}\n"


@pytest.fixture(scope="module")
def curl(bundle: Path) -> Callable[..., Outcome]:
    """`curl(machine, *options)`: trusts both roots, knows the lab's names, writes what it got."""
    names = [
        part
        for port in (80, 443, 444, 8443, 3128, 3129)
        for part in ("--resolve", f"{HOST}:{port}:{SERVER_V4}")
    ]

    def run(machine: Machine, *options: str) -> Outcome:
        return machine.run(
            *("curl", "--silent", "--show-error", "--max-time", str(TIMEOUT_S)),
            *("--cacert", str(bundle), "--proxy-cacert", str(bundle), "--write-out", WRITE_OUT),
            *names,
            *options,
            env={"PATH": os.environ["PATH"]},
        )

    return run


PORTS = itertools.count(20000)


@pytest.fixture
def new_port() -> Callable[[], int]:
    """A port of the server's that no test has had: what a session has learned of one does not
    reach another test. Below those that the kernel gives to clients."""
    return partial(next, PORTS)


@pytest.fixture
def s_server(serve_once, new_port):
    """Starts `openssl s_server -www` with options of the test's own; returns its port."""

    def start(identity, *options):
        port = new_port()
        serve_once(
            *("openssl", "s_server", "-accept", str(port), "-www", *options),
            *("-cert", str(identity.certificate), "-key", str(identity.key)),
            *("-cert_chain", str(identity.certificate)),
            port=port,
        )
        return port

    return start


@pytest.fixture
def sql_server(serve_once, new_port, identity):
    """Starts a server that speaks TDS; returns its port. `off` encrypts the login alone."""

    def start(encryption: str = "on") -> int:
        port = new_port()
        program = Path(__file__).with_name("tds_server.py")
        files = (str(identity.certificate), str(identity.key))
        serve_once(
            sys.executable, str(program), SERVER_V4, str(port), *files, encryption, port=port
        )
        return port

    return start


@pytest.fixture
def tsql(tmp_path):
    """`tsql(machine, port, root)`: FreeTDS asks for 6 * 7, of whom it believes under that root."""

    def run(machine: Machine, port: int, root: Path, **environment: str) -> Outcome:
        config = tmp_path / "freetds.conf"
        config.write_text(
            f"[lab]\nhost = {SERVER_V4}\nport = {port}\ntds version = 7.4\nca file = {root}\n"
            "encryption = request\ncheck certificate hostname = yes\nconnect timeout = 10\n"
        )
        environment |= {"PATH": os.environ["PATH"], "FREETDSCONF": str(config)}
        argv = ("tsql", "-o", "qfh", "-S", "lab", "-U", "me", "-P", "secret")
        return machine.run(*argv, env=environment, input=b"select 6 * 7\ngo\nquit\n")

    return run


@pytest.fixture(scope="module")
def sshd(serve: Callable[..., None], files: Path) -> list[str]:
    """OpenSSH on port 22; gives the options with which a client may log in as root."""
    for name in ("host_key", "user_key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(files / name)], check=True
        )
    config = files / "sshd_config"
    config.write_text(f"""
        Port 22
        HostKey {files}/host_key
        AuthorizedKeysFile {files}/user_key.pub
        StrictModes no
        PermitRootLogin prohibit-password
        PidFile none
        UsePAM no
    """)
    # A separate /run, for the empty directory of its privilege separation. An empty /root, since
    # what a shell reads there when it starts may wait for other programs (pyenv's lock).
    start = (
        "mount -t tmpfs run /run && mkdir /run/sshd && mount -t tmpfs root /root && "
        'exec /usr/sbin/sshd -D -e -f "$1"'
    )
    serve("sh", "-c", start, "sh", str(config), port=22)
    return [
        *("-F", "none", "-i", str(files / "user_key"), "-o", "BatchMode=yes"),
        *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
        *("-o", "LogLevel=ERROR"),
    ]
