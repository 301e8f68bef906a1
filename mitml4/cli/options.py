"""The options of a session: how each is declared, parsed, completed, and put into a config."""

from __future__ import annotations

import ipaddress
import re
import shlex
import socket
import sys
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from mitml4.cli.console import Console, is_terminal, is_terminal_free
from mitml4.errors import UsageError
from mitml4.net.ruleset import PortRange, Scope
from mitml4.session.config import Display, InterceptConfig, RunConfig
from mitml4.session.policy import HostPattern, Policy

__all__ = [
    "Command",
    "SectionOption",
    "parse_duration",
    "parse_network",
    "run_config",
    "run_options",
    "section_of",
    "session_config",
    "session_options",
]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")


class SectionOption(click.Option):
    """An option that stands under a heading of its own in the help."""

    def __init__(self, *args: Any, section: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.section = section


class Command(click.Command):
    """A command whose help shows its options section by section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                sections.setdefault(section_of(parameter), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def section_of(parameter: click.Parameter) -> str:
    """The heading that an option stands under."""
    return parameter.section if isinstance(parameter, SectionOption) else "Options"


class _Parsed(click.ParamType):  # type: ignore[type-arg] # generic only since click 8.5
    """A value that one of our own functions parses; its UsageError gets the option's name."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self.parse = parse

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        if not isinstance(value, str):  # a default
            return value
        try:
            return self.parse(value)
        except UsageError as error:
            option = f"{param.opts[-1]}: " if param else ""
            raise UsageError(f"{option}{error.message}", hint=error.hint) from None


class _Interface(_Parsed):
    """An interface that is there."""

    def __init__(self) -> None:
        super().__init__("name", parse_interface)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(name) for name in _interfaces() if name.startswith(incomplete)]

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None) -> str:
        return f"There are: {', '.join(_interfaces())}"


class _File(_Parsed):
    """A file; the shell completes its name."""

    def __init__(self, parse: Callable[[str], object] = Path) -> None:
        super().__init__("file", parse)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


def _interfaces() -> list[str]:
    # Not /sys/class/net, which shows those of the namespace that /sys was mounted in.
    return sorted(name for _, name in socket.if_nameindex())


def parse_interface(name: str) -> str:
    """Raises UsageError for one that is not there."""
    there = _interfaces()
    if name not in there:
        raise UsageError(f"there is no interface {name!r}", hint=f"there are: {', '.join(there)}")
    return name


