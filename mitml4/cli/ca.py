"""`mitml4 ca`: create, show, export and install the certificate authority."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import click
from click.shell_completion import CompletionItem

from mitml4.address import CA_PAGE_URL
from mitml4.cli.console import Console
from mitml4.cli.options.sections import Command
from mitml4.encoding import to_line
from mitml4.errors import UsageError
from mitml4.printable import printable
from mitml4.sinks.files import open_file, write_failure
from mitml4.sinks.qr import qr_lines
from mitml4.tls.ca import (
    CA_KEYS,
    CERTIFICATE_FILE,
    DEFAULT_DAYS,
    CertificateAuthority,
    ca_command,
    default_directory,
    env_command,
)
from mitml4.tls.ca_files import FORMATS, Format, write_certificate
from mitml4.tls.java_keystore import PASSWORD
from mitml4.tls.original import Original
from mitml4.tls.private_files import exists
from mitml4.tls.stores.installation import State, find_stores, states
from mitml4.tls.stores.installation import install as install_into
from mitml4.tls.stores.installation import uninstall as uninstall_from
from mitml4.tls.stores.record import Record
from mitml4.tls.stores.store import Kind, sha256_of
from mitml4.tls.trust_store import BUNDLE_FILE, UNSET_VARIABLES, certificates_of, write_trust
from mitml4.whole_writes import write_all

__all__ = ["ca"]

_in_directory = click.option(
    "--ca-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_directory,
    metavar="DIR",
    help="Directory of the certificate authority. Default: $XDG_DATA_HOME/mitml4.",
)


class _Output(click.File):
    """Standard output, or the path of a file, which is opened when it is written."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(value, param, ctx) if value == "-" else Path(value)


class _Commands(click.Group):
    """Lists its commands in the order of their definition, with uncut summaries."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, _first_line(command)) for name, command in self.commands.items()]
            )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Uncut summaries here, too; what else there is to complete is click's."""
        return [
            CompletionItem(item.value, item.type, help=_first_line(self.commands[item.value]))
            if item.value in self.commands
            else item
            for item in super().shell_complete(ctx, incomplete)
        ]


def _first_line(command: click.Command) -> str:
    return (command.help or "").partition("\n")[0]


@click.group(
    cls=_Commands,
    epilog="""\b
Examples:
  mitml4 ca generate
  mitml4 ca export -o mitml4.pem
  eval "$(mitml4 ca env)"
""",
)
def ca() -> None:
    """Manage the certificate authority that clients have to trust."""


@ca.command(
    epilog="""\b
Examples:
  mitml4 ca generate
  mitml4 ca generate --key rsa3072 --days 30
  mitml4 ca generate --permit-domain example.com --ca-dir ./lab
"""
)
@_in_directory
@click.option(
    "--key",
    type=click.Choice(list(CA_KEYS)),
    default="ec-p256",
    show_default=True,
    help="Type of its key; rsa3072 for old devices.",
)
@click.option(
    "--days",
    type=click.IntRange(min=1),
    default=DEFAULT_DAYS,
    show_default=True,
    help="Validity in days.",
)
@click.option(
    "--name",
    help="Its common name. Choose one that no other authority has that your clients trust.  "
    "[default: this host, today's date, and digits of its key]",
)
@click.option(
    "--permit-domain",
    multiple=True,
    metavar="DOMAIN",
    help="Sign only for this domain and its subdomains (repeatable).",
)
@click.option("--force", is_flag=True, help="Replace an existing authority permanently.")
def generate(
    *,
    ca_dir: Path,
    key: str,
    days: int,
    name: str | None,
    permit_domain: tuple[str, ...],
    force: bool,
) -> None:
    """Create a certificate authority.

    Its key can impersonate every site to every client that trusts it. The key is kept in a file
    that only you can read.
    """
    authority = CertificateAuthority.generate(
        key=key, days=days, name=name, permit_domains=permit_domain
    )
    authority.save(ca_dir, force=force)
    click.echo(f"created {authority.subject}", err=True)
    click.echo(f"the certificate for clients to trust: {ca_dir / CERTIFICATE_FILE}", err=True)
    if Record(ca_dir).entries:
        undo = ca_command("uninstall", ca_dir)
        click.echo(f"the former one is still installed: {undo}", err=True)
    if exists(ca_dir / BUNDLE_FILE):
        again = env_command(ca_dir)
        click.echo(f"shells with `mitml4 ca env` still trust the former one: {again}", err=True)


