"""`mitml4 ca`: data on stdout, talk on stderr, and files that clients can use."""

from __future__ import annotations

import io
import json
import os
import plistlib
import shlex
import ssl
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from mitml4.cli.ca import ca
from mitml4.errors import CertificateError, MachineError, MitmError, UsageError
from mitml4.sinks.qr import qr_lines
from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.java_keystore import read_truststore
from mitml4.tls.stores.installation import Absent, Stores
from mitml4.tls.stores.record import RECORD_FILE, Record
from mitml4.tls.stores.store import Kind, new_entry


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "it's mine"


def run(*arguments: str, directory: Path) -> Result:
    return CliRunner().invoke(ca, [*arguments, "--ca-dir", str(directory)])


def done(*arguments: str, directory: Path) -> Result:
    result = run(*arguments, directory=directory)
    assert result.exception is None, result.output
    return result


def failure(*arguments: str, directory: Path) -> MitmError:
    result = run(*arguments, directory=directory)
    assert isinstance(result.exception, MitmError)
    assert result.stdout == ""
    return result.exception


class TestGenerate:
    def test_the_default_is_an_ec_key_for_825_days(self, directory: Path) -> None:
        result = done("generate", directory=directory)
        assert result.stdout == ""
        assert str(directory / "mitml4-ca.pem") in result.stderr
        shown = json.loads(done("show", "--json", directory=directory).stdout)
        assert shown["key"] == "ec-p256"
        assert shown["sha256"] == CertificateAuthority.load(directory).sha256

    def test_its_options_reach_the_certificate(self, directory: Path) -> None:
        options = "--key rsa2048 --days 9 --name Lab --permit-domain a.example --permit-domain b.c"
        done("generate", *options.split(), directory=directory)
        shown = json.loads(done("show", "--json", directory=directory).stdout)
        assert shown["key"] == "rsa-2048"
        assert shown["subject"] == "CN=Lab"
        assert shown["permitted_domains"] == ["a.example", "b.c"]

    def test_a_second_one_needs_force(self, directory: Path) -> None:
        done("generate", directory=directory)
        before = CertificateAuthority.load(directory).sha256
        assert isinstance(failure("generate", directory=directory), CertificateError)
        assert CertificateAuthority.load(directory).sha256 == before
        done("generate", "--force", directory=directory)
        assert CertificateAuthority.load(directory).sha256 != before

    @pytest.mark.parametrize("options", [["--days", "0"], ["--key", "dsa"], ["--days", "x"]])
    def test_nonsense_is_a_usage_error(self, directory: Path, options: list[str]) -> None:
        assert run("generate", *options, directory=directory).exit_code == 2
        assert not directory.exists()


class TestShow:
    def test_it_names_what_a_person_compares(self, directory: Path) -> None:
        done("generate", "--permit-domain", "a.example", directory=directory)
        text = done("show", directory=directory).stdout
        authority = CertificateAuthority.load(directory)
        for fact in (authority.subject, authority.sha256, "a.example", str(directory), " UTC"):
            assert fact in text

    @pytest.mark.parametrize("command", ["show", "export", "env", "install"])
    def test_without_an_authority_the_hint_makes_one(self, directory: Path, command: str) -> None:
        error = failure(command, directory=directory)
        assert str(error.hint).startswith("mitml4 ca generate --ca-dir ")
        assert not directory.exists()

    def test_qr_comes_before_the_details(self, directory: Path) -> None:
        done("generate", directory=directory)
        code = qr_lines("http://192.0.2.1/")
        shown = done("show", "--qr", directory=directory).stdout.splitlines()
        assert shown[: len(code) + 1] == [*code, "http://192.0.2.1/"]
        assert shown[len(code) + 1 :] == done("show", directory=directory).stdout.splitlines()

    def test_qr_is_no_json(self, directory: Path) -> None:
        done("generate", directory=directory)
        assert isinstance(failure("show", "--qr", "--json", directory=directory), UsageError)


