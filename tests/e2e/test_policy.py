"""Options that decide what is opened, refused and written down."""

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


@pytest.mark.parametrize(
    ("options", "actions"),
    [
        (["--passthrough", "*.example"], ["passthrough"]),
        (["--passthrough", "other.example"], ["intercepted", "relayed"]),
        (["--only", "other.example"], ["passthrough"]),
        (["--only", "www.example"], ["intercepted", "relayed"]),
        (["--tls", "passthrough"], ["passthrough"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_the_user_says_what_is_opened(
    intercept, s_server, authority, identity, get, options, actions
):
    session = intercept(*options)
    port = s_server(identity)
    roots = identity.key.with_suffix(".roots.pem")
    roots.write_bytes(session.ca.read_bytes() + authority.root.read_bytes())
    watch = session.watch()
    outcome = get(port, "--cacert", str(roots))
    assert outcome.code == 0, outcome
    flow = watch.flow()
    assert flow.actions == actions
    assert flow.layer("tls")["details"]["sni"] == "www.example"


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


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("leg", ["lan", "wan"])
def test_the_key_log_decrypts_both_legs(
    intercept, s_server, identity, client, get, lab, wait_until, tmp_path, version, leg
):
    keys, capture = tmp_path / "keys.txt", tmp_path / "leg.pcap"
    session = intercept("--keylog", str(keys))
    port = s_server(identity)
    command = ["tcpdump", "--immediate-mode", "-U", "-Z", "root", "-i", leg, "-w", str(capture)]
    sniffer = lab.router.popen([*command, "tcp", "port", str(port)], stderr=-1)

    def hosts_in_requests():
        """What tshark reads with the keys; the capture's last packets may take a moment."""
        command = ["tshark", "-r", str(capture), "-o", f"tls.keylog_file:{keys}"]
        dissectors = ["-d", f"tcp.port=={port},tls", "-d", f"tls.port=={port},http"]
        fields = ["-Y", "http.request", "-T", "fields", "-e", "http.host"]
        return client.run(*command, *dissectors, *fields).text.split()

    with sniffer:
        try:
            sniffer.stderr.readline()  # "listening on …"
            watch = session.watch()
            get(port, "--cacert", str(session.ca), "--tls-max", version)
            watch.flow()
            assert wait_until(hosts_in_requests, "tshark reads the request") == [
                f"www.example:{port}"
            ]
        finally:
            sniffer.terminate()
            sniffer.communicate()
    assert len(set(keys.read_text().splitlines())) == len(keys.read_text().splitlines())
    assert keys.stat().st_mode & 0o077 == 0
