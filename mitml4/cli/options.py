"""The options of a session: names, values, defaults and help, in sections."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import click

from mitml4.cli.values import (
    File,
    Interface,
    Parsed,
    parse_client_certificate,
    parse_condition,
    parse_duration,
    parse_lifetime,
    parse_network,
    parse_output,
    parse_packets_output,
    parse_readable,
    parse_size,
    parse_via,
)
from mitml4.net.rules.scope import PortRange
from mitml4.session.policy import HostPattern

__all__ = [
    "Command",
    "SectionOption",
    "capture_files_options",
    "intercept_options",
    "run_options",
    "section_of",
    "shown_options",
]

F = TypeVar("F", bound=Callable[..., Any])


class SectionOption(click.Option):
    """An option that the help lists under a heading."""

    def __init__(self, *args: Any, section: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.section = section


class Command(click.Command):
    """A command whose help lists its options in sections.

    `exit_status` and `keys` are tables for its man page and the reference: terms and meanings.
    """

    def __init__(
        self,
        *args: Any,
        exit_status: tuple[tuple[str, str], ...] = (),
        keys: tuple[tuple[str, str], ...] = (),
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        self.exit_status = exit_status
        self.keys = keys

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            if isinstance(option, click.Option) and (record := option.get_help_record(ctx)):
                sections.setdefault(section_of(option), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def section_of(option: click.Option) -> str:
    """The heading under which an option is listed."""
    return option.section if isinstance(option, SectionOption) else "Options"


_HOST: Final = Parsed("host", HostPattern.parse)
_PORTS: Final = Parsed("ports", PortRange.parse_list)
_CIDR: Final = Parsed("cidr", parse_network)
_DURATION: Final = Parsed("duration", parse_duration)
_SIZE: Final = Parsed("size", parse_size)


def _option(section: str, *names: str, **settings: Any) -> Callable[[F], F]:
    return click.option(*names, cls=SectionOption, section=section, **settings)


def _choice(section: str, name: str, *values: str, help: str) -> Callable[[F], F]:
    """An option with a closed set of values; the first is the default."""
    kind = click.Choice(values)
    return _option(section, name, type=kind, default=values[0], show_default=True, help=help)


_SCOPE: Final = (
    _option(
        "Scope",
        "--iface",
        type=Interface(),
        multiple=True,
        required=True,
        help="Intercept the traffic of this interface; repeatable.",
    ),
    _choice(
        "Scope",
        "--direction",
        "both",
        "forwarded",
        "local",
        help="Intercept connections that this host forwards, that it starts itself, or both.",
    ),
    _option(
        "Scope",
        "--port",
        type=_PORTS,
        multiple=True,
        help="Only these destination ports, such as 443,8000-8999; repeatable.",
    ),
    _option(
        "Scope",
        "--exclude-port",
        type=_PORTS,
        multiple=True,
        help="Exclude these destination ports; repeatable.",
    ),
    _option(
        "Scope",
        "--to",
        type=_CIDR,
        multiple=True,
        help="Only connections to this network; repeatable.",
    ),
    _option(
        "Scope",
        "--from",
        type=_CIDR,
        multiple=True,
        help="Only connections from this network; repeatable.",
    ),
    _choice(
        "Scope",
        "--quic",
        "block",
        "allow",
        help="QUIC (UDP/443): block refuses it, so that clients fall back to TCP; allow lets it "
        "pass unseen.",
    ),
    _option(
        "Scope",
        "--spoof-source",
        is_flag=True,
        help="Connect to servers from the client's address, instead of this host's.",
    ),
    _option(
        "TLS",
        "--ca-dir",
        type=File(),
        metavar="DIR",
        help="Directory of the certificate authority; created on first use. "
        "Default: $XDG_DATA_HOME/mitml4.",
    ),
)
_HAR: Final = _option(
    "Output",
    "--har",
    type=File(parse_output),
    help="Write the HTTP exchanges to this file as an HTTP archive for browsers' developer tools: "
    "headers, cookies, sizes and times; with --payload also bodies, forms, and the messages of "
    "WebSocket and gRPC. An existing file is replaced.",
)
_PLAIN: Final = _option(
    "Output",
    "--pcap-plain",
    type=File(parse_packets_output),
    metavar="FILE|tcp:HOST:PORT",
    help="Write what is said inside decrypted TLS to this file as packets without TLS, for tools "
    "that know no keys (Suricata, Zeek, tshark). tcp:HOST:PORT: send them to a program that waits "
    "there (PCAP over IP). An existing file is replaced.",
)
_SHOWN: Final = (
    _option("Output", "--headers", is_flag=True, help="Include HTTP headers in the events."),
    _option(
        "Output",
        "--payload",
        is_flag=True,
        help="Include what is said in the events: bodies, messages, and the bytes of other "
        "innermost protocols.",
    ),
    _option(
        "Output",
        "--payload-limit",
        type=_SIZE,
        default="64KiB",
        show_default=True,
        help="Maximum bytes that --payload shows of each body, message or direction.",
    ),
    _option(
        "Output",
        "--payload-total",
        type=_SIZE,
        default="256MiB",
        show_default=True,
        help="Maximum bytes that --payload shows in all.",
    ),
    _option(
        "Output",
        "--show-secrets",
        is_flag=True,
        help="Show passwords, cookies and the values of Authorization headers in the events and "
        "the HTTP archive, which otherwise have their length only.",
    ),
    _option(
        "Output",
        "--filter",
        type=Parsed("expr", parse_condition),
        help="Show and write only the flows and HTTP exchanges that match, such as "
        "'host:*.example.com (method:POST or status:5xx)'. -w and --keylog are not filtered. "
        "docs/filter.md describes the language.",
    ),
)
_POLICY: Final = (
    _choice(
        "TLS",
        "--tls",
        "intercept",
        "passthrough",
        help="Decrypt TLS, or only report its ClientHello and ServerHello.",
    ),
    _choice(
        "TLS",
        "--tls-engine",
        "auto",
        "bridge",
        "openssl",
        help="What does the TLS: bridge sends the server the client's own ClientHello; openssl "
        "sends one of OpenSSL's that is similar; auto uses openssl where bridge cannot finish.",
    ),
    _option(
        "TLS",
        "--passthrough",
        type=_HOST,
        multiple=True,
        help="Do not decrypt TLS to this host; repeatable. HOST is a name, a glob such as "
        "*.example.com (all names below example.com, but not example.com), an address or a "
        "network, each with an optional :PORT.",
    ),
    _option(
        "TLS",
        "--only",
        type=_HOST,
        multiple=True,
        help="Decrypt TLS only to this host; repeatable. --passthrough makes exceptions.",
    ),
    _choice(
        "TLS",
        "--on-pinned",
        "passthrough",
        "fail",
        help="After a client has refused mitml4's certificate: pass its next connections to that "
        "host through for a while, or let them fail again.",
    ),
    _choice(
        "TLS",
        "--upstream",
        "mirror",
        "reject",
        "ignore",
        help="If a server's certificate does not verify: mirror shows the client a certificate "
        "with the same defect, or passes the connection through if that is impossible; reject ends "
        "the connection; ignore signs as if the issuer were trusted (dates and names stay).",
    ),
    _option(
        "TLS",
        "--probe-clients",
        is_flag=True,
        help="Test whether clients check certificates: show each client, at each name, one defect "
        "after the other, one a connection, before TLS is intercepted as usual. docs/probe.md "
        "describes it.",
    ),
    _option(
        "TLS",
        "--ca-page/--no-ca-page",
        default=True,
        show_default=True,
        help="Answer requests for http://192.0.2.1/ with a page that offers the certificate of the "
        "authority, and says how to trust it.",
    ),
    _option(
        "TLS",
        "--upstream-ca",
        type=File(parse_readable),
        help="Verify servers against the certificates in this PEM file too.",
    ),
    _option(
        "TLS",
        "--client-cert",
        type=File(parse_client_certificate),
        help="PEM file with a client certificate and its key, for servers that ask for one.",
    ),
    _option(
        "Policy",
        "--block",
        type=_HOST,
        multiple=True,
        help="Refuse connections to this host; repeatable. HOST as for --passthrough. It is "
        "matched against the destination, its name in DNS (run), SNI, and the hosts in HTTP, SOCKS "
        "and PROXY headers. If one of these cannot be read, the connection ends.",
    ),
)
_ALLOW: Final = (
    _option(
        "Policy",
        "--allow",
        type=_HOST,
        multiple=True,
        help="Refuse everything but connections to this host; repeatable. HOST as for "
        "--passthrough, but a glob names no address, and private, link-local and loopback "
        "addresses have to be named. DNS, SNI and the hosts in HTTP requests have to agree, and "
        "certificates have to verify. docs/sandbox.md tells what this keeps in.",
    ),
)
_VIA: Final = (
    _option(
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
    _option(
        "Route",
        "--no-via",
        type=_HOST,
        multiple=True,
        help="Connect to this host directly; repeatable. '*' disregards the variables of the "
        "environment.",
    ),
)
_EDITING: Final = (
    _option(
        "Editing",
        "--rules",
        type=File(parse_readable),
        multiple=True,
        help="Change traffic by the rules in this file (TOML); repeatable. It is read again when "
        "it changes. `mitml4 rules check FILE` checks it.",
    ),
    _option(
        "Editing",
        "--script",
        type=File(parse_readable),
        multiple=True,
        help="Let functions in this Python file see and change traffic; repeatable. It runs as the "
        "user who has started mitml4, in a process of its own, and is read again when it changes. "
        "docs/hooks.md describes the functions.",
    ),
    _option(
        "Editing",
        "--script-timeout",
        type=_DURATION,
        default="5s",
        show_default=True,
        help="Maximum time of a function of a script; then the traffic stays as it was.",
    ),
    _option(
        "Editing",
        "--edit-limit",
        type=_SIZE,
        default="16MiB",
        show_default=True,
        help="Maximum bytes of a body that rules and scripts may change; larger ones pass "
        "unchanged.",
    ),
)
_DISPLAY: Final = (
    _option(
        "Output",
        "--json",
        is_flag=True,
        help="Write the events to standard output as JSON lines. This is the default, except on a "
        "terminal, where the default is a live table.",
    ),
)
_FILES: Final = (
    _option(
        "Output",
        "-o",
        "--output",
        type=File(parse_output),
        help="Also write the events to this file as JSON lines. An existing file is replaced.",
    ),
    _option(
        "Output",
        "--keylog",
        type=File(parse_output),
        help="Append the TLS secrets of both sides to this file, in the format that Wireshark "
        "reads.",
    ),
    _option(
        "Output",
        "-w",
        "--write",
        type=File(parse_output),
        help="Write the packets of the connections to this file as pcapng, with the TLS secrets "
        "with which Wireshark decrypts them. An existing file is replaced.",
    ),
    _HAR,
    _PLAIN,
    *_SHOWN,
)
_LIFE: Final = (
    _option(
        "Session",
        "--duration",
        type=Parsed("duration", parse_lifetime),
        help="End the session after this time, such as 30s or 5m.",
    ),
    _option(
        "Session",
        "--max-flows",
        type=click.IntRange(min=1),
        metavar="N",
        help="End the session after this number of connections.",
    ),
)
_DETECTION: Final = (
    _option(
        "Session",
        "--detect-timeout",
        type=_DURATION,
        default="500ms",
        show_default=True,
        help="Maximum time to hold back bytes that may become TLS.",
    ),
    _option(
        "Session",
        "--drain",
        type=_DURATION,
        default="5s",
        show_default=True,
        help="Maximum time for open connections to finish after the session has ended.",
    ),
)
_DRY_RUN: Final = (
    _option(
        "Session",
        "--dry-run",
        is_flag=True,
        help="Print the rules and how they are undone; change nothing.",
    ),
)
_COMMAND_SCOPE: Final = (
    _option(
        "Scope",
        "--loopback",
        is_flag=True,
        help="Also intercept the command's connections to 127.0.0.1 and ::1.",
    ),
    _choice(
        "Scope",
        "--udp",
        "drop",
        "pass",
        help="Drop UDP other than DNS and QUIC, or let it pass unseen. DNS is answered by the "
        "host's resolvers. QUIC (UDP/443) is refused: the command's send fails with EPERM, and "
        "clients fall back to TCP.",
    ),
    _option(
        "TLS",
        "--trust/--no-trust",
        default=True,
        show_default=True,
        help="Make the command trust the session's certificate authority.",
    ),
)
_COMMAND_DISPLAY: Final = (
    _option(
        "Output",
        "-q",
        "--quiet",
        is_flag=True,
        help="Print only errors, and no line for each connection.",
    ),
    _option(
        "Output",
        "--table",
        is_flag=True,
        help="Show a table instead of a line for each connection: on standard error, when the "
        "session ends; or live on the terminal, if standard output and standard error are both "
        "redirected.",
    ),
    _option(
        "Output",
        "--json",
        is_flag=True,
        help="Write the events to standard error as JSON lines, instead of a line for each "
        "connection.",
    ),
)
_COMMAND_LIFE: Final = (
    _option(
        "Session",
        "--wait/--no-wait",
        default=True,
        show_default=True,
        help="After the command has ended, wait for all processes that it has started.",
    ),
)

_INTERCEPT_OPTIONS: Final = (
    *_SCOPE, *_POLICY, *_VIA, *_EDITING, *_DISPLAY, *_FILES, *_LIFE, *_DETECTION, *_DRY_RUN
)  # fmt: skip
_RUN_OPTIONS: Final = (
    *_COMMAND_SCOPE, *_POLICY, *_ALLOW, *_VIA, *_EDITING, *_COMMAND_DISPLAY, *_FILES,
    *_COMMAND_LIFE, *_DETECTION,
)  # fmt: skip


def intercept_options(function: F) -> F:
    """Add the options of `intercept`; `intercept_config` takes their values."""
    return _with(_INTERCEPT_OPTIONS, function)


def run_options(function: F) -> F:
    """Add the options of `run`; `run_config` takes their values."""
    return _with(_RUN_OPTIONS, function)


def shown_options(function: F) -> F:
    """Add the options of what events show; `shown` takes their values."""
    return _with(_SHOWN, function)


def capture_files_options(function: F) -> F:
    """Add the options for the files that `detect` writes too."""
    return _with((_HAR, _PLAIN), function)


def _with(options: Iterable[Callable[[F], F]], function: F) -> F:
    for option in reversed(list(options)):
        function = option(function)
    return function
