"""`mitml4 run`: what a command sees of it, as a user without power and as root."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import stat
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from mitml4.lab.network import ROUTER_WAN_V4, ROUTER_WAN_V6, SERVER_V4, SERVER_V6
from tests.crypto.quic_packets import crypto, initial, vectors
from tests.e2e.run.conftest import NOBODY

WEB = "https://www.example/"
CURL = ("curl", "--silent", "--show-error", "--max-time", "10")
HELLO = "hello from nginx\n"

CONNECT = """
import socket, sys
for address, port in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        socket.create_connection((address, int(port)), 10)
        print("connected")
    except OSError as error:
        print(error.strerror or error)
"""

SERVE = """
import http.server, sys, threading, urllib.request
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(urllib.request.urlopen(f"http://localhost:{server.server_port}/").status)
"""


# --- what it is for ------------------------------------------------------------------------------


@pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
def test_a_command_trusts_what_it_is_shown_and_nothing_is_left(host, nginx, root: bool) -> None:
    def mounts() -> str:
        return host.lab.router.run("cat", "/proc/self/mountinfo").stdout

    before = mounts()
    ended = host.run(*CURL, WEB, root=root, options=["--json"])
    assert (ended.code, ended.out) == (0, HELLO)
    assert ended.stacks == [["tls", "http/2"]]
    assert [event["url"] for event in ended.of_type("http.request")] == [WEB]
    (opened,) = ended.of_type("flow.open")
    assert opened["process"]["name"] == "curl"
    assert opened["process"]["command"] == [*CURL, WEB]
    assert opened["process"]["uid"] == (0 if root else NOBODY)
    start, stop = ended.events[0], ended.events[-1]
    assert (start["type"], start["mode"], start["table"]) == ("session.start", "run", None)
    assert (stop["type"], stop["reason"]) == ("session.stop", "command ended")
    assert [json.loads(line) for line in ended.err.splitlines()] == ended.events
    assert mounts() == before
    processes = subprocess.run(["pgrep", "-f", str(host.root_certificate)], capture_output=True)
    assert processes.stdout == b""
    files = [path for path in host.home.parent.rglob("*") if path.is_file()]
    assert files
    assert not any(b"PRIVATE KEY" in path.read_bytes() for path in files)


THROUGH_OWN_PROXY = """
microsocks -i 127.0.0.1 -p 1080 & proxy=$!
curl -sS --retry 20 --retry-connrefused --retry-delay 1 --socks5-hostname 127.0.0.1:1080 "$@"
status=$?; kill $proxy; exit $status
"""


@pytest.mark.parametrize("own", [False, True], ids=["usual roots", "own roots"])
def test_what_a_proxy_of_the_command_is_shown_is_trusted(host, nginx, authority, own) -> None:
    """Its TLS is decrypted twice, and the leaf of the first time has to verify the second time."""
    env = {"CURL_CA_BUNDLE": str(authority.root)} if own else {}
    argv = ("sh", "-c", THROUGH_OWN_PROXY, "sh", WEB)
    ended = host.run(*argv, options=["--loopback", "--no-wait"], env=env)
    assert (ended.code, ended.out) == (0, HELLO), ended.err
    stacks = [stack for stack in ended.stacks if stack]
    assert sorted(stacks) == [["socks5", "tls", "http/2"], ["tls", "http/2"]]
    verified = [
        event["details"]["certificate"]["verify"]
        for event in ended.of_type("flow.layer")
        if event["protocol"] == "tls"
    ]
    assert verified == ["ok", "ok"]


def test_without_trust_a_command_sees_a_stranger(host, nginx) -> None:
    ended = host.run(*CURL, WEB, options=["--no-trust"])
    assert ended.code == 60  # curl(1): the peer's certificate cannot be authenticated
    assert ended.out == ""


def test_both_ip_versions_are_carried_and_called_by_name(host, nginx) -> None:
    """Port 444 is served over IPv4 alone: a client goes on to the next address."""
    visits = ("-4", WEB), ("-6", WEB), ("https://www.example:444/",)
    ended = host.run("sh", "-c", "; ".join(shlex.join((*CURL, *visit)) for visit in visits))
    assert ended.out == 3 * HELLO
    opened = [(event["destination"]["ip"], event["name"]) for event in ended.of_type("flow.open")]
    assert opened[:2] == [(SERVER_V4, "www.example"), (SERVER_V6, "www.example")]
    assert [event["reason"] for event in ended.of_type("flow.close")][-1] == "closed"


def test_one_line_tells_of_each_connection_and_standard_output_is_the_commands(host, nginx) -> None:
    ended = host.run(*CURL, "http://www.example/")
    assert ended.out == HELLO
    (line,) = ended.err.splitlines()
    assert line.startswith("mitml4: www.example:80  http/1  200 GET /  ↑ ")


def test_quiet_says_nothing(host, nginx) -> None:
    ended = host.run(*CURL, WEB, options=["-q"])
    assert (ended.out, ended.err) == (HELLO, "")


def test_the_table_comes_at_the_end(host, nginx) -> None:
    ended = host.run(*CURL, WEB, options=["--table"])
    assert ended.out == HELLO
    assert "www.example:443" in ended.err
    assert "tls › http/2" in ended.err


# --- as if it were run plainly -------------------------------------------------------------------


LIST = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"


def test_what_a_command_has_is_the_callers_and_nothing_of_ours(host) -> None:
    """User, directory, environment and streams; no capability, and no descriptor."""
    script = (
        'id -u; id -g; pwd; echo "$GREETING"; cat; echo talk >&2; python3 -c "$0"; '
        "exec grep Cap /proc/self/status"
    )
    ended = host.run("sh", "-c", script, LIST, stdin="from stdin\n", env={"GREETING": "moin"})
    lines = ended.out.splitlines()
    assert lines[:5] == ["65534", "65534", str(host.home), "moin", "from stdin"]
    assert ended.err == "talk\n"
    descriptors = json.loads(lines[5])
    assert descriptors[:3] == [0, 1, 2]
    assert len(descriptors) == 4  # and the directory that is being listed
    rows = dict(line.split(":\t") for line in lines[6:])
    assert {int(rows[each], 16) for each in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}


def test_root_cannot_undo_the_interception(host) -> None:
    script = "ip link set lo down && echo undone; umount /etc/ssl/certs && echo undone; id -u"
    assert host.run("sh", "-c", script, root=True).out == "0\n"


@pytest.mark.parametrize("closed", ["<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_descriptors_that_are_closed_stay_so_and_do_no_harm(host, closed: str) -> None:
    look = "for each in 0 1 2; do test -e /proc/$$/fd/$each && echo $each >>open; done; exit 7"
    script = f'"$@" {closed}'
    process = host.popen(host.shell("sh", "-c", script, "sh", *host.argv("sh", "-c", look)))
    process.communicate(timeout=60)
    assert process.returncode == 7
    shut = {"<&-": "0", ">&-": "1", "2>&-": "2"}
    left = {"0", "1", "2"} - {shut[each] for each in closed.split()}
    opened = host.home / "open"
    assert (set(opened.read_text().split()) if opened.exists() else set()) == left


def test_the_exit_code_of_a_command_that_is_killed_is_the_shells(host) -> None:
    assert host.run("sh", "-c", "kill -KILL $$").code == 137


def test_a_command_that_is_not_there_is_127(host) -> None:
    ended = host.run("no-such-command")
    assert ended.code == 127
    assert ended.err.startswith("error: no-such-command: command not found\n")


@pytest.mark.parametrize("what", ["/etc", "./plain"])
def test_a_command_that_cannot_be_executed_is_126(host, what: str) -> None:
    (host.home / "plain").write_text("true\n")
    ended = host.run(what)
    assert ended.code == 126
    assert ended.err.startswith("error: ")
    assert "\nhint: " in ended.err


def test_a_script_without_an_interpreter_is_the_shells(host) -> None:
    script = host.home / "script"
    script.write_text("echo from $1\n")
    script.chmod(0o755)
    assert host.run("./script", "sh").out == "from sh\n"


def test_a_script_with_a_missing_interpreter_is_126(host) -> None:
    script = host.home / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    ended = host.run("./script")
    assert ended.code == 126
    assert ended.err == (
        "error: ./script: the interpreter that it names does not exist\nhint: head -n 1 ./script\n"
    )


def test_a_set_user_id_program_is_said_to_gain_nothing(host) -> None:
    program = host.home / "true"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o755 | stat.S_ISUID)
    ended = host.run("./true")
    assert ended.code == 0
    assert "set-user-ID" in ended.err
    assert host.run("./true", root=True).err == ""


# --- the network inside --------------------------------------------------------------------------


def test_what_is_refused_or_has_no_way_is_so_at_once(host) -> None:
    refused = (SERVER_V4, "1"), ("127.0.0.1", "9"), ("::1", "9")
    without_way = ("203.0.113.9", "80"), ("2001:db8:9::9", "80")
    argv = ("python3", "-c", CONNECT, *(part for each in (*refused, *without_way) for part in each))
    ended = host.run(*argv)
    assert ended.out == 3 * "Connection refused\n" + 2 * "No route to host\n"
    assert ended.of_type("flow.close")[0]["reason"] == "refused"


BIND = """
import socket, sys

