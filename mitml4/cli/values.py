"""The types of the options' values: parsing, errors, and shell completion."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from mitml4.address import Address
from mitml4.cli.origin import origin_of
from mitml4.errors import UsageError, cannot_read
from mitml4.net import processes
from mitml4.regex import regex
from mitml4.session.destinations.routes import Via
from mitml4.sinks.tcp_reader import PREFIX, TcpReader

__all__ = [
    "File",
    "Interface",
    "NetworkNamespace",
    "Parsed",
    "ProcessId",
    "RunningContainer",
    "Words",
    "parse_client_certificate",
    "parse_condition",
    "parse_duration",
    "parse_interface",
    "parse_lifetime",
    "parse_listen",
    "parse_network",
    "parse_output",
    "parse_packets_output",
    "parse_readable",
    "parse_size",
    "parse_via",
]

_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION: Final = regex(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")

_BINARY: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_DECIMAL: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_SIZE: Final = regex(r"([0-9]{1,15}) ?([KMGkmg]?)(?:iB|(B)|)")


class Parsed(click.ParamType):  # type: ignore[type-arg] # generic only since click 8.5
    """A value that one of our functions parses; its UsageError gets the option's name."""

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
            if param:
                error.message = f"{origin_of(param, ctx)}: {error.message}"
            raise


class Interface(Parsed):
    """The name of an existing interface."""

    def __init__(self) -> None:
        super().__init__("name", parse_interface)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(name) for name in _interfaces() if name.startswith(incomplete)]


class RunningContainer(click.ParamType):  # type: ignore[type-arg]
    """The name of a container."""

    name = "name"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from mitml4.session.attach.containers import running_containers

        return [
            CompletionItem(each) for each in running_containers() if each.startswith(incomplete)
        ]


class NetworkNamespace(click.ParamType):  # type: ignore[type-arg]
    """A name that `ip netns` knows, or a path."""

    name = "name"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        if "/" in incomplete:
            return [CompletionItem(incomplete, type="file")]
        names = sorted(each.name for each in _entries("/run/netns"))
        return [CompletionItem(each) for each in names if each.startswith(incomplete)]


class ProcessId(click.IntRange):
    """The number of a process."""

    name = "pid"


class File(Parsed):
    """A file; the shell completes its name."""

    def __init__(self, parse: Callable[[str], object] = Path) -> None:
        super().__init__("file", parse)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


class Words(click.ParamType):  # type: ignore[type-arg]
    """A command and its arguments; the shell completes the command from PATH, arguments as
    files."""

    name = "word"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        if ctx.params.get(param.name or "") or "/" in incomplete:
            return [CompletionItem(incomplete, type="file")]
        found = {
            entry.name
            for directory in os.environ.get("PATH", "").split(os.pathsep)
            for entry in _entries(directory or ".")
            if entry.name.startswith(incomplete) and os.access(entry.path, os.X_OK)
        }
        return [CompletionItem(name) for name in sorted(found)]


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return [entry for entry in entries if entry.is_file()]
    except OSError:
        return []


def _interfaces() -> list[str]:
    # Not /sys/class/net, which shows the network namespace in which /sys was mounted.
    return sorted(name for _, name in socket.if_nameindex())


def parse_interface(name: str) -> str:
    """Raises UsageError if the interface does not exist."""
    there = _interfaces()
    if name not in there:
        raise UsageError(f"there is no interface {name!r}", hint=f"there are: {', '.join(there)}")
    return name


def parse_listen(text: str) -> tuple[Address, ...]:
    """From `:8080`, `192.0.2.7:8080` or `[::]:8080`. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    is_port = port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535
    hosts: tuple[str, ...] = ("127.0.0.1", "::1")
    if host not in ("", "localhost"):
        try:
            hosts = (str(ipaddress.ip_address(host.strip("[]"))),)
        except ValueError:
            is_port = False
        is_port = is_port and (":" in hosts[0]) == host.startswith("[")
    if not (colon and is_port):
        raise UsageError(
            f"{text!r} is no address and port",
            hint="as in: --listen :8080, --listen 192.168.1.2:8080 or --listen '[::]:8080'",
        )
    return tuple(Address(each, int(port)) for each in hosts)


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


def parse_size(text: str) -> int:
    """From `4096`, `64KiB` (or `64K`), `1MiB`, `2GiB` to bytes; `MB` is a million. Raises
    UsageError."""
    if not (parsed := _SIZE.fullmatch(text)):
        hint = "a number of bytes, as in: 4096  64KiB  1MiB"
        raise UsageError(f"{text!r} is no size", hint=hint)
    number, unit, decimal = parsed.groups()
    factors = _DECIMAL if decimal else _BINARY
    return int(number) * factors[unit.upper()]


def parse_lifetime(text: str) -> float:
    if not (duration := parse_duration(text)):
        raise UsageError("a session of no length sees nothing", hint="as in: --duration 30s")
    return duration


def parse_condition(text: str) -> object:
    """From an expression as in docs/filter.md. Raises UsageError."""
    from mitml4.filter.parser import parse_filter

    return parse_filter(text)


def parse_via(text: str) -> Via:
    """From `URL` or `HOST=URL`. Its user and password are no longer shown by `ps`. Raises
    UsageError."""
    given = os.fsencode(text)
    start, end = given.find(b"://") + 3, given.rfind(b"@")
    if start < end:
        processes.mask_arguments(given, start, end)
    return Via.parse(text)


def parse_readable(text: str) -> Path:
    path = Path(text)
    try:
        path.open("rb").close()
    except OSError as error:
        raise cannot_read(UsageError, text, error) from None
    return path


def parse_client_certificate(text: str) -> Path:
    """A file that contains a certificate and its key. Raises UsageError."""
    import ssl

    path = parse_readable(text)
    try:
        # Without a password argument, OpenSSL would prompt for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path, password=b"")
    except (ssl.SSLError, ValueError):
        raise UsageError(
            f"no certificate with its key (not encrypted) in {text}",
            hint="cat certificate.pem chain.pem key.pem > client.pem",
        ) from None
    return path


def parse_output(text: str) -> Path:
    if not text:
        raise UsageError("the name of the file is empty", hint="as in: -o events.jsonl")
    if text == "-":
        raise UsageError(
            "standard output is no file",
            hint="--json writes the events there; for the rest: mkfifo -m 600 NAME",
        )
    return Path(text)


def parse_packets_output(text: str) -> Path | TcpReader:
    """A file, or a reader that waits on a port. Raises UsageError."""
    return TcpReader.parse(text) if text.startswith(PREFIX) else parse_output(text)
