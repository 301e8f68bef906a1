"""Make the config of a session from the values of its options."""

from __future__ import annotations

import ipaddress
import os
import pwd
import socket
import sys
from collections.abc import Iterable, Mapping
from itertools import chain, combinations
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from mitml4.address import Address
from mitml4.cli.console import Console, is_terminal_free
from mitml4.errors import UsageError
from mitml4.net.rules.scope import Ends, Owner, Scope
from mitml4.payload.budget import SessionPayload
from mitml4.protocols.payload import Shown
from mitml4.screen.terminal import is_terminal
from mitml4.session.config import Attach, Display, InterceptConfig, ProxyConfig, RunConfig
from mitml4.session.destinations.policy import Policy
from mitml4.session.destinations.routes import routes_of
from mitml4.session.imports import import_decoders

__all__ = ["intercept_config", "proxy_config", "refuse_one_file_for_two", "run_config", "shown"]

T = TypeVar("T")

_OUTPUTS: Final = {
    "output": "-o events.jsonl",
    "write": "-w packets.pcapng",
    "har": "--har exchanges.har",
    "pcap_plain": "--pcap-plain plain.pcap",
    "keylog": "--keylog keys.txt",
}
_SHOWN: Final = ("headers", "payload", "payload_limit", "payload_total", "show_secrets")
_MAX_USER: Final = 2**32 - 1
_MAX_EDIT_LIMIT: Final = 1 << 30
_MAX_WORKERS: Final = 4
"""As many processes carry flows where nobody has said how many."""
_ALONE_UP_TO: Final = 8
"""So many flows one of them carries alone then."""
_WITHOUT_STDOUT: Final = ("output", "write", "har", "pcap_plain")
"""Options that let `intercept` do without a standard output."""


def intercept_config(console: Console, **given: Any) -> InterceptConfig:
    """From the options of `intercept`. Raises UsageError, CertificateError."""
    _check_allow(given)
    common = _common(console, given, {})
    if given["spoof_source"] and common["routes"]:
        raise UsageError(
            "--spoof-source and --via: a proxy does not connect from a client's address",
            hint="leave out one of them",
        )
    attach = _attach(given)
    owners = _owners(given)
    scope = Scope(
        interfaces=_distinct(given["iface"]),
        owners=owners,
        direction="local" if owners else given["direction"],
        ports=_flat(given["port"]),
        exclude_ports=_flat(given["exclude_port"]),
        to=given["to"],
        from_=given["from"],
        quic=given["quic"],
        spoof_source=given["spoof_source"],
        ca_page=given["ca_page"],
        blocked=tuple(Ends(*each) for each in common["policy"].blocked_addresses),
    )
    return InterceptConfig(
        scope=scope,
        attach=attach,
        trust=given["trust"],
        reset_existing=given["reset_existing"],
        ca_dir=given["ca_dir"] or _default_ca_directory(),
        output=_display_on_stdout(given),
        duration_s=given["duration"],
        max_flows=given["max_flows"],
        dry_run=given["dry_run"],
        **common,
    )


_OWNERS: Final = ("user", "cgroup")
_ATTACHED: Final[tuple[Literal["container", "pid", "netns"], ...]] = ("container", "pid", "netns")


def _attach(given: dict[str, Any]) -> Attach | None:
    """Whose connections are intercepted; None: those of the interfaces. Raises UsageError."""
    named = [each for each in ("iface", *_ATTACHED, *_OWNERS) if given[each]]
    if not named:
        present = ", ".join(sorted(name for _, name in socket.if_nameindex()))
        raise UsageError(
            "--iface, --container, --pid, --netns, --user or --cgroup has to say whose connections",
            hint=f"--iface NAME, one of: {present}",
        )
    for option, is_given in (
        ("--reset-existing", given["reset_existing"]),
        ("--no-trust", not given["trust"]),
    ):
        if is_given and named[0] not in _ATTACHED:
            raise UsageError(
                f"{option} is for --container, --pid and --netns", hint=f"leave out {option}"
            )
    if len(named) > 1:
        raise UsageError(
            f"--{named[0]} and --{named[1]}: only one of them",
            hint=f"leave out --{named[0]} or --{named[1]}",
        )
    return next((Attach(each, str(given[each])) for each in _ATTACHED if given[each]), None)