for family, kind, address in (
    (family, kind, address)
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
    for family, addresses in ((socket.AF_INET, sys.argv[1]), (socket.AF_INET6, sys.argv[2]))
    for address in addresses.split(",")
):
    with socket.socket(family, kind) as sock:
        try:
            sock.bind((address, 0))
            print(address, "bound", sep="\t")
        except OSError as error:
            print(address, error.strerror, sep="\t")
"""


@pytest.mark.parametrize(
    ("root", "options"), [(False, ()), (True, ("--loopback",))], ids=["user", "root"]
)
def test_only_addresses_of_the_hosts_own_can_be_bound(host, root: bool, options) -> None:
    own = "0.0.0.0", "127.0.0.1", "127.9.9.9", ROUTER_WAN_V4, "::", "::1", ROUTER_WAN_V6
    others = "8.8.8.8", SERVER_V4, "10.0.0.1", "2001:db8::8", SERVER_V6
    by_version = [
        ",".join(each for each in (*own, *others) if (":" in each) == is_v6)
        for is_v6 in (False, True)
    ]
    ended = host.run("python3", "-c", BIND, *by_version, options=options, root=root)
    expected = dict.fromkeys(own, "bound") | dict.fromkeys(
        others, "Cannot assign requested address"
    )
    said = [tuple(line.split("\t")) for line in ended.out.splitlines()]
    assert sorted(said) == sorted(2 * [*expected.items()])  # of TCP and of UDP


def test_a_blocked_host_is_refused_without_being_asked(host, nginx) -> None:
    ended = host.run("python3", "-c", CONNECT, SERVER_V4, "80", options=["--block", SERVER_V4])
    assert ended.out == "Connection refused\n"
    assert [event["reason"] for event in ended.of_type("flow.close")] == ["blocked"]


ASK = """
import socket, struct, sys
query = bytes.fromhex("123401000001000000000000") + b"\\x03any\\x07example\\0\\0\\1\\0\\1"
for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
    for server in sys.argv[1:]:
        with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, kind) as sock:
            sock.settimeout(10)
            sock.connect((server, 53))
            prefix = struct.pack("!H", len(query)) if kind == socket.SOCK_STREAM else b""
            sock.send(prefix + query)
            print(socket.inet_ntoa(sock.recv(4096)[-4:]))
