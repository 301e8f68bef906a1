"""http://192.0.2.1/ from an intercepted client, from the host itself, and from Chromium."""

from __future__ import annotations

import plistlib
import re

import pytest
from cryptography import x509

from mitml4.lab.network import WAN

PAGE = "http://192.0.2.1/"
CURL = ("curl", "-sS", "--noproxy", "*", "--max-time", "20")
FILES = ("mitml4-ca.crt", "mitml4-ca.pem", "mitml4-ca.p12", "mitml4-ca.mobileconfig")


@pytest.fixture(scope="module")
def lab(lab_without_ca_page_address):
    return lab_without_ca_page_address


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--port", "443", "--to", "198.51.100.0/24", "--exclude-port", "80"),
        ("--direction", "forwarded"),
    ],
    ids=["default", "other scope", "forwarded"],
)
def test_a_forwarded_client_gets_the_page_and_its_files(intercept, client, options) -> None:
    session = intercept(*options)
    watch = session.watch()
    found = client.run(*CURL, "-i", PAGE)
    assert found.code == 0, found.err
    assert b"content-security-policy: default-src 'none'" in found.out.lower()
    ca = x509.load_pem_x509_certificate(session.ca.read_bytes())
    files = {name: client.run(*CURL, "-f", PAGE + name).out for name in FILES}
    assert x509.load_der_x509_certificate(files["mitml4-ca.crt"]) == ca
    assert files["mitml4-ca.pem"] == session.ca.read_bytes()
    assert plistlib.loads(files["mitml4-ca.mobileconfig"])["PayloadType"] == "Configuration"
    key = (session.ca.parent / "mitml4-ca-key.pem").read_text().splitlines()[1]
    assert not any(key.encode() in each for each in (found.out, *files.values()))
    flows = watch.flows(5)
    for flow in flows:
        assert (flow.stack, flow.actions) == (["http/1"], ["answered"])
        assert flow.closed["reason"] == "closed"
        assert flow.layers[0]["connect_s"] is None
        assert flow.errors == []
    urls = [event["url"] for flow in flows for event in flow.http if "url" in event]
    assert urls == [PAGE, *(PAGE + name for name in FILES)]


def test_the_host_itself_gets_the_page(intercept, lab) -> None:
    session = intercept("--direction", "local", iface=WAN)
    watch = session.watch()
    assert "mitml4-ca.pem" in lab.router.run(*CURL, PAGE).stdout
    assert watch.flow().actions == ["answered"]


def test_clients_out_of_scope_and_other_ports_get_nothing_of_ours(intercept, client) -> None:
    session = intercept("--from", "203.0.113.77")
    watch = session.watch()
    assert client.run(*CURL, "--max-time", "2", PAGE).code != 0
    assert session.flows(watch.since) == []


def test_without_the_page_the_address_is_dialled(intercept, client) -> None:
    session = intercept("--no-ca-page")
    watch = session.watch()
    assert client.run(*CURL, PAGE).code == 7  # curl(1): could not connect
    flow = watch.flow()
    assert [error["side"] for error in flow.errors] == ["server"]
    assert flow.layers == []


def test_a_blocked_page_is_blocked(intercept, client) -> None:
    session = intercept("--block", "192.0.2.1")
    watch = session.watch()
    assert client.run(*CURL, PAGE).code != 0
    assert watch.flow().closed["reason"] == "blocked"


def test_chromium_shows_the_page_and_breaks_no_policy(intercept, client, tmp_path) -> None:
    intercept()
    shot = tmp_path / "page.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/chrome"]
    options += ("--enable-logging=stderr", "--virtual-time-budget=5000", "--window-size=390,844")
    seen = client.run("chromium", *options, "--dump-dom", PAGE)
    assert "mitml4-ca.mobileconfig" in seen.text, seen.err
    refused = re.findall(r"CONSOLE.*", seen.err)
    assert not [line for line in refused if "favicon" not in line], seen.err
    client.run("chromium", *options, f"--screenshot={shot}", PAGE)
    assert shot.stat().st_size > 10_000
