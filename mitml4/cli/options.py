"""The options of a session, declared once: names, values, defaults and help, section by section."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import click

from mitml4.cli.values import (
    File,
    Interface,
    Parsed,
    parse_client_certificate,
    parse_duration,
    parse_lifetime,
    parse_network,
    parse_output,
    parse_readable,
)
from mitml4.net.rules.scope import PortRange
from mitml4.session.policy import HostPattern

__all__ = ["Command", "SectionOption", "intercept_options", "run_options", "section_of"]

F = TypeVar("F", bound=Callable[..., Any])


class SectionOption(click.Option):
    """An option that stands under a heading of its own in the help."""

    def __init__(self, *args: Any, section: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.section = section


class Command(click.Command):
    """A command whose help shows its options section by section.

    `exit_status` and `keys` are what its pages say of them, as pairs of terms and their meanings.
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
    """The heading that an option stands under."""
    return option.section if isinstance(option, SectionOption) else "Options"


_HOST: Final = Parsed("host", HostPattern.parse)
_PORTS: Final = Parsed("ports", PortRange.parse_list)
_CIDR: Final = Parsed("cidr", parse_network)
_DURATION: Final = Parsed("duration", parse_duration)


def _option(section: str, *names: str, **settings: Any) -> Callable[[F], F]:
    return click.option(*names, cls=SectionOption, section=section, **settings)


def _choice(section: str, name: str, *values: str, help: str) -> Callable[[F], F]:
    """An option with a closed set of values, of which the first is the default."""
    kind = click.Choice(values)
    return _option(section, name, type=kind, default=values[0], show_default=True, help=help)