@ca.command(
    epilog="""\b
Examples:
  mitml4 ca show
  mitml4 ca show --json | jq -r .sha256
  mitml4 ca show --qr
"""
)
@_in_directory
@click.option("--json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--qr", is_flag=True, help=f"Also print a QR code of {CA_PAGE_URL}, the page of a session."
)
@click.pass_obj
def show(console: Console | None, /, *, ca_dir: Path, json: bool, qr: bool) -> None:
    """Show the certificate authority: name, fingerprint, validity, path.

    While `mitml4 intercept` runs, its clients find the certificate at http://192.0.2.1/.
    """
    if json and qr:
        raise UsageError("a QR code is no JSON", hint="mitml4 ca show --qr")
    details = _details(CertificateAuthority.load(ca_dir), ca_dir)
    if json:
        click.echo(to_line(details))
        return
    if qr:
        for line in qr_lines(CA_PAGE_URL):
            click.secho(line, fg="black", bg="bright_white", color=_colors(console))
        click.echo(CA_PAGE_URL)
    for name, value in details.items():
        if value:
            click.echo(f"{name.replace('_', ' '):<17}  {_shown(value)}")


def _colors(console: Console | None) -> bool | None:
    """Whether to use colours; None: if the output is a terminal."""
    color = console.color if console else "auto"
    return None if color == "auto" else color == "always"


def _shown(value: object) -> str:
    match value:
        case datetime():
            return f"{value:%Y-%m-%d %H:%M} UTC"
        case tuple():
            return ", ".join(value)
        case _:
            return str(value)


def _details(authority: CertificateAuthority, directory: Path) -> dict[str, object]:
    certificate = authority.certificate
    return {
        "subject": authority.subject,
        "sha256": authority.sha256,
        "key": Original.read(certificate).key,
        "not_before": certificate.not_valid_before_utc,
        "not_after": certificate.not_valid_after_utc,
        "permitted_domains": authority.permitted_domains,
        "certificate": str(directory / CERTIFICATE_FILE),
    }


@ca.command(
    epilog="""\b
Examples:
  mitml4 ca export > mitml4.pem
  mitml4 ca export --format der -o mitml4.crt
  mitml4 ca export --format p12 --password secret -o mitml4.p12
"""
)
@_in_directory
@click.option(
    "--format",
    type=click.Choice(FORMATS),
    default="pem",
    show_default=True,
    help="p12 is a trust store for Java, mobileconfig a profile for iOS and macOS.",
)
@click.option(
    "-o", "--output", type=_Output("wb"), default="-", help="Output file.  [default: stdout]"
)
@click.option("--password", help=f"Password of a p12.  [default: {PASSWORD}]")
def export(*, ca_dir: Path, format: Format, output: BinaryIO | Path, password: str | None) -> None:
    """Write the certificate, for clients to trust. The key is never exported."""
    if password is not None and format != "p12":
        raise UsageError(f"a {format} has no password", hint="--format p12 has one")
    certificate = CertificateAuthority.load(ca_dir).certificate
    content = write_certificate(certificate, format, password)
    if isinstance(output, Path):
        _write(output, content)
        return
    if format in ("der", "p12") and output.isatty():
        raise UsageError(f"a {format} is binary: not to a terminal", hint=f"-o mitml4.{format}")
    output.write(content)


def _write(path: Path, content: bytes) -> None:
    """Raises MitmError."""
    descriptor = open_file(path, public=True)
    try:
        write_all(descriptor, content)
    except OSError as error:
        raise write_failure(str(path), error) from error
    finally:
        os.close(descriptor)


@ca.command(
    epilog="""\b
Examples:
  eval "$(mitml4 ca env)"
  mitml4 ca env > trust.sh
"""
)
@_in_directory
def env(*, ca_dir: Path) -> None:
    """Print variables that make the programs of a shell trust the authority.

    The variables name a file with the system's roots, the roots that your environment adds, and
    this authority. The file, and a trust store for Java, are written to the authority's directory.
    """
    authority = CertificateAuthority.load(ca_dir)
    variables = write_trust(authority.certificate, ca_dir.absolute(), os.environ)
    for name, value in variables.items():
        click.echo(f"export {name}={shlex.quote(value)}")
    for name in UNSET_VARIABLES:
        click.echo(f"unset {name}")


