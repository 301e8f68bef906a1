"""Install the authority into the trust stores of this machine, remove it, report where it is.

Every step is printed before it is done. A store that fails does not stop the others; completed
steps are recorded, and the failure is raised at the end.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.dataclass import dataclass
from mitml4.errors import MachineError, MitmError
from mitml4.tls.ca import NAME_PREFIX, ca_command, env_command
from mitml4.tls.private_files import exists
from mitml4.tls.stores.java import JavaStore
from mitml4.tls.stores.nss import NssStore, has_firefox_without_profile
from mitml4.tls.stores.record import Record
from mitml4.tls.stores.store import Entry, Kind, MissingToolError, Step, Store, sha256_of
from mitml4.tls.stores.system import SystemStore

__all__ = ["Absent", "Found", "State", "Stores", "find_stores", "install", "states", "uninstall"]

Say = Callable[[str], None]

_START_IT: Final = "start it once, then install again"


@dataclass(frozen=True, slots=True)
class Absent:
    """A kind of store that does not exist here, or not yet for a program, and the reason."""

    kind: Kind
    reason: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores of a machine, of the requested kinds."""

    present: tuple[Store, ...]
    absent: tuple[Absent, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """An authority of mitml4's that a store trusts."""

    sha256: str
    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a store trusts."""

    kind: Kind
    place: str
    trusted: bool | None
    """Whether it trusts the given authority; None if that is unknown."""
    found: tuple[Found, ...] = ()
    """All authorities of mitml4's: the given one and older ones."""
    problem: str | None = None


def find_stores(kinds: Iterable[Kind], environ: Mapping[str, str]) -> Stores:
    """The stores of this machine, in the order of installation."""
    present: list[Store] = []
    absent: list[Absent] = []
    for kind in sorted(set(kinds), key=list(Kind).index):
        match kind:
            case Kind.SYSTEM:
                found, missing = _system()
            case Kind.NSS:
                found, missing = _nss(environ)
            case Kind.JAVA:
                found, missing = _java(environ)
        present += found
        absent += missing
    return Stores(tuple(present), tuple(absent))


def _system() -> tuple[Sequence[Store], list[Absent]]:
    try:
        if store := SystemStore.find():
            return [store], []
    except MissingToolError as error:
        return [], [Absent(Kind.SYSTEM, error.message, error.hint)]
    return [], [Absent(Kind.SYSTEM, "this system has no store that is known here")]


def _nss(environ: Mapping[str, str]) -> tuple[Sequence[Store], list[Absent]]:
    found = NssStore.find(environ)
    if has_firefox_without_profile(environ, found):
        return found, [Absent(Kind.NSS, "Firefox has no profile yet", _START_IT)]
    return found, [] if found else [Absent(Kind.NSS, "there is no Firefox or Chromium here")]


def _java(environ: Mapping[str, str]) -> tuple[Sequence[Store], list[Absent]]:
    found = JavaStore.find(environ)
    return found, [] if found else [Absent(Kind.JAVA, "there is no JDK here")]


def install(
    certificate: x509.Certificate,
    source: Path,
    stores: Stores,
    record: Record,
    say: Say,
    *,
    dry_run: bool,
    as_root: str,
) -> None:
    """Make every store trust a certificate, which is also in the PEM file `source`.

    `as_root` is the command to type for more privileges. Raises MachineError if a store needs them
    (then none has changed), or if there is no store; MitmError if one of them has failed.
    """
    if not dry_run:
        _check_access(stores.present, as_root)
    for absent in stores.absent:
        say(f"# {absent.kind}: {absent.reason}" + (f" ({absent.hint})" if absent.hint else ""))
    if not stores.present:
        raise MachineError(
            f"there is no store to install into: {'; '.join(a.reason for a in stores.absent)}",
            hint=next((a.hint for a in stores.absent if a.hint), env_command(source.parent)),
        )
    following = dry_run and any(store.kind is Kind.SYSTEM for store in stores.present)
    outcome = _Outcome(say)
    for store in stores.present:
        with outcome.of(store):
            _install_into(store, certificate, source, record, outcome, dry_run, following)
    sha256 = sha256_of(certificate.public_bytes(Encoding.DER))
    undo = ca_command("uninstall", source.parent)
    if any(entry.sha256 != sha256 for entry in record.entries):
        say(f"# a former authority is still installed: {undo} takes out both")
    outcome.finish("installed into", undo)


def _install_into(
    store: Store,
    certificate: x509.Certificate,
    source: Path,
    record: Record,
    outcome: _Outcome,
    dry_run: bool,
    following: bool,
) -> None:
    sha256 = sha256_of(certificate.public_bytes(Encoding.DER))
    if sha256 in map(sha256_of, store.trusted()):
        outcome.say(f"{_title(store)}: trusted already")
        return
    if following and isinstance(store, JavaStore) and store.follows_system:
        outcome.say(f"{_title(store)}: follows the system's")
        return
    entry, steps = store.install(certificate, source)
    outcome.say(_title(store))
    if dry_run:
        _show(steps, outcome.say)
        return
    record.add(entry)
    try:
        _do(steps, outcome.say)
        if sha256 not in map(sha256_of, store.trusted()):
            raise MachineError(f"{store.place} still does not trust it")
    except BaseException:
        if not store.uninstall(entry):
            record.remove(entry)
        raise


def uninstall(
    stores: Stores, kinds: Iterable[Kind], record: Record, say: Say, *, dry_run: bool, as_root: str
) -> bool:
    """Remove from every store exactly what `install` has added; returns whether there was anything.

    Raises like `install`.
    """
    wanted = set(kinds)
    entries = [entry for entry in reversed(record.entries) if entry.kind in wanted]
    by_place = {(store.kind, str(store.place)): store for store in stores.present}
    found = [(entry, by_place.get((entry.kind, entry.place))) for entry in entries]
    if not dry_run:
        _check_access((store for _, store in found if store), as_root)
    outcome = _Outcome(say)
    for entry, store in found:
        with outcome.of(store or entry):
            if store:
                _uninstall_from(store, entry, record, outcome, dry_run)
            else:
                _forget(entry, record, outcome, dry_run)
    outcome.finish("uninstalled from", ca_command("status", record.file.parent))
    return bool(entries)


def _uninstall_from(
    store: Store, entry: Entry, record: Record, outcome: _Outcome, dry_run: bool
) -> None:
    steps = store.uninstall(entry)
    outcome.say(_title(store) + ("" if steps else ": not there any more"))
    if dry_run:
        _show(steps, outcome.say)
        return
    _do(steps, outcome.say)
    if store.uninstall(entry):
        raise MachineError(f"{store.place} still contains it")
    record.remove(entry)


def _forget(entry: Entry, record: Record, outcome: _Outcome, dry_run: bool) -> None:
    """Handle a recorded store that is not found: it is gone, or only hidden."""
    if exists(Path(entry.place)):
        raise MachineError(
            f"{entry.place} is no store that is found from here",
            hint=f"ls -ld {shlex.quote(str(entry.place))}",
        )
    outcome.say(f"{_title(entry)}: not there any more")
    if not dry_run:
        record.remove(entry)


def states(sha256: str | None, stores: Stores, recorded: Iterable[Entry]) -> list[State]:
    """What each store says about an authority of mitml4's, and about all others that can be
    recognised as such, from the record or by their name."""
    ours = {entry.sha256 for entry in recorded} | ({sha256} if sha256 else set())
    found = [_state(store, sha256, ours) for store in stores.present]
    missing = [
        State(kind=absent.kind, place="", trusted=False, problem=absent.reason)
        for absent in stores.absent
    ]
    return sorted(found + missing, key=lambda state: list(Kind).index(state.kind))


def _state(store: Store, sha256: str | None, ours: set[str]) -> State:
    place = str(store.place)
    try:
        trusted = {sha256_of(der): der for der in store.trusted()}
    except MachineError as error:
        return State(kind=store.kind, place=place, trusted=None, problem=error.message)
    found = tuple(
        Found(each, x509.load_der_x509_certificate(der).subject.rfc4514_string())
        for each, der in trusted.items()
        if each in ours or NAME_PREFIX.encode() in der
    )
    return State(kind=store.kind, place=place, trusted=sha256 in trusted, found=found)


class _Outcome:
    """The results of all stores."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.stores = 0
        self.failures: list[MitmError] = []
        self.missing: list[MissingToolError] = []
        self._store: Store | Entry

    def of(self, store: Store | Entry) -> _Outcome:
        self.stores += 1
        self._store = store
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        match error:
            case MissingToolError():
                self.missing.append(error)
                self.say(f"{_title(self._store)}: {error.message} ({error.hint})")
            case MitmError():
                self.failures.append(error)
                self.say(f"{_title(self._store)}: failed, {error.message}")
            case _:
                return False
        return True

    def finish(self, what: str, hint: str) -> None:
        """Raises an error for the stores that failed, and if no store had its tool."""
        if self.failures:
            first = self.failures[0]
            count = f"{len(self.failures)} of {self.stores} stores could not be {what}: "
            message = (count if self.stores > 1 else "") + first.message
            raise MitmError(message, hint=first.hint or hint)
        if self.missing and len(self.missing) == self.stores:
            raise self.missing[0]


def _check_access(stores: Iterable[Store], as_root: str) -> None:
    """Check before anything is changed. Raises MachineError."""
    for store in stores:
        if needed := store.check_access():
            raise MachineError(f"changing {store.place} needs {needed}", hint=as_root)


def _show(steps: Iterable[Step], say: Say) -> None:
    for step in steps:
        say(step.shown)


def _do(steps: Iterable[Step], say: Say) -> None:
    for step in steps:
        say(step.shown)
        step.do()


def _title(store: Store | Entry) -> str:
    return f"# {store.kind}: {store.place}"