"""


def test_names_are_the_hosts_whichever_resolver_is_asked(host, resolver) -> None:
    script = 'getent hosts byfile.example byresolver.example; exec python3 -c "$0" "$@"'
    argv = ("sh", "-c", script, ASK, "127.0.0.53", "192.0.2.53", "2001:db8::53")
    lines = host.run(*argv).out.splitlines()
    assert [line.split()[1] for line in lines[:2]] == ["byfile.example", "byresolver.example"]
    assert "byresolver.example" in resolver
    assert lines[2:] == 6 * [SERVER_V4]


def test_quic_is_refused_at_once_and_other_datagrams_are_said_to_be_lost(host) -> None:
    script = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try:
    for _ in range(2):
        sock.sendto(b"x", ("198.51.100.2", 443))
except OSError as error:
    print(error.strerror)
for _ in range(3):
    sock.sendto(b"x", ("198.51.100.2", 123))
"""
    ended = host.run("python3", "-c", script)
    assert ended.out == "Operation not permitted\n"
    assert [note for note in ended.notes if "198.51.100.2:123" in note] == ended.notes[:1]


def test_quic_that_is_refused_is_told_with_its_hello_of_two_datagrams(host) -> None:
    hello = vectors()[0].client_payload[4:]
    halves = [
        initial(crypto(start, hello[start:end]) + bytes(900), number)
        for number, (start, end) in enumerate(((100, None), (0, 100)))
    ]
    script = f"""
import socket
for address in {SERVER_V4!r}, {SERVER_V6!r}:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        for datagram in {halves!r}:
            try:
                sock.sendto(datagram, (address, 443))
            except OSError as error:
                print(error.strerror)
for datagram in {halves[0]!r}, b"no QUIC":
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(datagram, ({SERVER_V4!r}, 443))
"""
    ended = host.run("python3", "-c", script)
    assert ended.out == "Operation not permitted\n" * 2
    told = ended.of_type("quic.refused")
    assert [(each["destination"]["ip"], each["sni"], each["alpn"]) for each in told] == [
        (SERVER_V4, "example.com", ["alpn"]),
        (SERVER_V6, "example.com", ["alpn"]),
        (SERVER_V4, None, None),
    ]
    assert [each["ja4"] for each in told[1:]] == ["q13d0211an_62ed6f6ca7ad_4d634acda6c0", None]


