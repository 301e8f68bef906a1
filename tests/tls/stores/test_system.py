"""The system's store below a root of the test's own, its tool a stand-in that makes the bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.errors import MachineError
from mitml4.tls.java_keystore import reorder_jks, write_jks
from mitml4.tls.stores.store import MissingToolError, Step
from mitml4.tls.stores.system import _ARCH, _DEBIAN, _FEDORA, _LAYOUTS, _SUSE, SystemStore

LAYOUTS = pytest.mark.parametrize(
    "layout", _LAYOUTS, ids=["fedora", "suse", "arch", "debian"], scope="function"
)


def tree(root: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(root.rglob("*")) if file.is_file()}


def do(steps: list[Step]) -> list[str]:
    for step in steps:
        step.do()
    return [step.shown for step in steps]


@pytest.fixture
def system(tmp_path, stand_in):
    """Makes a system of a layout, with one root of its own in it."""

    def make(layout) -> SystemStore:
        root = tmp_path / "root"
        anchors, bundle = root / layout.anchors, root / layout.bundle
        anchors.mkdir(parents=True)
        bundle.parent.mkdir(parents=True, exist_ok=True)
        (anchors / "company.crt").write_text("a company's\n")
        stand_in(layout.update[0], f'echo "$@" >{root}.args\ncat {anchors}/*.crt >{bundle}')
        store = SystemStore.find(root)
        assert store is not None
        do([store._update()])
        return store

    return make


@LAYOUTS
def test_what_is_installed_is_trusted_and_uninstalled_without_a_trace(
    layout, system, authorities, source
) -> None:
    store = system(layout)
    before = tree(store.root)
    der = authorities[0].certificate.public_bytes(Encoding.DER)
    entry, steps = store.install(authorities[0].certificate, source)
    file = store.place / f"mitml4-{entry.sha256[:16]}.crt"
    assert do(steps) == [f"install -m 644 {source} {file}", " ".join(layout.update)]
    assert store.trusted() == [der]
    assert file.stat().st_mode & 0o7777 == 0o644
    do(store.uninstall(entry))
    assert store.trusted() == []
    assert tree(store.root) == before
    assert store.uninstall(entry) == []


@LAYOUTS
def test_the_tool_gets_its_arguments(layout, system, tmp_path) -> None:
    system(layout)
    assert (tmp_path / "root.args").read_text().split() == list(layout.update[1:])


def test_the_layouts_are_those_of_the_distributions() -> None:
    """The directories and commands of each distribution's own manual."""
    assert [(layout.anchors, layout.update) for layout in (_FEDORA, _SUSE, _ARCH, _DEBIAN)] == [
        ("etc/pki/ca-trust/source/anchors", ("update-ca-trust", "extract")),
        ("etc/pki/trust/anchors", ("update-ca-certificates",)),
        ("etc/ca-certificates/trust-source/anchors", ("trust", "extract-compat")),
        ("usr/local/share/ca-certificates", ("update-ca-certificates",)),
    ]


def test_debians_tool_is_told_what_is_gone(system, stand_in, authorities, source, tmp_path) -> None:
    store = system(_DEBIAN)
    (store.root / "etc/ca-certificates.conf").write_text("mozilla/One.crt\n")
    entry, steps = store.install(authorities[0].certificate, source)
    do(steps)
    kept = tmp_path / "configuration"
    stand_in("update-ca-certificates", f'[ "$1" = --certsconf ] && cat "$2" >{kept}')
    remove, update = do(store.uninstall(entry))
    name = f"mitml4-{entry.sha256[:16]}.crt"
    assert remove == f"rm {store.place}/{name}"
    assert name in update
    assert kept.read_text() == f"mozilla/One.crt\n!{name}\n"
    assert (store.root / "etc/ca-certificates.conf").read_text() == "mozilla/One.crt\n"


@pytest.mark.parametrize(("layout", "remembered"), [(_DEBIAN, 1), (_FEDORA, 0)])
def test_the_order_of_javas_store_comes_back_where_the_tool_changes_it(
    layout, remembered, system, authorities, source
) -> None:
    store = system(layout)
    ders = [each.certificate.public_bytes(Encoding.DER) for each in authorities]
    java = store.root / "etc/ssl/certs/java/cacerts"
    java.parent.mkdir(parents=True, exist_ok=True)
    java.write_bytes(before := write_jks(ders))
    java.chmod(0o640)
    entry, steps = store.install(authorities[0].certificate, source)
    do(steps)
    java.write_bytes(reorder_jks(before, ["mitml4-1", "mitml4-0"]))
    do(store.uninstall(entry))
    assert (java.read_bytes() == before) == (remembered == 1)
    assert java.stat().st_mode & 0o7777 == 0o640
    assert len(entry.orders) == remembered


def test_a_file_that_is_another_now_stays(system, authorities, source) -> None:
    store = system(_FEDORA)
    entry, steps = store.install(authorities[0].certificate, source)
    do(steps)
    file = store.place / f"mitml4-{entry.sha256[:16]}.crt"
    file.write_bytes(authorities[1].certificate.public_bytes(Encoding.PEM))
    with pytest.raises(MachineError, match="no longer what was installed"):
        store.uninstall(entry)
    assert file.exists()


def test_an_uninstall_that_was_cut_short_can_be_finished(system, authorities, source) -> None:
    store = system(_FEDORA)
    entry, steps = store.install(authorities[0].certificate, source)
    do(steps)
    store.uninstall(entry)[0].do()
    assert store.trusted() != []
    do(store.uninstall(entry))
    assert store.trusted() == []


def test_a_system_that_nobody_knows_has_no_store(tmp_path) -> None:
    assert SystemStore.find(tmp_path) is None


def test_a_missing_tool_is_named_with_its_package(tmp_path, stand_in) -> None:
    (tmp_path / _DEBIAN.anchors).mkdir(parents=True)
    stand_in("apk", "")
    with pytest.raises(MissingToolError, match="update-ca-certificates is not installed") as caught:
        SystemStore.find(tmp_path)
    assert caught.value.hint == "apk add ca-certificates"


def test_a_tool_that_fails_is_quoted(system, stand_in) -> None:
    store = system(_FEDORA)
    stand_in("update-ca-trust", "echo working; echo 'p11-kit: an error: no space' >&2; exit 1")
    with pytest.raises(MachineError, match=r"^update-ca-trust: p11-kit: an error: no space$"):
        store._update().do()
