"""What a session does with the traffic: TLS, policy, proxies, rules and scripts."""

from __future__ import annotations

from typing import Final

from mitml4.cli.options.sections import DURATION, HOST, SIZE, choice, option
from mitml4.cli.values import File, Parsed, parse_client_certificate, parse_readable, parse_via

__all__ = ["ALLOW", "EDITING", "POLICY", "VIA"]

POLICY: Final = (
    choice(
        "TLS",
        "--tls",
        "intercept",
        "passthrough",
        help="Decrypt TLS, or only report its ClientHello and ServerHello.",
    ),
    choice(
        "TLS",
        "--tls-engine",
        "auto",
        "bridge",
        "openssl",
        help="What does the TLS: bridge sends the server the client's own ClientHello; openssl "
        "sends one of OpenSSL's that is similar; auto uses openssl where bridge cannot finish.",
    ),
    option(
        "TLS",
        "--passthrough",
        type=HOST,
        multiple=True,
        help="Do not decrypt TLS to this host; repeatable. HOST is a name, a glob such as "
        "*.example.com (all names below example.com, but not example.com), an address or a "
        "network, each with an optional :PORT.",
    ),
    option(
        "TLS",
        "--only",
        type=HOST,
        multiple=True,
        help="Decrypt TLS only to this host; repeatable. --passthrough makes exceptions.",
    ),
    choice(
        "TLS",
        "--on-pinned",
        "passthrough",
        "fail",
        help="After a client has refused mitml4's certificate: pass its next connections to that "
        "host through for a while, or let them fail again.",
    ),
    choice(
        "TLS",
        "--upstream",
        "mirror",
        "reject",
        "ignore",
        help="If a server's certificate does not verify: mirror shows the client a certificate "
        "with the same defect, or passes the connection through if that is impossible; reject ends "
        "the connection; ignore signs as if the issuer were trusted (dates and names stay).",
    ),
    option(
        "TLS",
        "--probe-clients",
        is_flag=True,
        help="Test whether clients check certificates: show each client, at each name, one defect "
        "after the other, one a connection, before TLS is intercepted as usual. docs/probe.md "
        "describes it.",
    ),
    option(
        "TLS",
        "--ca-page/--no-ca-page",
        default=True,
        show_default=True,
        help="Answer requests for http://192.0.2.1/ with a page that offers the certificate of the "
        "authority, and says how to trust it.",
    ),
    option(
        "TLS",
        "--upstream-ca",
        type=File(parse_readable),
        help="Verify servers against the certificates in this PEM file too.",
    ),
    option(
        "TLS",
        "--client-cert",
        type=File(parse_client_certificate),
        help="PEM file with a client certificate and its key, for servers that ask for one.",
    ),
    option(
        "Policy",
        "--block",
        type=HOST,
        multiple=True,
        help="Refuse connections to this host; repeatable. HOST as for --passthrough. It is "
        "matched against the destination, its name in DNS (run), SNI, and the hosts in HTTP, SOCKS "
        "and PROXY headers. If one of these cannot be read, the connection ends.",
    ),
)
ALLOW: Final = (
    option(
        "Policy",
        "--allow",
        type=HOST,
        multiple=True,
        help="Refuse everything but connections to this host; repeatable. HOST as for "
        "--passthrough, but a glob names no address, and private, link-local and loopback "
        "addresses have to be named. DNS, SNI and the hosts in HTTP requests have to agree, and "
        "certificates have to verify. docs/sandbox.md tells what this keeps in.",
    ),
)
VIA: Final = (
    option(
        "Route",
        "--via",
        type=Parsed("url", parse_via),
        multiple=True,
        metavar="[HOST=]URL",
        help="Connect to servers through this proxy, or only to HOST, which is as for "
        "--passthrough; repeated for the same hosts, through each proxy in turn. URL is "
        "http://, https://, socks4a://, socks5:// or socks5h://[USER:PASSWORD@]HOST[:PORT]. "
        "`run` also takes it from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.",
    ),
    option(
        "Route",
        "--no-via",
        type=HOST,
        multiple=True,
        help="Connect to this host directly; repeatable. '*' disregards the variables of the "
        "environment.",
    ),
)
EDITING: Final = (
    option(
        "Editing",
        "--rules",
        type=File(parse_readable),
        multiple=True,
        help="Change traffic by the rules in this file (TOML); repeatable. It is read again when "
        "it changes. `mitml4 rules check FILE` checks it.",
    ),
    option(
        "Editing",
        "--script",
        type=File(parse_readable),
        multiple=True,
        help="Let functions in this Python file see and change traffic; repeatable. It runs as the "
        "user who has started mitml4, in a separate process, and is read again when it changes. "
        "docs/hooks.md describes the functions.",
    ),
    option(
        "Editing",
        "--script-timeout",
        type=DURATION,
        default="5s",
        show_default=True,
        help="Maximum time of a function of a script; then the traffic stays as it was.",
    ),
    option(
        "Editing",
        "--edit-limit",
        type=SIZE,
        default="16MiB",
        show_default=True,
        help="Maximum bytes of a body that rules and scripts may change; larger ones pass "
        "unchanged.",
    ),
)