ECHO = """
import socket, sys
for address in sys.argv[1:]:
    server = address, 7000
    for connected in (True, False):
        with socket.socket(
            socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM
        ) as sock:
            sock.settimeout(10)
            if connected:
                sock.connect(server)
            for word in (b"one", b"two"):
                sock.sendto(word, server)
                data, sender = sock.recvfrom(100)
                print(data.decode(), sender[:2] == server)
"""


def test_datagrams_can_be_let_pass(host) -> None:
    def serve(echo: socket.socket) -> None:
        for _ in range(4):
            data, client = echo.recvfrom(100)
            echo.sendto(data.upper(), client)

    with ExitStack() as stack:
        threads = []
        for family, address in ((socket.AF_INET, SERVER_V4), (socket.AF_INET6, SERVER_V6)):
            echo = stack.enter_context(host.lab.server.socket(family, socket.SOCK_DGRAM))
            echo.bind((address, 7000))
            echo.settimeout(60)
            threads.append(threading.Thread(target=serve, args=(echo,)))
            threads[-1].start()
        argv = ("python3", "-c", ECHO, SERVER_V4, SERVER_V6)
        ended = host.run(*argv, options=["--udp", "pass"])
        for thread in threads:
            thread.join()
    assert ended.out == 4 * "ONE True\nTWO True\n"
    assert ended.notes == []


def test_a_server_of_the_command_can_have_the_port_of_one_that_it_asked(host) -> None:
    script = f"""
import socket
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.settimeout(10)
asking.sendto(b"one", ("{SERVER_V4}", 4001))
print(asking.recvfrom(100))
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind(("", 4001))
print("bound")
"""
    with host.lab.server.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((SERVER_V4, 4001))
        answering = threading.Thread(target=lambda: server.sendto(b"ONE", server.recvfrom(100)[1]))
        answering.start()
        ended = host.run("python3", "-c", script, options=["--udp", "pass"])
        answering.join()
    assert ended.out == f"(b'ONE', ('{SERVER_V4}', 4001))\nbound\n"


# --- loopback ------------------------------------------------------------------------------------


SOURCES = """
import socket, sys

for source, destination in (pair.split(",") for pair in sys.argv[1:]):
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    with socket.socket(family) as server, socket.socket(family) as client:
        server.bind((destination, 0))
        server.listen()
        client.bind((source, 0))
        client.connect(server.getsockname())
        client.sendall(b"x")
        with server.accept()[0] as accepted:
            accepted.recv(1)
            print(accepted.getpeername()[0], client.getpeername() == server.getsockname())
"""