_SCOPE: Final = (
    _option(
        "Scope",
        "--iface",
        type=Interface(),
        multiple=True,
        required=True,
        help="Interface whose traffic to intercept; repeatable.",
    ),
    _choice(
        "Scope",
        "--direction",
        "both",
        "forwarded",
        "local",
        help="Connections that this host forwards, that it starts itself, or both.",
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
        help="Not these destination ports; repeatable.",
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
        help="What to do with QUIC (UDP/443): refuse it, so that clients fall back to TCP, "
        "or let it pass unseen.",
    ),
    _option(
        "Scope",
        "--spoof-source",
        is_flag=True,
        help="Connect to servers from the client's address instead of this host's.",
    ),
    _option(
        "TLS",
        "--ca-dir",
        type=File(),
        metavar="DIR",
        help="Where the certificate authority lives; it is made there on first use. "
        "Default: $XDG_DATA_HOME/mitml4.",
    ),
)
_POLICY: Final = (
    _choice(
        "TLS",
        "--tls",
        "intercept",
        "passthrough",
        help="Open TLS, or only name what its hellos say.",
    ),
    _option(
        "TLS",
        "--passthrough",
        type=_HOST,
        multiple=True,
        help="Do not open TLS to this host; repeatable. A name, a glob such as *.example.com "
        "(which is every name below example.com, not itself), an address or a network, and "
        ":PORT if need be.",
    ),
    _option(
        "TLS",
        "--only",
        type=_HOST,
        multiple=True,
        help="Open TLS to this host and pass the rest through; repeatable. "
        "--passthrough makes exceptions.",
    ),
    _choice(
        "TLS",
        "--on-pinned",
        "passthrough",
        "fail",
        help="What to do once a client has refused our certificate: pass its next connections to "
        "that host through for a while, or let them fail again.",
    ),
    _choice(
        "TLS",
        "--upstream",
        "mirror",
        "reject",
        "ignore",
        help="What to do when a server's certificate does not verify: show the client one with "
        "the same defect, or the server's own where ours would hide it (the connection is then "
        "not opened); end the connection; or sign for it as if its issuer were known (expired, "
        "and for another name, it stays).",
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
        help="PEM file with a certificate and its key, for servers that ask for one.",
    ),
    _option(
        "Policy",
        "--block",
        type=_HOST,
        multiple=True,
        help="Refuse connections to this host (intercept: reset them, as the kernel has accepted "
        "by then); repeatable. Hosts as for --passthrough. Matched "
        "against the destination, its name in DNS (run), SNI, and the hosts that HTTP, SOCKS and "
        "PROXY headers ask for. Where one of these cannot be read, the connection ends.",
    ),
)
_DISPLAY: Final = (
    _option(
        "Output",
        "--json",
        is_flag=True,
        help="Write the events to standard output as JSON lines. On a terminal the default is a "
        "live table; elsewhere it is this.",
    ),
)
_FILES: Final = (
    _option(
        "Output",
        "-o",
        "--output",
        type=File(parse_output),
        help="Write the events to this file as JSON lines, beside what is shown. A file that is "
        "there is replaced.",
    ),
    _option(
        "Output",
        "--keylog",
        type=File(parse_output),
        help="Append the TLS secrets of both sides to this file, as Wireshark reads them.",
    ),
    _option(
        "Output",
        "-w",
        "--write",
        type=File(parse_output),
        help="Write the packets of the connections to this file as pcapng, with the TLS secrets "
        "that open them, as Wireshark reads it. A file that is there is replaced.",
    ),
    _option(
        "Output",
        "--har",
        type=File(parse_output),
        help="Write the HTTP exchanges to this file as an HTTP archive, which browsers' developer "
        "tools open: heads, sizes and times, no bodies. A file that is there is replaced.",
    ),
    _option("Output", "--headers", is_flag=True, help="Put HTTP headers into the events."),
)
_LIFE: Final = (
    _option(
        "Session",
        "--duration",
        type=Parsed("duration", parse_lifetime),
        help="End after so long, such as 30s or 5m.",
    ),
    _option(
        "Session",
        "--max-flows",
        type=click.IntRange(min=1),
        metavar="N",
        help="End after so many connections.",
    ),
)
_DETECTION: Final = (
    _option(
        "Session",
        "--detect-timeout",
        type=_DURATION,
        default="500ms",
        show_default=True,
        help="How long to hold back bytes that might become TLS.",
    ),
    _option(
        "Session",
        "--drain",
        type=_DURATION,
        default="5s",
        show_default=True,
        help="How long open connections may go on once the session ends.",
    ),
)
_DRY_RUN: Final = (
    _option(
        "Session",
        "--dry-run",
        is_flag=True,
        help="Print the rules and how they would be undone; change nothing.",
    ),
)
_COMMAND_SCOPE: Final = (
    _option(
        "Scope",
        "--loopback",
        is_flag=True,
        help="Intercept what the command says to 127.0.0.1 and ::1 as well.",
    ),
    _choice(
        "Scope",
        "--udp",
        "drop",
        "pass",
        help="What to do with UDP other than DNS and QUIC: drop it, or let it pass unseen. DNS is "
        "answered by the host. QUIC (UDP/443) is refused: the command's send fails with EPERM, and "
        "clients fall back to TCP.",
    ),
    _option(
        "TLS",
        "--trust/--no-trust",
        default=True,
        show_default=True,
        help="Let the command trust the session's certificate authority.",
    ),
)
_COMMAND_DISPLAY: Final = (
    _option(
        "Output",
        "-q",
        "--quiet",
        is_flag=True,
        help="Say nothing but errors, and no line for each connection.",
    ),
    _option(
        "Output",
        "--table",
        is_flag=True,
        help="Show a table in place of the lines: once, on standard error, when the session ends. "
        "If neither standard output nor standard error is the terminal, a live table is shown on "
        "the terminal.",
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
        help="Once the command has ended, go on as long as anything that it has started.",
    ),
)

_INTERCEPT_OPTIONS: Final = (
    *_SCOPE, *_POLICY, *_DISPLAY, *_FILES, *_LIFE, *_DETECTION, *_DRY_RUN
)  # fmt: skip
_RUN_OPTIONS: Final = (
    *_COMMAND_SCOPE, *_POLICY, *_COMMAND_DISPLAY, *_FILES, *_COMMAND_LIFE, *_DETECTION
)  # fmt: skip


def intercept_options(function: F) -> F:
    """Give `intercept` its options; `intercept_config` takes what they parse to."""
    return _with(_INTERCEPT_OPTIONS, function)


def run_options(function: F) -> F:
    """Give `run` its options; `run_config` takes what they parse to."""
    return _with(_RUN_OPTIONS, function)


def _with(options: Iterable[Callable[[F], F]], function: F) -> F:
    for option in reversed(list(options)):
        function = option(function)
    return function
