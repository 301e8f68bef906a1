"""Options that decide what is opened, refused and written down."""

from contextlib import ExitStack

import pytest

V4 = "198.51.100.2"
DEMAND = ["-Verify", "3", "-verify_return_error"]


@pytest.fixture
def get(client):
    """curl for a page of an `openssl s_server` under its name."""

    def run(port, *options, name="www.example"):
        return client.run(
            *("curl", "-sS", "--max-time", "10", "-o", "/dev/null"),
            *("--resolve", f"{name}:{port}:{V4}", *options, f"https://{name}:{port}/"),
        )

    return run


def test_on_pinned_fail_never_lets_through(intercept, s_server, authority, get):
    session = intercept("--on-pinned", "fail")
    port = s_server(authority.issue("pinned.example"))
    for _ in range(2):
        watch = session.watch()
        outcome = get(port, "--cacert", str(authority.root), name="pinned.example")
        assert outcome.code == 60
        assert watch.flow().actions == ["intercepted"]


def test_a_client_certificate_of_ours_is_shown(intercept, s_server, authority, identity, get):
    ours = authority.issue("client.example")
    both = ours.key.with_suffix(".both.pem")
    both.write_bytes(ours.certificate.read_bytes() + ours.key.read_bytes())
    session = intercept("--client-cert", str(both))
    port = s_server(identity, *DEMAND, "-CAfile", str(authority.root))
    watch = session.watch()
    outcome = get(port, "--cacert", str(session.ca))
    assert outcome.code == 0, outcome
    assert watch.flow().actions[0] == "intercepted"


# --- policy


OPENED, PASSED = ["intercepted", "relayed"], ["passthrough"]


@pytest.mark.parametrize(
    ("options", "first", "second"),
    [
        (["--passthrough", "first.*"], PASSED, OPENED),
        (["--only", "first.example"], OPENED, PASSED),
        (["--tls", "passthrough"], PASSED, PASSED),
    ],
    ids=lambda value: " ".join(value),
)
def test_the_user_says_what_is_opened(
    intercept, s_server, authority, get, tmp_path, options, first, second
):
    session = intercept(*options)
    port = s_server(authority.issue("first.example", "second.example"))
    roots = tmp_path / "roots.pem"
    roots.write_bytes(session.ca.read_bytes() + authority.root.read_bytes())
    for name, actions in (("first.example", first), ("second.example", second)):
        watch = session.watch()
        outcome = get(port, "--cacert", str(roots), name=name)
        assert outcome.code == 0, outcome
        flow = watch.flow()
        assert flow.actions == actions
        assert flow.layer("tls")["details"]["sni"] == name


def test_a_blocked_name_is_refused(intercept, s_server, identity, get):
    session = intercept("--block", "www.example")
    port = s_server(identity)
    watch = session.watch()
    outcome = get(port, "-k")
    assert outcome.code == 35  # reset in the handshake
    assert "reset by peer" in outcome.err
    assert watch.flow().closed["reason"] == "blocked"


@pytest.mark.parametrize(("how", "code"), [("mirror", 60), ("reject", 35), ("ignore", 0)])
def test_the_user_says_what_an_untrusted_server_becomes(
    intercept, s_server, authority, get, how, code
):
    session = intercept("--upstream", how)
    port = s_server(authority.issue("www.example", self_signed=True))
    outcome = get(port, "--cacert", str(session.ca))
    assert outcome.code == code, outcome


# --- the key log opens what tcpdump saw


def test_the_key_log_decrypts_both_legs(
    intercept, s_server, identity, client, get, lab, wait_until, tmp_path
):
    keys = tmp_path / "keys.txt"
    session = intercept("--keylog", str(keys))
    port = s_server(identity)

    def hosts_in_requests(capture):
        """What tshark reads with the keys; the capture's last packets may take a moment."""
        command = ["tshark", "-r", str(capture), "-o", f"tls.keylog_file:{keys}"]
        dissectors = ["-d", f"tcp.port=={port},tls", "-d", f"tls.port=={port},http"]
        fields = ["-Y", "http.request", "-T", "fields", "-e", "http.host"]
        return client.run(*command, *dissectors, *fields).text.split()

    with ExitStack() as stack:
        captures = []
        for leg in ("lan", "wan"):
            captures.append(tmp_path / f"{leg}.pcap")
            command = ["tcpdump", "--immediate-mode", "-U", "-Z", "root", "-i", leg]
            command += ["-w", str(captures[-1]), "tcp", "port", str(port)]
            sniffer = stack.enter_context(lab.router.popen(command, stderr=-1))
            stack.callback(sniffer.communicate)
            stack.callback(sniffer.terminate)
            sniffer.stderr.readline()  # "listening on …"
        for version in ("1.2", "1.3"):
            watch = session.watch()
            get(port, "--cacert", str(session.ca), "--tls-max", version)
            watch.flow()
        for capture in captures:
            wait_until(
                lambda capture=capture: hosts_in_requests(capture) == 2 * [f"www.example:{port}"],
                f"tshark reads both requests in {capture.name}",
            )
    assert len(set(keys.read_text().splitlines())) == len(keys.read_text().splitlines())
    assert keys.stat().st_mode & 0o077 == 0