class TestExport:
    @pytest.fixture(autouse=True)
    def authority(self, directory: Path) -> CertificateAuthority:
        done("generate", directory=directory)
        return CertificateAuthority.load(directory)

    def test_pem_and_der_are_the_certificate_alone(self, directory: Path) -> None:
        pem = done("export", directory=directory).stdout
        der = done("export", "--format", "der", directory=directory).stdout_bytes
        assert ssl.PEM_cert_to_DER_cert(pem) == der
        assert "PRIVATE" not in pem

    def test_p12_is_a_trust_store_with_its_password(self, directory: Path) -> None:
        der = done("export", "--format", "der", directory=directory).stdout_bytes
        store = done("export", "--format", "p12", directory=directory).stdout_bytes
        assert read_truststore(store) == [der]
        options = ["--format", "p12", "--password", "secret"]
        store = done("export", *options, directory=directory).stdout_bytes
        assert read_truststore(store, "secret") == [der]

    def test_a_file_gets_what_stdout_would(self, directory: Path, tmp_path: Path) -> None:
        file = tmp_path / "out.pem"
        assert done("export", "-o", str(file), directory=directory).stdout_bytes == b""
        assert file.read_bytes() == done("export", directory=directory).stdout_bytes

    def test_a_failure_leaves_the_file_that_stood_there(
        self, directory: Path, tmp_path: Path
    ) -> None:
        file = tmp_path / "out.pem"
        file.write_text("precious")
        (directory / "mitml4-ca-key.pem").chmod(0o644)
        failure("export", "-o", str(file), directory=directory)
        assert file.read_text() == "precious"

    def test_mobileconfig_is_a_profile_with_the_certificate(self, directory: Path) -> None:
        exported = done("export", "--format", "mobileconfig", directory=directory).stdout_bytes
        (root,) = plistlib.loads(exported)["PayloadContent"]
        der = done("export", "--format", "der", directory=directory).stdout_bytes
        assert root["PayloadContent"] == der

    @pytest.mark.parametrize("form", ["der", "p12"])
    def test_binary_does_not_go_to_a_terminal(
        self, directory: Path, form: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Terminal(io.BytesIO):
            def isatty(self) -> bool:
                return True

        terminal = Terminal()
        monkeypatch.setattr(click.File, "convert", lambda *_: terminal)
        error = failure("export", "--format", form, directory=directory)
        assert isinstance(error, UsageError)
        assert error.hint == f"-o mitml4.{form}"
        assert terminal.getvalue() == b""
        done("export", directory=directory)
        assert terminal.getvalue().startswith(b"-----BEGIN CERTIFICATE-----")

    def test_a_password_without_p12_is_refused(self, directory: Path) -> None:
        assert isinstance(failure("export", "--password", "x", directory=directory), UsageError)


class TestEnv:
    def test_a_shell_that_evaluates_it_trusts_the_authority(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done("generate", directory=directory)
        monkeypatch.setenv("SSL_CERT_DIR", "/nowhere")
        lines = done("env", directory=directory).stdout
        probe = (
            "import os, ssl; assert 'SSL_CERT_DIR' not in os.environ; "
            "print(*map(ssl.DER_cert_to_PEM_cert,"
            " ssl.create_default_context().get_ca_certs(binary_form=True)))"
        )
        shell = f'{lines}\n"{sys.executable}" -c "{probe}"'
        seen = subprocess.run(
            ["sh", "-euc", shell], check=True, capture_output=True, text=True, env=os.environ
        ).stdout
        assert done("export", directory=directory).stdout.strip() in seen

    def test_every_line_is_shell(self, directory: Path) -> None:
        done("generate", directory=directory)
        lines = done("env", directory=directory).stdout.splitlines()
        assert {line.split()[0] for line in lines} == {"export", "unset"}
        assert len(lines) == 16


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A machine without any store; the kinds that were asked for."""
    asked: list[str] = []

    def find(kinds: list[Kind], _environ: object) -> Stores:
        asked.extend(kinds)
        return Stores((), tuple(Absent(kind, f"no {kind} here") for kind in kinds))

    monkeypatch.setattr("mitml4.cli.ca.find_stores", find)
    return asked


class TestStores:
    """The stores themselves: tests/tls/stores, tests/e2e/test_ca_install.py."""

    def test_all_kinds_are_meant_unless_some_are_named(
        self, directory: Path, stores: list[str]
    ) -> None:
        done("status", directory=directory)
        done("status", "--store", "nss", "--store", "java", directory=directory)
        assert stores == ["system", "nss", "java", "nss", "java"]

    def test_status_needs_no_authority(self, directory: Path, stores: list[str]) -> None:
        assert done("status", directory=directory).stdout.splitlines() == [
            "system  not present: no system here",
            "nss     not present: no nss here",
            "java    not present: no java here",
        ]
        told = json.loads(done("status", "--json", directory=directory).stdout)
        assert [(state["kind"], state["trusted"]) for state in told] == [
            ("system", False),
            ("nss", False),
            ("java", False),
        ]

    def test_where_there_is_no_store_this_machine_cannot(
        self, directory: Path, stores: list[str]
    ) -> None:
        done("generate", directory=directory)
        result = run("install", directory=directory)
        assert isinstance(result.exception, MachineError)
        assert not (directory / RECORD_FILE).exists()

    def test_nothing_to_uninstall_is_no_failure(self, directory: Path, stores: list[str]) -> None:
        result = done("uninstall", directory=directory)
        assert result.stderr == f"# nothing is installed from {directory}\n"

    def test_a_new_authority_reminds_of_a_former_one_that_is_installed(
        self, directory: Path
    ) -> None:
        done("generate", directory=directory)
        certificate = CertificateAuthority.load(directory).certificate
        Record(directory).add(new_entry(Kind.NSS, directory, certificate, {}))
        said = done("generate", "--force", directory=directory).stderr
        undo = f"mitml4 ca uninstall --ca-dir {shlex.quote(str(directory))}"
        assert f"the former one is still installed: {undo}\n" in said
        assert "shells" not in said

    def test_a_new_authority_reminds_of_shells_that_trust_the_former_one(
        self, directory: Path
    ) -> None:
        done("generate", directory=directory)
        done("env", directory=directory)
        said = done("generate", "--force", directory=directory).stderr
        again = f'eval "$(mitml4 ca env --ca-dir {shlex.quote(str(directory))})"'
        assert said.endswith(f"shells with `mitml4 ca env` still trust the former one: {again}\n")


@pytest.mark.parametrize(
    "command",
    [
        *([], ["generate"], ["show"], ["export"], ["env"]),
        *(["install"], ["uninstall"], ["status"]),
    ],
)
def test_every_help_ends_in_lines_to_paste(command: list[str]) -> None:
    text = CliRunner().invoke(ca, [*command, "--help"]).output
    last = text.rstrip().rpartition("Examples:")[2].strip().splitlines()
    assert 2 <= len(last) <= 3
    assert all("mitml4 ca " in line for line in last)