def test_with_loopback_a_server_sees_the_address_of_the_client(host) -> None:
    pairs = [
        ("127.0.0.2", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.3"),
        ("127.0.0.5", "127.0.0.5"),
        (ROUTER_WAN_V4, "127.0.0.1"),
        ("127.0.0.2", ROUTER_WAN_V4),
        (ROUTER_WAN_V4, ROUTER_WAN_V4),
        ("::1", "::1"),
        (ROUTER_WAN_V6, "::1"),
        ("::1", ROUTER_WAN_V6),
    ]
    argv = ["python3", "-c", SOURCES, *map(",".join, pairs)]
    for options in ((), ("--loopback",)):
        ended = host.run(*argv, options=options)
        assert ended.out.splitlines() == [f"{source} True" for source, _ in pairs]
        assert len(ended.stacks) == (len(pairs) if options else 0)


REBIND = """
import socket, sys

def listen(port):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen()
    return sock

def restart(port, *closed):
    with listen(port) as server, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"x")
        with server.accept()[0] as accepted:
            accepted.recv(1)
            server.close()
            ends = {"client": client, "server": accepted}
            for name in closed:
                ends.pop(name).close()
                for other in ends.values():
                    other.recv(1)
            try:
                listen(port).close()
            except OSError as error:
                print(port, error.strerror)

restart(8101)
restart(8102, "client")
restart(8103, "server")
restart(8104, "client", "server")
restart(8105, "server", "client")
print("done")
"""


@pytest.mark.parametrize("options", [[], ["--loopback"]], ids=["unseen", "seen"])
def test_a_commands_own_servers_work_and_can_be_restarted(host, options) -> None:
    """Whatever their connections do."""
    argv = ("sh", "-c", 'python3 -c "$0"; exec python3 -c "$1"', SERVE, REBIND)
    ended = host.run(*argv, options=options)
    assert ended.out == "200\ndone\n"
    assert (["http/1"] in ended.stacks) if options else (ended.stacks == [])


@pytest.mark.parametrize("options", [[], ["--loopback"]], ids=["unseen", "seen"])
def test_the_hosts_own_services_are_reached(host, options, wait_until) -> None:
    """On 127.0.0.1 alone, by a name that means ::1 first."""
    server = host.popen(host.shell("python3", "-m", "http.server", "--bind", "127.0.0.1", "8123"))
    wait_until(
        lambda: "127.0.0.1:8123" in host.lab.router.run("ss", "-Hltn").stdout,
        "the server listens",
    )
    visits = (
        ("http://localhost:8123/",),
        ("--interface", "127.0.0.2", "http://127.0.0.1:8123/"),
    )
    status = ("-o", "/dev/null", "-w", "%{http_code}")
    script = "; ".join(shlex.join((*CURL, *status, *visit)) for visit in visits)
    ended = host.run("sh", "-c", script, options=options)
    assert ended.out == "200200"
    assert ended.stacks == (2 * [["http/1"]] if options else [])
    server.kill()
    _, log = server.communicate()
    assert [line.split()[0] for line in log.splitlines()] == ["127.0.0.1", "127.0.0.2"]


# --- ends ----------------------------------------------------------------------------------------


def test_descendants_keep_their_network_until_the_last_has_ended(host, nginx) -> None:
    late = f"(read line <&3; {shlex.join((*CURL, 'http://www.example/'))}) & exit 3"
    script = f"exec 3<&0; {late}"
    process = host.popen(host.argv("sh", "-c", script), stdin=subprocess.PIPE)
    while "goes on" not in (line := process.stderr.readline()):
        assert line, "it did not wait"
    assert process.communicate("go\n", timeout=60)[0] == HELLO
    assert process.returncode == 3


def test_without_waiting_the_session_ends_with_the_command(host) -> None:
    """And not with what it has started, which goes on for as long as we hold its standard input."""
    script = "exec 3<&0; cat <&3 >/dev/null 2>&1 & exit 3"
    process = host.popen(
        host.argv("sh", "-c", script, options=["--no-wait"]), stdin=subprocess.PIPE
    )
    assert process.wait(60) == 3
    process.communicate()


def test_a_signal_to_us_is_the_commands(host) -> None:
    script = (
        'for each in TERM HUP INT USR1; do trap "echo $each" $each; done; trap "exit 9" USR2; '
        "echo ready; while :; do sleep 0.05; done"
    )
    process = host.popen(host.argv("sh", "-c", script), start_new_session=True)
    assert process.stdout.readline() == "ready\n"
    for name in ("TERM", "HUP", "INT", "USR1"):
        process.send_signal(signal.Signals[f"SIG{name}"])
        assert process.stdout.readline() == f"{name}\n"
    process.send_signal(signal.SIGUSR2)
    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == 9


def test_under_nohup_the_end_of_the_terminal_is_none_of_the_sessions(host, nginx) -> None:
    """What the command has started keeps its network all the same."""
    late = f"(read line <&3; {' '.join(CURL)} http://www.example/) & exit 3"
    script = f"exec 3<&0; echo ready; read line; {late}"
    process = host.popen(["nohup", *host.argv("sh", "-c", script)], stdin=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    assert process.communicate("go\ngo\n", timeout=60)[0] == HELLO
    assert process.returncode == 3


def test_when_we_are_killed_the_command_is_told_and_refused_everything_at_once(host, nginx) -> None:
    script = f"""
import signal, socket, subprocess, sys, time
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append("told"))
print("ready", flush=True)
while not told:
    time.sleep(0.01)
before = time.monotonic()
outcomes = []
for target in (("{SERVER_V4}", 80), ("{SERVER_V6}", 80), ("127.0.0.1", 9)):
    try:
        socket.create_connection(target, 20)
    except OSError as error:
        outcomes.append(error.strerror)
try:
    socket.getaddrinfo("www.example", 80)
except OSError as error:
    outcomes.append("no name")
print(*outcomes, sep="\\n")
print("quick" if time.monotonic() - before < 10 else "slow")
"""
    process = host.popen(host.argv("python3", "-c", script))
    assert process.stdout.readline() == "ready\n"
    process.kill()
    out = process.stdout.read()  # until the command, which has our standard output, ends
    refused = "Connection refused"
    assert out.splitlines() == [refused, refused, refused, "no name", "quick"]


def test_when_we_are_killed_neither_end_takes_what_has_come_so_far_for_the_whole(host) -> None:
    script = f"""
import signal, socket
signal.signal(signal.SIGTERM, signal.SIG_IGN)
connection = socket.create_connection(("{SERVER_V4}", 8088))
connection.sendall(b"half of it")
print(connection.recv(100), flush=True)
try:
    print(connection.recv(100))
except OSError as error:
    print(error.strerror)
"""
    heard: list[object] = []

    def echo() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(connection.recv(100))
            try:
                heard.append(connection.recv(100))
            except ConnectionResetError as error:
                heard.append(error.strerror)

    with host.lab.server.call(lambda: socket.create_server((SERVER_V4, 8088))) as server:
        server.settimeout(20)
        thread = threading.Thread(target=echo)
        thread.start()
        process = host.popen(host.argv("python3", "-c", script, options=["-q"]))
        assert process.stdout.readline() == "b'half of it'\n"
        process.kill()
        assert process.stdout.read() == "Connection reset by peer\n"
        thread.join()
    assert heard == ["Connection reset by peer"]


# --- bad input -----------------------------------------------------------------------------------


def test_an_output_that_cannot_be_written_is_said_before_the_command_runs(host) -> None:
    ended = host.run("touch", "ran", options=["-o", "/no/such/directory/events"])
    assert ended.code == 1
    assert ended.err.startswith("error: cannot write /no/such/directory/events")
    assert not (host.home / "ran").exists()


def test_without_nft_the_package_is_named(host) -> None:
    hide = 'for each in /usr/sbin/nft /sbin/nft; do mount --bind /dev/null $each; done; exec "$@"'
    process = host.popen(host.shell("sh", "-c", hide, "sh", *host.argv("true")))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert err == "error: nft is not installed\nhint: apt install nftables\n"


def test_as_pid_1_it_ends_with_its_command_and_passes_signals_on(host) -> None:
    as_pid_1 = ("unshare", "--pid", "--fork", "--mount-proc")
    left_behind = "(sleep 0.2; echo late) & exit 7"
    told = 'trap "echo told; exit 3" TERM; kill -TERM 1; sleep 20 & wait'
    for script, expected in ((left_behind, (7, "late\n")), (told, (3, "told\n"))):
        run = host.argv("sh", "-c", script, root=True)
        process = host.popen([*as_pid_1, *run])
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out) == expected
