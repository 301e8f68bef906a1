"""What is done, said, recorded and taken back, with stores in memory."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.errors import CertificateError, ExitCode, MachineError, MitmError
from mitml4.tls.ca import NAME_PREFIX, CertificateAuthority, ca_command
from mitml4.tls.stores.installation import Absent, Stores, install, states, uninstall
from mitml4.tls.stores.record import RECORD_FILE, Record
from mitml4.tls.stores.store import Kind, MissingToolError, Step, new_entry, sha256_of


@dataclass
class FakeStore:
    """Keeps certificates by fingerprint; does as the test says."""

    place: Path
    kind: Kind = Kind.NSS
    content: dict[str, bytes] = field(default_factory=dict)
    fails_at: str | None = None
    needs: str | None = None
    no_tool: bool = False

    def trusted(self):
        if self.no_tool:
            raise MissingToolError("certutil is not installed", hint="apt install libnss3-tools")
        return list(self.content.values())

    def check_access(self):
        return self.needs

    def install(self, certificate, source):
        entry = new_entry(self.kind, self.place, certificate, {})
        der = certificate.public_bytes(Encoding.DER)
        put = partial(self.content.__setitem__, entry.sha256, der)
        return entry, [Step("put", self._may("put", put)), Step("update", self._may("update"))]

    def uninstall(self, entry):
        if entry.sha256 not in self.content:
            return []
        return [Step("delete", self._may("delete", partial(self.content.pop, entry.sha256)))]

    def _may(self, name, action=lambda: None):
        def do():
            if self.fails_at == name:
                raise MachineError(f"{name} failed")
            action()

        return do


@dataclass
class Machine:
    """A directory with an authority, stores, and what was said."""

    authority: CertificateAuthority
    directory: Path
    stores: list[FakeStore]
    absent: list[Absent] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @property
    def record(self) -> Record:
        return Record(self.directory)

    def _stores(self) -> Stores:
        return Stores(tuple(self.stores), tuple(self.absent))

    def install(self, *, dry_run: bool = False) -> None:
        install(
            self.authority.certificate,
            self.directory / "mitml4-ca.pem",
            self._stores(),
            self.record,
            self.said.append,
            dry_run=dry_run,
            as_root="sudo it",
        )

    def uninstall(self, *, dry_run: bool = False) -> bool:
        return uninstall(
            self._stores(),
            list(Kind),
            self.record,
            self.said.append,
            dry_run=dry_run,
            as_root="sudo it",
        )

    def states(self):
        sha256 = self.authority.sha256
        return states(sha256, self._stores(), self.record.entries)


@pytest.fixture
def machine(authorities, tmp_path) -> Machine:
    stores = [FakeStore(tmp_path / name) for name in ("one", "two", "three")]
    for store in stores:
        store.place.mkdir()
    directory = tmp_path / "ca"
    authorities[0].save(directory)
    return Machine(authorities[0], directory, stores)


def test_every_step_is_said_before_it_is_done_and_every_store_recorded(machine) -> None:
    machine.stores[0].fails_at = "update"
    with pytest.raises(MitmError):
        machine.install()
    one, two = (f"# nss: {store.place}" for store in machine.stores[:2])
    assert machine.said[:3] == [one, "put", "update"]
    assert machine.said[4:7] == [two, "put", "update"]
    assert len(machine.record.entries) == 3


def test_the_record_is_private_and_goes_with_the_last_entry(machine) -> None:
    machine.install()
    file = machine.directory / RECORD_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {entry.sha256 for entry in machine.record.entries} == {machine.authority.sha256}
    assert machine.uninstall()
    assert not file.exists()
    assert [store.content for store in machine.stores] == [{}, {}, {}]


def test_twice_is_as_good_as_once(machine) -> None:
    machine.install()
    before = (machine.directory / RECORD_FILE).read_bytes()
    machine.said.clear()
    machine.install()
    assert all(line.endswith(": trusted already") for line in machine.said)
    assert (machine.directory / RECORD_FILE).read_bytes() == before
    assert machine.uninstall()
    assert not machine.uninstall()


def test_what_was_trusted_before_us_is_neither_recorded_nor_removed(machine) -> None:
    der = machine.authority.certificate.public_bytes(Encoding.DER)
    machine.stores[1].content[sha256_of(der)] = der
    machine.install()
    machine.uninstall()
    assert [len(store.content) for store in machine.stores] == [0, 1, 0]


def test_a_dry_run_shows_all_and_changes_nothing(machine) -> None:
    machine.install(dry_run=True)
    assert machine.said.count("put") == 3
    assert machine.record.entries == []
    assert [store.content for store in machine.stores] == [{}, {}, {}]
    machine.install()
    machine.said.clear()
    machine.uninstall(dry_run=True)
    assert machine.said.count("delete") == 3
    assert len(machine.record.entries) == 3


def test_a_failure_keeps_no_other_store_from_its_turn(machine) -> None:
    machine.stores[1].fails_at = "put"
    with pytest.raises(MitmError, match="1 of 3 stores could not be installed into: put failed"):
        machine.install()
    assert [len(store.content) for store in machine.stores] == [1, 0, 1]
    places = [entry.place for entry in machine.record.entries]
    assert places == [str(machine.stores[0].place), str(machine.stores[2].place)]


def test_half_an_installation_is_on_record(machine) -> None:
    machine.stores[1].fails_at = "update"
    with pytest.raises(MitmError) as caught:
        machine.install()
    assert caught.value.exit_code == ExitCode.FAILED
    assert caught.value.hint == ca_command("uninstall", machine.record.file.parent)
    machine.stores[1].fails_at = None
    machine.uninstall()
    assert [store.content for store in machine.stores] == [{}, {}, {}]


def test_a_kill_between_two_steps_leaves_the_record(machine, monkeypatch) -> None:
    class KilledError(BaseException):
        pass

    def die() -> None:
        raise KilledError

    store = machine.stores[0]
    monkeypatch.setattr(store, "_may", lambda name, action=None: action or die)
    with pytest.raises(KilledError):
        machine.install()
    assert [entry.place for entry in machine.record.entries] == [str(store.place)]


def test_a_failed_uninstall_stays_on_record(machine) -> None:
    machine.install()
    machine.stores[0].fails_at = "delete"
    with pytest.raises(MitmError, match="1 of 3 stores"):
        machine.uninstall()
    assert [entry.place for entry in machine.record.entries] == [str(machine.stores[0].place)]


def test_power_that_is_missing_is_said_before_anything_is_done(machine) -> None:
    machine.stores[2].needs = "root"
    with pytest.raises(MachineError, match="needs root") as caught:
        machine.install()
    assert caught.value.hint == "sudo it"
    assert caught.value.exit_code == ExitCode.CANNOT
    assert machine.said == []
    assert machine.record.entries == []


def test_a_missing_tool_is_a_line_if_another_store_works(machine) -> None:
    machine.stores[0].no_tool = True
    machine.install()
    assert machine.said[0] == (
        f"# nss: {machine.stores[0].place}: certutil is not installed (apt install libnss3-tools)"
    )
    assert [len(store.content) for store in machine.stores] == [0, 1, 1]


def test_a_missing_tool_is_an_error_if_no_store_works(machine) -> None:
    machine.stores = machine.stores[:1]
    machine.stores[0].no_tool = True
    with pytest.raises(MissingToolError, match="certutil") as caught:
        machine.install()
    assert caught.value.exit_code == ExitCode.CANNOT


def test_without_any_store_it_is_said_why(machine) -> None:
    machine.stores = []
    machine.absent = [Absent(Kind.JAVA, "there is no JDK here")]
    with pytest.raises(MachineError, match="no store to install into: there is no JDK here"):
        machine.install()


def test_a_former_authority_is_shown_and_goes_as_well(machine, authorities) -> None:
    machine.stores = machine.stores[:1]
    machine.install()
    machine.authority = authorities[1]
    assert [state.trusted for state in machine.states()] == [False]
    machine.said.clear()
    machine.install()
    assert "former authority" in machine.said[-1]
    (state,) = machine.states()
    assert state.trusted
    assert {found.sha256 for found in state.found} == {each.sha256 for each in authorities}
    machine.uninstall()
    assert machine.stores[0].content == {}


def test_an_authority_of_ours_is_known_by_its_name_without_a_record(machine, authorities) -> None:
    der = authorities[1].certificate.public_bytes(Encoding.DER)
    machine.stores[0].content[sha256_of(der)] = der
    state = machine.states()[0]
    assert not state.trusted
    assert [found.sha256 for found in state.found] == [authorities[1].sha256]
    assert state.found[0].subject.startswith("CN=mitml4 CA of ")


def test_what_nobody_can_say_is_no_verdict(machine) -> None:
    machine.stores[0].no_tool = True
    state = machine.states()[0]
    assert state.trusted is None
    assert state.problem == "certutil is not installed"


def test_a_store_that_has_gone_is_forgotten(machine) -> None:
    machine.install()
    gone = machine.stores.pop(0)
    gone.place.rmdir()
    machine.uninstall()
    assert machine.record.entries == []


def test_a_store_that_is_hidden_is_not_forgotten(machine) -> None:
    machine.install()
    hidden = machine.stores.pop(0)
    with pytest.raises(MitmError, match="no store that is found from here"):
        machine.uninstall()
    assert [entry.place for entry in machine.record.entries] == [str(hidden.place)]


def test_a_store_that_cannot_be_looked_at_is_not_forgotten(machine) -> None:
    machine.install()
    hidden = machine.stores.pop(0)
    (entry,) = (each for each in machine.record.entries if each.place == str(hidden.place))
    machine.record.remove(entry)
    machine.record.add(replace(entry, place=f"{hidden.place}/{'x' * 300}"))
    with pytest.raises(MitmError, match="File name too long"):
        machine.uninstall()
    assert "x" * 300 in machine.record.entries[-1].place


WRITTEN = {"kind": "nss", "place": "/", "sha256": "a" * 64, "subject": "CN=x", "orders": {}}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"version": 2, "installed": []}',
        *(
            json.dumps({"version": 1, "installed": [WRITTEN | wrong]})
            for wrong in (
                {"sha256": "../x"},
                {"sha256": 1},
                {"kind": "disk"},
                {"place": ["/"]},
                {"orders": {"/": 5}},
                {"orders": {"/": [5]}},
                {"orders": ["/"]},
                {"more": 1},
            )
        ),
    ],
)
def test_a_record_that_is_none_of_ours_is_refused_in_one_line(machine, content) -> None:
    (machine.directory / RECORD_FILE).write_text(content)
    with pytest.raises(CertificateError, match="is no record of ours"):
        machine.uninstall()


def test_the_record_is_json_that_a_person_can_read(machine) -> None:
    machine.install()
    content = json.loads((machine.directory / RECORD_FILE).read_text())
    assert content["version"] == 1
    assert {entry["kind"] for entry in content["installed"]} == {"nss"}
    assert NAME_PREFIX in content["installed"][0]["subject"]
