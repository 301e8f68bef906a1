"""Each option, from what is typed to the session's config, and what is said to a wrong one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

import click
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from mitml4.cli.configure import intercept_config, run_config
from mitml4.cli.console import Console
from mitml4.cli.options import Command, intercept_options
from mitml4.cli.run import run
from mitml4.cli.values import parse_duration
from mitml4.errors import UsageError
from mitml4.net.rules.scope import PortRange, Scope
from mitml4.payload.budget import SessionPayload
from mitml4.protocols.payload import Shown
from mitml4.session.config import Attach, InterceptConfig, RunConfig
from mitml4.session.destinations.policy import HostPattern, Policy
from mitml4.sinks.tcp_reader import TcpReader

Parse = Callable[..., InterceptConfig]


def parse(*arguments: str) -> InterceptConfig:
    @click.command(cls=Command)
    @intercept_options
    def probe(**options):
        return intercept_config(Console(), **options)

    with probe.make_context("probe", [*arguments]) as context:
        return probe.invoke(context)


@pytest.fixture(autouse=True)
def one_processor(monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})


def on_lo(*arguments: str) -> InterceptConfig:
    return parse("--iface", "lo", *arguments)


def test_defaults_are_those_that_the_help_names(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert on_lo() == InterceptConfig(
        scope=Scope(interfaces=("lo",), ca_page=True), ca_dir=tmp_path / "mitml4"
    )


def test_scope_options_make_the_scope() -> None:
    config = on_lo(
        *("--iface", "lo", "--direction", "local", "--port", "443,8000-8999", "--port", "22"),
        *("--exclude-port", "8080", "--to", "10.0.0.0/8", "--to", "2001:db8::1"),
        *("--from", "192.0.2.1", "--quic", "allow", "--spoof-source"),
    )
    assert config.scope == Scope(
        ca_page=True,
        interfaces=("lo",),
        direction="local",
        ports=(PortRange(443, 443), PortRange(8000, 8999), PortRange(22, 22)),
        exclude_ports=(PortRange(8080, 8080),),
        to=(ip_network("10.0.0.0/8"), ip_network("2001:db8::1")),
        from_=(ip_network("192.0.2.1"),),
        quic="allow",
        spoof_source=True,
    )


def test_policy_options_make_the_policy() -> None:
    config = on_lo(
        *("--block", "a", "--block", "b", "--passthrough", "c", "--only", "*.d"),
    )
    assert config.policy == Policy(
        block=(HostPattern.parse("a"), HostPattern.parse("b")),
        passthrough=(HostPattern.parse("c"),),
        only=(HostPattern.parse("*.d"),),
    )
    assert on_lo("--tls", "passthrough").policy == Policy(tls="passthrough")


def test_the_other_options_are_carried_over(tmp_path) -> None:
    pem = tmp_path / "roots.pem"
    pem.write_bytes(b"x")
    config = on_lo(
        *("--ca-dir", "/ca", "--on-pinned", "fail", "--upstream", "reject"),
        *("--tls-engine", "openssl"),
        *("--upstream-ca", str(pem), "-o", "events", "--keylog", "keys", "--headers"),
        *("--filter", "a"),
        *("--duration", "5m", "--max-flows", "7", "--detect-timeout", "0s", "--drain", "1.5s"),
        "--dry-run",
    )
    assert config.filter is not None
    assert config == InterceptConfig(
        filter=config.filter,
        scope=Scope(interfaces=("lo",), ca_page=True),
        ca_dir=Path("/ca"),
        tls_engine="openssl",
        on_pinned="fail",
        upstream="reject",
        upstream_ca=pem,
        events_file=Path("events"),
        keylog=Path("keys"),
        shown=Shown(headers=True),
        duration_s=300.0,
        max_flows=7,
        detect_timeout_s=0.0,
        drain_s=1.5,
        dry_run=True,
    )


def test_what_one_process_has_to_do_is_not_done_by_several(capsys) -> None:
    assert on_lo("--workers", "3").workers == 3
    assert on_lo("--workers", "3", "--probe-clients").workers == 1
    assert capsys.readouterr().err == "note: --probe-clients is done by one process: --workers 1\n"
    assert on_lo("--workers", "1", "--probe-clients").workers == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("processors", "workers"), [(2, 2), (4, 4), (64, 4)])
def test_workers_are_as_many_as_processors_but_no_more_than_four(
    monkeypatch, capsys, processors, workers
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    config = on_lo()
    assert (config.workers, config.alone_up_to) == (workers, 8)
    asked = on_lo("--workers", "3")
    assert (asked.workers, asked.alone_up_to) == (3, 0)
    assert on_lo("--probe-clients").workers == 1
    assert capsys.readouterr().err == ""


def test_what_events_show_of_what_is_said() -> None:
    assert on_lo().shown == Shown()
    assert on_lo("--payload-limit", "1M").shown == Shown()
    assert on_lo("--payload").shown == Shown(payload=SessionPayload().of_flow())
    shown = on_lo("--payload", "--payload-limit", "1KB", "--payload-total", "2GiB").shown
    assert shown == Shown(payload=SessionPayload(limit=1000, left=2 << 30).of_flow())
    assert on_lo("--show-secrets").shown == Shown(redacts=False)


def test_payload_that_run_would_show_nowhere_is_said(capsys) -> None:
    for options, is_said in (
        (["--payload"], True),
        (["--payload", "--table"], True),
        (["--payload", "--json"], False),
        (["--payload", "-o", "events"], False),
        (["--payload", "--har", "har"], False),
        (["--payload", "--quiet"], False),
        ([], False),
    ):
        with run.make_context("run", [*options, "true"]) as context:
            run_config(Console(), **context.params)
        assert ("--payload has an effect with" in capsys.readouterr().err) == is_said, options


def test_packets_without_tls_go_to_a_file_or_to_a_reader() -> None:
    for text, plain in (
        ("plain.pcap", Path("plain.pcap")),
        ("./tcp:file", Path("tcp:file")),
        ("tcp:127.0.0.1:57012", TcpReader("127.0.0.1", 57012)),
        ("tcp:[::1]:57012", TcpReader("::1", 57012)),
        ("tcp:reader.example:1", TcpReader("reader.example", 1)),
    ):
        assert on_lo("--pcap-plain", text).plain == plain
        assert str(plain) == text.removeprefix("./")


def test_without_a_standard_output_the_files_are_enough(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    for option in ("-o", "-w", "--har", "--pcap-plain"):
        assert on_lo(option, "file").output == "none"
    for arguments in ([], ["--json", "-o", "file"], ["--keylog", "file"]):
        assert on_lo(*arguments).output == "json"  # which is an error


def test_a_wrong_value_is_named_with_its_option_and_a_hint() -> None:
    for arguments, message in (
        (["--iface", "eht0"], "--iface: there is no interface 'eht0'"),
        (["--port", "443,http"], "--port: 'http' is no port"),
        (["--exclude-port", "9-1"], "--exclude-port: '9-1' is no port"),
        (["--to", "10.0.0.0/33"], "--to: '10.0.0.0/33' is no network"),
        (["--from", "example.com"], "--from: 'example.com' is no network"),
        (["--duration", "30"], "--duration: '30' is no duration"),
        (["--payload-limit", "1TB"], "--payload-limit: '1TB' is no size"),
        (["--duration", "0s"], "--duration: a session of no length"),
        (["--drain", "-1s"], "--drain: '-1s' is no duration"),
        (["--detect-timeout", "1d"], "--detect-timeout: '1d' is no duration"),
        (["--block", "http://a"], "--block: 'http://a' is a URL"),
        (["--block", "-q"], "--block: '-q' is an option, not a host"),
        (["--allow", "--"], "--allow: '--' is an option, not a host"),
        (["--via", "proxy:3128"], "--via: it is no URL of a proxy"),
        (["--via", "ftp://u:p@proxy"], "--via: 'ftp://…@proxy' is no URL of a proxy"),
        (["--via", "http://a b:1"], "--via: 'http://a b:1' is no URL of a proxy"),
        (["--via", "a/b=http://proxy"], "--via: 'a/b' is no host"),
        (["--no-via", "http://a"], "--no-via: 'http://a' is a URL"),
        (["--via", "http://a", "--no-via", "*"], "--no-via '*' leaves nothing"),
        (["--via", "http://a", "--spoof-source"], "--spoof-source and --via"),
        (["--only", "a", "--tls", "passthrough"], "--only says nothing"),
        (["--passthrough", "a", "--tls", "passthrough"], "--passthrough says nothing"),
        (["--upstream-ca", "/nowhere"], "--upstream-ca: cannot read /nowhere"),
        (["--client-cert", "/nowhere"], "--client-cert: cannot read /nowhere"),
        (["-o", "-"], "--output: standard output is no file"),
        (["-w", "-"], "--write: standard output is no file"),
        (["-o", ""], "--output: the name of the file is empty"),
        (["--keylog", ""], "--keylog: the name of the file is empty"),
        (["-o", "x", "--keylog", "./x"], "--output and --keylog are one file: x"),
        (["--har", "x", "-o", "x"], "--output and --har are one file: x"),
        (["--har", "x", "--pcap-plain", "x"], "--har and --pcap-plain are one file: x"),
        (["--pcap-plain", ""], "--pcap-plain: the name of the file is empty"),
        (["--pcap-plain", "tcp:57012"], "--pcap-plain: 'tcp:57012' is no address of a reader"),
        (["--pcap-plain", "tcp:a:0"], "--pcap-plain: 'tcp:a:0' is no address of a reader"),
        (["--pcap-plain", "tcp:::1:5"], "--pcap-plain: 'tcp:::1:5' is no address of a reader"),
        (["--pcap-plain", "x", "--tls", "passthrough"], "--pcap-plain has nothing to write"),
    ):
        with pytest.raises(UsageError) as caught:
            on_lo(*arguments)
        assert caught.value.message.startswith(message)
        assert caught.value.hint


def test_a_wrong_interface_is_answered_with_those_that_are_there() -> None:
    with pytest.raises(UsageError) as caught:
        parse("--iface", "eht0")
    assert "lo" in (caught.value.hint or "")


def test_a_missing_interface_is_answered_with_those_that_are_there() -> None:
    with pytest.raises(UsageError) as caught:
        parse()
    assert "lo" in (caught.value.hint or "").partition("one of: ")[2]


@pytest.mark.parametrize(
    ("arguments", "attach"),
    [
        (("--container", "web"), Attach("container", "web")),
        (("--pid", "17"), Attach("pid", "17")),
        (("--netns", "/run/netns/blue"), Attach("netns", "/run/netns/blue")),
    ],
)
def test_what_a_session_is_attached_to_replaces_the_interfaces(arguments, attach) -> None:
    config = parse(*arguments, "--port", "443")
    assert config.attach == attach
    assert config.scope == Scope(ports=(PortRange(443, 443),), ca_page=True)
    for other in (("--iface", "lo"), ("--pid", "1"), ("--netns", "red")):
        if other[0] != arguments[0]:
            with pytest.raises(UsageError, match="only one of them"):
                parse(*arguments, *other)


def test_what_is_for_attached_programs_is_refused_elsewhere() -> None:
    for arguments in (("--iface", "lo"), ("--user", "0")):
        for option in ("--reset-existing", "--no-trust"):
            with pytest.raises(UsageError, match=f"{option} is for --container") as caught:
                parse(*arguments, option)
            assert caught.value.hint == f"leave out {option}"
    assert not parse("--pid", "17", "--no-trust").trust


@pytest.mark.parametrize("value", ["0", "-1", "x"])
def test_max_flows_is_a_number_from_one(value: str) -> None:
    with pytest.raises(click.BadParameter):
        on_lo("--max-flows", value)


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("30s", 30), ("1.5m", 90), ("1h", 3600), ("0s", 0)]
)
def test_durations_have_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@given(st.text())
def test_any_text_is_a_duration_or_a_usage_error(text: str) -> None:
    try:
        assert parse_duration(text) >= 0
    except UsageError:
        assert not text.endswith("s") or not text[:-1].isdecimal() or not text.isascii()


@pytest.fixture(scope="module")
def identity() -> trustme.LeafCert:
    return trustme.CA().issue_cert("client.example")


def test_a_client_certificate_is_tried_before_the_session(identity, tmp_path) -> None:
    pem = tmp_path / "client.pem"
    pem.write_bytes(identity.private_key_and_cert_chain_pem.bytes())
    assert on_lo("--client-cert", str(pem)).client_cert == pem


def test_a_client_certificate_without_its_own_key_is_refused(identity, tmp_path) -> None:
    pem = tmp_path / "client.pem"
    other = trustme.CA().issue_cert("other.example").private_key_pem.bytes()
    for content in (
        identity.cert_chain_pems[0].bytes(),
        identity.cert_chain_pems[0].bytes() + other,
        b"no pem",
    ):
        pem.write_bytes(content)
        with pytest.raises(UsageError, match="no certificate with its key"):
            on_lo("--client-cert", str(pem))


def test_an_encrypted_client_key_is_refused_without_asking_for_a_password(
    identity, tmp_path
) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    key = load_pem_private_key(identity.private_key_pem.bytes(), None)
    secret = BestAvailableEncryption(b"secret")
    pem = tmp_path / "client.pem"
    pem.write_bytes(
        identity.cert_chain_pems[0].bytes()
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret)
    )
    with pytest.raises(UsageError, match="not encrypted"):
        on_lo("--client-cert", str(pem))


class Stdout:
    def __init__(self, *, terminal: bool) -> None:
        self.isatty = lambda: terminal


@pytest.mark.parametrize(
    ("terminal", "term", "arguments", "output"),
    [
        (True, "xterm-256color", [], "table"),
        (True, "xterm-256color", ["--json"], "json"),
        (True, "xterm-256color", ["-o", "f"], "table"),
        (True, "dumb", [], "json"),
        (False, "xterm-256color", [], "json"),
    ],
)
def test_a_terminal_gets_the_table_and_anything_else_json_lines(
    monkeypatch, terminal: bool, term: str, arguments: list[str], output: str
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stdout", Stdout(terminal=terminal))
    assert on_lo(*arguments).output == output


def test_interfaces_are_completed() -> None:
    iface = next(option for option in click_options() if option.name == "iface")
    context = click.Context(click.Command("probe"))
    assert "lo" in [item.value for item in iface.type.shell_complete(context, iface, "")]
    assert not iface.type.shell_complete(context, iface, "no-such-interface")


def click_options() -> list[click.Parameter]:
    @click.command(cls=Command)
    @intercept_options
    def probe(**_: object) -> None: ...

    return probe.params


def test_every_option_has_a_help_that_is_a_sentence() -> None:
    for option in click_options():
        assert option.help.endswith("."), option.name


def test_intercept_allows_with_nothing_that_lets_others_past() -> None:
    config = on_lo("--allow", "ok.test")
    assert ([each.text for each in config.policy.allow], config.upstream) == (["ok.test"], "reject")
    for options in (("--quic", "allow"), ("--upstream", "ignore"), ("--probe-clients",)):
        with pytest.raises(UsageError, match=options[0]):
            on_lo("--allow", "ok.test", *options)


def test_allow_verifies_servers_and_goes_with_nothing_that_lets_others_past() -> None:
    def configured(*options: str) -> RunConfig:
        with run.make_context("run", ["--allow", "ok.test", *options, "true"]) as context:
            return run_config(Console(), **context.params)

    config = configured("--allow", "10.0.0.0/8:80")
    assert [each.text for each in config.policy.allow] == ["ok.test", "10.0.0.0/8:80"]
    assert config.upstream == "reject"
    for wrong in (("--udp", "pass"), ("--upstream", "ignore")):
        with pytest.raises(UsageError, match=" ".join(wrong)):
            configured(*wrong)