_kinds = click.option(
    "--store",
    type=click.Choice([kind.value for kind in Kind]),
    multiple=True,
    help="Only stores of this kind (repeatable).  [default: all]",
)
_dry_run = click.option("--dry-run", is_flag=True, help="Print every step; change nothing.")


@ca.command(
    epilog="""\b
Examples:
  sudo mitml4 ca install
  mitml4 ca install --dry-run
  mitml4 ca install --store nss
"""
)
@_in_directory
@_kinds
@_dry_run
@click.pass_obj
def install(
    console: Console | None, /, *, ca_dir: Path, store: tuple[str, ...], dry_run: bool
) -> None:
    """Make this machine's trust stores trust the authority.

    The stores are the system's, the databases of your Firefox and Chromium (nss), and those of
    Java. Chromium's database is created if it does not exist; Firefox has to have run once. Every
    step is printed first and recorded next to the authority, so that `mitml4 ca uninstall` can undo
    it. The system's store needs root; under sudo, the authority and the browsers are those of your
    user.
    """
    certificate = CertificateAuthority.load(ca_dir).certificate
    chosen = _chosen(store)
    install_into(
        certificate,
        ca_dir.absolute() / CERTIFICATE_FILE,
        find_stores(chosen, os.environ),
        Record(ca_dir),
        _saying(console, dry_run),
        dry_run=dry_run,
        as_root=_as_root("install", ca_dir, store),
    )


@ca.command(
    epilog="""\b
Examples:
  sudo mitml4 ca uninstall
  mitml4 ca uninstall --dry-run
"""
)
@_in_directory
@_kinds
@_dry_run
@click.pass_obj
def uninstall(
    console: Console | None, /, *, ca_dir: Path, store: tuple[str, ...], dry_run: bool
) -> None:
    """Undo `mitml4 ca install`.

    It removes exactly the recorded certificates, former authorities included, and only if a store
    still contains the certificate that was installed.
    """
    chosen = _chosen(store)
    say = _saying(console, dry_run)
    anything = uninstall_from(
        find_stores(chosen, os.environ),
        chosen,
        Record(ca_dir),
        say,
        dry_run=dry_run,
        as_root=_as_root("uninstall", ca_dir, store),
    )
    if not anything:
        say(f"# nothing is installed from {ca_dir}")


@ca.command(
    epilog="""\b
Examples:
  mitml4 ca status
  mitml4 ca status --json | jq -r '.[] | select(.trusted) | .place'
"""
)
@_in_directory
@_kinds
@click.option("--json", is_flag=True, help="Print a JSON array with one object per store.")
def status(*, ca_dir: Path, store: tuple[str, ...], json: bool) -> None:
    """Show which stores trust the authority, or a former one."""
    found = states(
        _fingerprint(ca_dir), find_stores(_chosen(store), os.environ), Record(ca_dir).entries
    )
    if json:
        click.echo(to_line([asdict(state) for state in found]))
        return
    for state in found:
        for line in _described(state, _fingerprint(ca_dir)):
            click.echo(line)


def _described(state: State, sha256: str | None) -> Iterator[str]:
    match state.trusted:
        case None:
            verdict = f"unknown: {state.problem}"
        case True:
            verdict = "trusted"
        case False if not state.place:
            verdict = f"not present: {state.problem}"
        case False:
            verdict = "not trusted"
    yield f"{state.kind:<6}  {printable(verdict)}" + (f"  {state.place}" if state.place else "")
    for found in state.found:
        remark = "" if found.sha256 == sha256 else "  (another one)"
        yield f"        {found.sha256}  {printable(found.subject)}{remark}"


def _fingerprint(directory: Path) -> str | None:
    """The authority's fingerprint, even if it has expired; None if there is no authority."""
    ders = certificates_of(directory / CERTIFICATE_FILE)
    return next((sha256_of(der) for der in ders), None)


def _chosen(kinds: tuple[str, ...]) -> list[Kind]:
    return [Kind(kind) for kind in kinds] or list(Kind)


def _saying(console: Console | None, dry_run: bool) -> Callable[[str], None]:
    """Steps of a dry run go to standard output, actual steps to standard error."""
    if dry_run:
        return click.echo
    return (console or Console()).say


def _as_root(command: str, directory: Path, kinds: tuple[str, ...]) -> str:
    stores = "".join(f" --store {kind}" for kind in kinds)
    return f"sudo mitml4 ca {command}{stores} --ca-dir {shlex.quote(str(directory.absolute()))}"
