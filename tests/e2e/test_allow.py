"""`intercept --allow`: what is named is reached, and nothing else."""

from __future__ import annotations

import subprocess

import pytest

V4 = "198.51.100.2"
V6 = "2001:db8:2::2"
HELLO = "hello from nginx\n"
WITH_HOSTS = 'mount --bind "$0" /etc/hosts && mount --bind /dev/null /etc/resolv.conf && exec "$@"'


@pytest.fixture
def visit(client, authority, tmp_path):
    """curl, which trusts both roots, and knows every name."""

    def run(session, name, scheme, port, *options):
        roots = tmp_path / "roots.pem"
        roots.write_bytes(session.ca.read_bytes() + authority.root.read_bytes())
        return client.run(
            *("curl", "-sS", "--max-time", "20", "--cacert", str(roots)),
            *("--resolve", f"{name}:{port}:{V4}", *options, f"{scheme}://{name}:{port}/"),
        )

    return run


def test_only_what_is_named_is_reached(
    intercept, nginx, s_server, authority, hosts, visit, client
) -> None:
    """The names of the hosts file are known by a lookup, the others by their certificates."""
    options = [part for each in ("www.example", "*.glob.example") for part in ("--allow", each)]
    mount = ("unshare", "--mount", "sh", "-c", WITH_HOSTS, str(hosts))
    session = intercept(*options, wrapper=mount)

    def ends(name, scheme, port, *options):
        watch = session.watch()
        outcome = visit(session, name, scheme, port, *options)
        return outcome.text, watch.flow().closed["reason"]

    assert ends("www.example", "https", 443) == (HELLO, "closed")
    assert ends("www.example", "http", 80) == (HELLO, "closed")
    shown = s_server(authority.issue("only.glob.example"))
    text, reason = ends("only.glob.example", "https", shown)
    assert "s_server" in text, text
    assert reason == "closed"
    refused = (
        ("only.glob.example", "http", 80),
        ("glob.example", "https", 443),
        ("other.glob.example", "https", shown),  # it shows a certificate for another name
        ("other.example", "https", 443),
        ("other.example", "http", 80),
        ("www.example", "http", 80, "-H", "Host: other.example"),
        ("www.example", "https", 443, "--http1.1", "-H", "Host: other.example"),
        ("www.example", "http", 80, "--proxy", f"http://{V4}:80", "--proxytunnel"),
        (V4, "https", 443, "-k"),
        (V4, "http", 80),
        ("www.example", "http", 80, "--http2-prior-knowledge"),
    )
    for each in refused:
        text, reason = ends(*each)
        assert (HELLO not in text, reason) == (True, "denied"), each
    assert ends("www.example", "https", 443, "--http2", "-H", "Host: other.example") == (
        "mitml4: other.example:443 is not in --allow\n",
        "denied",
    )


def test_tls_stays_closed_for_names_that_are_known(intercept, nginx, hosts, visit) -> None:
    mount = ("unshare", "--mount", "sh", "-c", WITH_HOSTS, str(hosts))
    options = ("--passthrough", "*.example", "--allow", "www.example")
    session = intercept(*options, wrapper=mount)
    for name, expected in (("www.example", (HELLO, "closed")), ("other.example", ("", "denied"))):
        watch = session.watch()
        outcome = visit(session, name, "https", 443)
        assert (outcome.text, watch.flow().closed["reason"]) == expected


def test_a_running_program_reaches_only_what_is_named_by_ipv4_and_ipv6(
    intercept, nginx, client, authority, hosts, tmp_path
) -> None:
    names = tmp_path / "hosts"
    names.write_text(f"{hosts.read_text()}{V6} www.example\n")
    mount = ("unshare", "--mount", "sh", "-c", WITH_HOSTS, str(names))
    idle = ("sh", "-c", "echo ready; exec cat")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with client.namespace.popen([*mount, *idle], **pipes) as program:
        assert program.stdout.readline() == b"ready\n"
        options = ("--allow", "www.example", "--allow", f"[{V6}]:444", "--no-trust")
        session = intercept(*options, scope=("--pid", str(program.pid)))
        roots = tmp_path / "roots.pem"
        roots.write_bytes(session.ca.read_bytes() + authority.root.read_bytes())

        def visit(address: str, url: str) -> tuple[str, str]:
            name, _, port = url.partition("//")[2].partition(":")
            watch = session.watch()
            outcome = client.run(
                *("curl", "-sS", "--max-time", "20", "--cacert", str(roots), url),
                *("--resolve", f"{name}:{port}:{address}"),
            )
            return outcome.text, watch.flow().closed["reason"]

        for address in (V4, V6):
            for url in ("https://www.example:443", "http://www.example:80"):
                assert visit(address, url) == (HELLO, "closed"), (address, url)
            for url in ("https://other.example:443", "http://other.example:80"):
                assert visit(address, url) == ("", "denied"), (address, url)
        # Nothing listens there, and an address that is named is asked.
        assert visit(V6, "http://other.example:444")[1] == "refused"
        assert visit(V4, "http://other.example:444") == ("", "denied")