def parse_network(text: str) -> IPv4Network | IPv6Network:
    """From `10.0.0.0/8` or `2001:db8::1`. Raises UsageError."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        hint = "an address or a network, as in: 192.0.2.1  10.0.0.0/8  2001:db8::/32"
        raise UsageError(f"{text!r} is no network", hint=hint) from None


def parse_duration(text: str) -> float:
    """From `500ms`, `30s`, `5m`, `1h` to seconds. Raises UsageError."""
    if not (parsed := _DURATION.fullmatch(text)):
        hint = "a number and its unit, as in: 500ms  30s  5m  1h"
        raise UsageError(f"{text!r} is no duration", hint=hint)
    return float(parsed[1]) * _UNITS_S[parsed[2]]


def _parse_lifetime(text: str) -> float:
    if not (duration := parse_duration(text)):
        raise UsageError("a session of no length sees nothing", hint="as in: --duration 30s")
    return duration


def _parse_readable(text: str) -> Path:
    path = Path(text)
    try:
        path.open("rb").close()
    except OSError as error:
        hint = f"ls -l {shlex.quote(text)}"
        raise UsageError(f"cannot read {text}: {error.strerror}", hint=hint) from None
    return path


def _parse_client_certificate(text: str) -> Path:
    """A file in which OpenSSL finds a certificate and the key that belongs to it."""
    import ssl

    path = _parse_readable(text)
    try:
        # Without a password of our own, OpenSSL would stop and ask for it.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path, password=b"")
    except (ssl.SSLError, ValueError):
        raise UsageError(
            f"no certificate with its key (not encrypted) in {text}",
            hint="cat certificate.pem chain.pem key.pem > client.pem",
        ) from None
    return path


def _parse_output(text: str) -> Path:
    if text == "-":
        raise UsageError("standard output is no file", hint="--json writes the events there")
    return Path(text)


_HOST: Final = _Parsed("host", HostPattern.parse)
_PORTS: Final = _Parsed("ports", PortRange.parse_list)
_CIDR: Final = _Parsed("cidr", parse_network)
_DURATION_TYPE: Final = _Parsed("duration", parse_duration)


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
        type=_Interface(),
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
        type=_File(),
        metavar="DIR",
        help="Where the certificate authority is. Default: mitml4 in the invoking user's "
        "$XDG_DATA_HOME; made there on first use.",
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
        "the same defect, end the connection, or show one that is fine.",
    ),
    _option(
        "TLS",
        "--upstream-ca",
        type=_File(_parse_readable),
        help="Verify servers against the certificates in this PEM file too.",
    ),
    _option(
        "TLS",
        "--client-cert",
        type=_File(_parse_client_certificate),
        help="PEM file with a certificate and its key, for servers that ask for one.",
    ),
    _option(
        "Policy",
        "--block",
        type=_HOST,
        multiple=True,
        help="Refuse connections to this host; repeatable. Hosts as for --passthrough.",
    ),
)
_DISPLAY: Final = (
    _option(
        "Output",
        "--json",
        is_flag=True,
        help="Write the events to standard output as JSON lines. This is the default where "
        "standard output is no terminal; there it is a live table.",
    ),
)
_FILES: Final = (
    _option(
        "Output",
        "-o",
        "--output",
        type=_File(_parse_output),
        help="Write the events to this file as JSON lines, too.",
    ),
    _option(
        "Output",
        "--keylog",
        type=_File(_parse_output),
        help="Append the TLS secrets of both sides to this file, as Wireshark reads them.",
    ),
    _option("Output", "--headers", is_flag=True, help="Put HTTP headers into the events."),
)
_LIFE: Final = (
    _option(
        "Session",
        "--duration",
        type=_Parsed("duration", _parse_lifetime),
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
_PATIENCE: Final = (
    _option(
        "Session",
        "--detect-timeout",
        type=_DURATION_TYPE,
        default="500ms",
        show_default=True,
        help="How long to hold back bytes that might become TLS.",
    ),
    _option(
        "Session",
        "--drain",
        type=_DURATION_TYPE,
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
        help="What to do with UDP that is neither DNS (which the host answers) nor QUIC (which is "
        "refused, so that clients fall back to TCP): drop it, or let it pass unseen.",
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
        help="Show a table instead: at the end, on standard error; live, if neither standard "
        "output nor standard error is the terminal.",
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
    *_SCOPE, *_POLICY, *_DISPLAY, *_FILES, *_LIFE, *_PATIENCE, *_DRY_RUN
)  # fmt: skip
_RUN_OPTIONS: Final = (
    *_COMMAND_SCOPE, *_POLICY, *_COMMAND_DISPLAY, *_FILES, *_COMMAND_LIFE, *_PATIENCE
)  # fmt: skip


def session_options(function: F) -> F:
    """Give `intercept` its options; `session_config` takes what they parse to."""
    return _with(_INTERCEPT_OPTIONS, function)


def run_options(function: F) -> F:
    """Give `run` its options; `run_config` takes what they parse to."""
    return _with(_RUN_OPTIONS, function)


def _with(options: Iterable[Callable[[F], F]], function: F) -> F:
    for option in reversed(list(options)):
        function = option(function)
    return function


def session_config(console: Console, **given: Any) -> InterceptConfig:
    """From what the options of `session_options` parse to. Raises UsageError, CertificateError."""
    scope = Scope(
        interfaces=_distinct(given["iface"]),
        direction=given["direction"],
        ports=_flat(given["port"]),
        exclude_ports=_flat(given["exclude_port"]),
        to=given["to"],
        from_=given["from"],
        quic=given["quic"],
        spoof_source=given["spoof_source"],
    )
    wants_table = is_terminal(sys.stdout) and not given["json"]
    return InterceptConfig(
        scope=scope,
        ca_dir=given["ca_dir"] or _default_ca_directory(),
        output="table" if wants_table else "json",
        duration_s=given["duration"],
        max_flows=given["max_flows"],
        dry_run=given["dry_run"],
        **_common(console, given),
    )


def run_config(console: Console, argv: tuple[str, ...], **given: Any) -> RunConfig:
    """From what the options of `run_options` parse to. Raises UsageError."""
    if given["quiet"]:
        console.verbosity = -1
    return RunConfig(
        argv=argv,
        loopback=given["loopback"],
        trust=given["trust"],
        udp=given["udp"],
        wait=given["wait"],
        output=_display_beside_a_command(console, given),
        **_common(console, given),
    )


def _display_beside_a_command(console: Console, given: dict[str, Any]) -> Display:
    if given["table"] and given["json"]:
        raise UsageError("--table and --json both want standard error", hint="--table -o FILE")
    if given["json"]:
        return "json-on-stderr"
    if given["table"]:
        return "table-on-tty" if is_terminal_free() else "final-table"
    return "none" if console.verbosity < 0 else "lines"


def _common(console: Console, given: dict[str, Any]) -> dict[str, Any]:
    """What every session is told."""
    policy = Policy(
        block=given["block"],
        passthrough=given["passthrough"],
        only=given["only"],
        tls=given["tls"],
    )
    for option, patterns in (("--only", policy.only), ("--passthrough", policy.passthrough)):
        if patterns and policy.tls == "passthrough":
            raise UsageError(
                f"{option} says nothing where no TLS is opened",
                hint=f"leave out {option} or --tls passthrough",
            )
    return {
        "policy": policy,
        "on_pinned": given["on_pinned"],
        "upstream": given["upstream"],
        "upstream_ca": given["upstream_ca"],
        "client_cert": given["client_cert"],
        "color": console.color,
        "verbosity": console.verbosity,
        "events_file": given["output"],
        "keylog": given["keylog"],
        "headers": given["headers"],
        "detect_timeout_s": given["detect_timeout"],
        "drain_s": given["drain"],
    }


def _default_ca_directory() -> Path:
    from mitml4.tls.ca import default_directory

    return default_directory()


def _distinct(values: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))


def _flat(values: Iterable[Iterable[T]]) -> tuple[T, ...]:
    return tuple(chain.from_iterable(values))