def _owners(given: dict[str, Any]) -> tuple[Owner, ...]:
    """The users and cgroups of this host whose connections are intercepted. Raises UsageError,
    MachineError."""
    from mitml4.net.rules.cgroups import find_cgroup

    if not any(given[each] for each in _OWNERS):
        return ()
    if given["direction"] == "forwarded":
        raise UsageError(
            "--direction forwarded: users and cgroups are those of this host",
            hint="leave out --direction",
        )
    return _distinct([*map(_user, given["user"]), *map(find_cgroup, given["cgroup"])])


def _user(name: str) -> int:
    """The number of a user, given by name or number. Raises UsageError."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        if name.isascii() and name.isdecimal() and int(name) < _MAX_USER:
            return int(name)
    raise UsageError(f"there is no user {name!r}", hint="getent passwd")


def run_config(console: Console, argv: tuple[str, ...], **given: Any) -> RunConfig:
    """From the options of `run`. Raises UsageError."""
    if given["quiet"]:
        console.verbosity = -1
    _check_allow(given)
    display = _display_beside_a_command(console, given)
    if given["payload"] and display != "json-on-stderr" and not (given["output"] or given["har"]):
        console.say("--payload has an effect with --json, -o FILE or --har FILE")
    return RunConfig(
        argv=argv,
        loopback=given["loopback"],
        trust=given["trust"],
        udp=given["udp"],
        wait=given["wait"],
        output=display,
        **_common(console, given, os.environ),
    )


def proxy_config(console: Console, **given: Any) -> ProxyConfig:
    """From the options of `proxy`. Raises UsageError."""
    _check_allow(given)
    listen = _uncovered(_distinct(_flat(given["listen"])))
    public = [each for each in listen if not ipaddress.ip_address(each.ip).is_loopback]
    if public and not (given["auth"] or given["open"]):
        raise UsageError(
            f"everybody who reaches {public[0]} could use the proxy",
            hint="--auth user:password; or --open, if that is meant",
        )
    if given["auth"] and given["open"]:
        raise UsageError("--auth and --open: only one of them", hint="leave out --open")
    return ProxyConfig(
        listen=listen,
        auth=given["auth"],
        ca_dir=given["ca_dir"] or _default_ca_directory(),
        output=_display_on_stdout(given),
        duration_s=given["duration"],
        max_flows=given["max_flows"],
        **_common(console, given, {}),
    )


def _uncovered(places: tuple[Address, ...]) -> tuple[Address, ...]:
    """Without places at a port of which all addresses are listened at as well: nobody can listen
    there once more. `[::]` has those of IPv4, too."""

    def is_covered(place: Address) -> bool:
        wider = ("::",) if place.is_v6 or place.ip == "0.0.0.0" else ("::", "0.0.0.0")
        return any(Address(ip, place.port) in places for ip in wider if ip != place.ip)

    return tuple(each for each in places if not is_covered(each))


def _check_allow(given: dict[str, Any]) -> None:
    """Raises UsageError for options that would let anything past `--allow`."""
    if not given["allow"]:
        return
    if given.get("udp") == "pass":
        raise UsageError("--udp pass lets datagrams past --allow", hint="leave out --udp pass")
    if given.get("quic") == "allow":
        raise UsageError("--quic allow lets QUIC past --allow", hint="leave out --quic allow")
    if given["probe_clients"]:
        raise UsageError(
            "--probe-clients answers in place of the servers that --allow names",
            hint="leave out --probe-clients",
        )
    if given["upstream"] == "ignore":
        raise UsageError(
            "--upstream ignore lets any server pass for one that --allow names",
            hint="--upstream-ca FILE, for a server with another authority",
        )


def _workers(console: Console, given: Mapping[str, Any]) -> dict[str, int]:
    """How many processes carry flows, and from when on."""
    asked: int | None = given["workers"]
    if given["probe_clients"]:
        if asked and asked > 1:
            console.say("note: --probe-clients is done by one process: --workers 1")
        return {"workers": 1}
    processors = len(os.sched_getaffinity(0))
    if asked is None and processors > 1:
        return {"workers": min(processors, _MAX_WORKERS), "alone_up_to": _ALONE_UP_TO}
    return {"workers": asked or 1}


def _display_on_stdout(given: dict[str, Any]) -> Display:
    if given["json"]:
        return "json"
    if sys.stdout is None and any(given[each] for each in _WITHOUT_STDOUT):
        return "none"
    return "table" if is_terminal(sys.stdout) else "json"


def _display_beside_a_command(console: Console, given: dict[str, Any]) -> Display:
    if given["table"] and given["json"]:
        raise UsageError("--table and --json both write to standard error", hint="--table -o FILE")
    if given["json"]:
        return "json-on-stderr"
    if given["table"]:
        return "table-on-tty" if is_terminal_free() else "final-table"
    return "none" if console.verbosity < 0 else "lines"


def _common(console: Console, given: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings that all sessions have. `environ` may name proxies."""
    policy = Policy(
        allow=given["allow"],
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
    if given["pcap_plain"] and policy.tls == "passthrough":
        raise UsageError(
            "--pcap-plain has nothing to write where no TLS is opened",
            hint="leave out --pcap-plain or --tls passthrough",
        )
    if given["probe_clients"] and policy.tls == "passthrough":
        raise UsageError(
            "--probe-clients shows nothing where no TLS is opened",
            hint="leave out --probe-clients or --tls passthrough",
        )
    if given["edit_limit"] > _MAX_EDIT_LIMIT:
        raise UsageError("--edit-limit is at most 1GiB", hint="a body is held in memory")
    if not given["script_timeout"]:
        raise UsageError("--script-timeout leaves no time", hint="as in: --script-timeout 5s")
    refuse_one_file_for_two(given, (*given["rules"], *given["script"]))
    if given["payload"]:  # before the session may import nothing more
        import_decoders()
    return {
        "policy": policy,
        "routes": routes_of(given["via"], given["no_via"], environ),
        "tls_engine": given["tls_engine"],
        "on_pinned": given["on_pinned"],
        # A server that nobody has verified may be any.
        "upstream": "reject" if policy.allow else given["upstream"],
        "probe_clients": given["probe_clients"],
        **_workers(console, given),
        "ca_page": given["ca_page"],
        "upstream_ca": given["upstream_ca"],
        "client_cert": given["client_cert"],
        "color": console.color,
        "verbosity": console.verbosity,
        "events_file": given["output"],
        "packets": given["write"],
        "har": given["har"],
        "plain": given["pcap_plain"],
        "keylog": given["keylog"],
        "shown": shown(**{each: given[each] for each in _SHOWN}),
        "filter": given["filter"],
        "rules": given["rules"],
        "scripts": given["script"],
        "script_timeout_s": given["script_timeout"],
        "edit_limit": given["edit_limit"],
        "detect_timeout_s": given["detect_timeout"],
        "drain_s": given["drain"],
    }


def shown(
    *, headers: bool, payload: bool, payload_limit: int, payload_total: int, show_secrets: bool
) -> Shown:
    """From the options of what events show."""
    session = SessionPayload(limit=payload_limit, left=payload_total)
    return Shown(
        headers=headers, redacts=not show_secrets, payload=session.of_flow() if payload else None
    )


def refuse_one_file_for_two(given: dict[str, Any], inputs: Iterable[Path] = ()) -> None:
    """Raises UsageError if two options would write the same file, or one would replace an input."""
    files = {name: given[name] for name in _OUTPUTS if isinstance(given.get(name), Path)}
    read = {path.resolve() for path in inputs}
    for name, path in files.items():
        if path.resolve() in read:
            raise UsageError(
                f"--{_words(name)} would replace what is read: {path}", hint=_OUTPUTS[name]
            )
    for one, other in combinations(files, 2):
        if files[one].resolve() == files[other].resolve():
            raise UsageError(
                f"--{_words(one)} and --{_words(other)} are one file: {files[other]}",
                hint=f"{_OUTPUTS[one]} {_OUTPUTS[other]}",
            )


def _words(option: str) -> str:
    return option.replace("_", "-")


def _default_ca_directory() -> Path:
    from mitml4.tls.ca import default_directory

    return default_directory()


def _distinct(values: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))


def _flat(values: Iterable[Iterable[T]]) -> tuple[T, ...]:
    return tuple(chain.from_iterable(values))
