"""The key stores of JDKs: which there are, whose they are, and how keytool is called."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.errors import MachineError
from mitml4.tls.java_keystore import write_jks
from mitml4.tls.stores.java import JavaStore
from mitml4.tls.stores.store import MissingToolError


def put(file: Path, content: bytes = b"") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def test_each_store_is_found_once_however_many_jdks_lead_to_it(tmp_path) -> None:
    shared = put(tmp_path / "etc/ssl/certs/java/cacerts")
    own = put(tmp_path / "usr/lib/jvm/own/lib/security/cacerts")
    old = put(tmp_path / "usr/lib/jvm/old/jre/lib/security/cacerts")
    home = put(tmp_path / "home/jdk/lib/security/cacerts")
    linked = tmp_path / "usr/lib/jvm/linked/lib/security/cacerts"
    linked.parent.mkdir(parents=True)
    linked.symlink_to(shared)
    (tmp_path / "usr/lib/jvm/default").symlink_to("own")
    found = JavaStore.find({"JAVA_HOME": str(tmp_path / "home/jdk"), "PATH": ""}, tmp_path)
    assert sorted(store.place for store in found) == sorted([shared, own, old, home])


@pytest.mark.parametrize(
    ("real", "hook", "follows"),
    [
        ("etc/ssl/certs/java/cacerts", "jks-keystore", True),  # Debian
        ("etc/ssl/certs/java/cacerts", "java-cacerts", True),  # Alpine
        ("etc/ssl/certs/java/cacerts", "mono", False),
        ("etc/pki/ca-trust/extracted/java/cacerts", None, True),  # Fedora
        ("etc/ca-certificates/extracted/java-cacerts.jks", None, True),  # Arch
        ("var/lib/ca-certificates/java-cacerts", None, True),  # openSUSE
        ("opt/cacerts", None, False),
    ],
)
def test_a_store_that_the_systems_tool_makes_is_told(tmp_path, real, hook, follows) -> None:
    file = put(tmp_path / real)
    place = tmp_path / "etc/ssl/certs/java/cacerts"
    if place != file:
        place.parent.mkdir(parents=True)
        place.symlink_to(file)
    if hook:
        put(tmp_path / "etc/ca-certificates/update.d" / hook)
    assert JavaStore.find({"PATH": ""}, tmp_path) == [JavaStore(file, follows)]


def test_keytool_reads_the_certificate_that_was_checked(
    tmp_path, stand_in, authorities, source
) -> None:
    der = authorities[1].certificate.public_bytes(Encoding.DER)
    store = JavaStore(put(tmp_path / "cacerts", write_jks([der])), False)
    stand_in("keytool", f'echo "$@" >{tmp_path}/args; cat >{tmp_path}/given')
    entry, (step,) = store.install(authorities[0].certificate, source)
    source.write_text("something else by now")
    step.do()
    name = f"mitml4-{entry.sha256[:16]}"
    arguments = f"-importcert -noprompt -alias {name} -keystore {store.place} -storepass changeit"
    assert step.shown == f"keytool {arguments} < {source}"
    assert (tmp_path / "args").read_text() == f"{arguments}\n"
    pem = authorities[0].certificate.public_bytes(Encoding.PEM)
    assert (tmp_path / "given").read_bytes() == pem


def test_what_is_there_under_another_name_is_not_ours_to_remove(
    tmp_path, stand_in, authorities, source
) -> None:
    stand_in("keytool", "exit 1")
    der = authorities[0].certificate.public_bytes(Encoding.DER)
    store = JavaStore(put(tmp_path / "cacerts", write_jks([der])), False)
    entry, _ = store.install(authorities[0].certificate, source)
    assert store.uninstall(entry) == []


def test_a_missing_keytool_is_named(tmp_path, stand_in, authorities, source) -> None:
    store = JavaStore(put(tmp_path / "cacerts", write_jks([])), False)
    with pytest.raises(MissingToolError, match="keytool is not installed"):
        store.install(authorities[0].certificate, source)


def test_a_store_that_nobody_can_read_is_one_line(tmp_path) -> None:
    with pytest.raises(MachineError, match=r"cannot read .*cacerts: neither JKS nor PKCS#12"):
        JavaStore(put(tmp_path / "cacerts", b"what?"), False).trusted()
