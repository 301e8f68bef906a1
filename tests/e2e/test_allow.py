"""`intercept --allow`: what is named is reached, and nothing else."""

from __future__ import annotations

import pytest

V4 = "198.51.100.2"
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
