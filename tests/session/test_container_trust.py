"""A container's roots with one certificate more, and where they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL.crypto import X509

from mitml4.errors import MachineError
from mitml4.net.attach.covers import Covers, MountNamespace
from mitml4.net.attach.programs import Program, ProgramGroup
from mitml4.net.attach.root import Root
from mitml4.net.attach.target import Target
from mitml4.session.attach import key_stores, trust
from mitml4.session.attach.key_stores import KeyStores
from mitml4.session.attach.roots import has_own_roots, places_of_files
from mitml4.session.attach.trust import ContainerTrust, with_certificate
from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.java_keystore import read_truststore, write_jks, write_truststore
from mitml4.tls.trust_store import certificates_in, merged_bundle

OURS, THEIRS = (CertificateAuthority.generate(name=name).certificate for name in ("ours", "theirs"))
DER, ROOT = (each.public_bytes(Encoding.DER) for each in (OURS, THEIRS))


def test_a_bundle_keeps_its_text_and_gets_the_certificate() -> None:
    bundle = b"# of the company\n" + merged_bundle([ROOT]).rstrip()
    merged = with_certificate(bundle, DER)
    assert merged is not None
    assert merged.startswith(bundle + b"\n")
    assert list(certificates_in(merged)) == [ROOT, DER]
    assert with_certificate(merged, DER) is None


@pytest.fixture
def stores() -> Iterator[KeyStores]:
    with closing(KeyStores.start()) as found:
        yield found


@pytest.mark.parametrize("store", [write_jks([ROOT]), write_truststore([ROOT])])
def test_a_key_store_gets_it_too(stores: KeyStores, store: bytes) -> None:
    merged = stores.with_certificate(store, DER)
    assert merged is not None
    assert read_truststore(merged) == [ROOT, DER]
    assert stores.with_certificate(merged, DER) is None


@pytest.mark.parametrize("content", [b"", b"text", b"\xfe\xed\xfe\xed", b"\0" * 100])
def test_anything_else_is_left_alone(stores: KeyStores, content: bytes) -> None:
    assert stores.with_certificate(content, DER) is None


def test_a_store_that_takes_long_to_read_does_not_hold_up_a_session(monkeypatch) -> None:
    """As a PKCS#12 that asks for two billion iterations."""
    monkeypatch.setattr(key_stores, "_CPU_S", 1)
    monkeypatch.setattr(key_stores, "read_truststore", lambda _: next(c for c in count() if c < 0))
    with closing(KeyStores.start()) as stores:
        for _ in range(2):
            with pytest.raises(MachineError, match="in time"):
                stores.with_certificate(b"store", DER)


def group(directory: Path, *programs: Program) -> ProgramGroup:
    root = Root(os.open(directory, os.O_PATH | os.O_DIRECTORY))
    return ProgramGroup(1, MountNamespace(-1, None), root, programs)


@pytest.mark.parametrize(
    ("file", "program"),
    [
        ("/etc/ssl/cert.pem", None),
        ("/usr/lib/python3.12/site-packages/certifi/cacert.pem", None),
        ("/srv/app/.venv/lib/python3.11/site-packages/certifi/cacert.pem", None),
        (
            "/a/b/c/d/lib/python3.11/site-packages/pip/_vendor/certifi/cacert.pem",
            Program("/usr/bin/python3.11", ("/a/b/c/d/bin/python", "-m", "app"), {}),
        ),
        (
            "/a/b/lib/python3.11/site-packages/botocore/cacert.pem",
            Program("/usr/bin/python3.11", ("python",), {"VIRTUAL_ENV": "/a/b"}),
        ),
        ("/x/jdk/lib/security/cacerts", Program("/x/jdk/bin/java", ("java",), {})),
        ("/opt/java/openjdk/lib/security/cacerts", None),
        ("/x/store", Program("/bin/java", ("java", "-Djavax.net.ssl.trustStore=/x/store"), {})),
        ("/x/roots.pem", Program("/bin/app", ("app",), {"SSL_CERT_FILE": "/x/roots.pem"})),
        ("/x/more.pem", Program("/bin/node", ("node",), {"NODE_EXTRA_CA_CERTS": "/x/more.pem"})),
    ],
)
def test_roots_are_found_where_they_usually_are_or_where_programs_say(
    tmp_path: Path, file: str, program: Program | None
) -> None:
    path = tmp_path / file.lstrip("/")
    path.parent.mkdir(parents=True)
    path.touch()
    found = group(tmp_path, *([program] if program else []))
    assert file in places_of_files(found)
    found.root.close()


def test_of_the_host_only_what_its_system_and_the_programs_use_is_covered(tmp_path, monkeypatch):
    """`ip netns exec` leaves a program the host's files, which have others' environments too."""
    usual, others, named = (
        f"{prefix}/lib/python3.11/site-packages/certifi/cacert.pem"
        for prefix in ("/usr", "/srv/others/.venv", "/srv/own/.venv")
    )
    for each in (usual, others, named):
        (tmp_path / each[1:]).parent.mkdir(parents=True)
        (tmp_path / each[1:]).touch()
    found = group(tmp_path, Program("/usr/bin/python3", ("/srv/own/.venv/bin/python",), {}))
    assert set(places_of_files(found)) == {usual, others, named}
    monkeypatch.setattr(Root, "is_ours", True)
    assert set(places_of_files(found)) == {usual, named}
    found.root.close()


@pytest.mark.parametrize(
    ("arguments", "environ", "own"),
    [
        (("node", "app.js"), {}, ["node"]),
        (("node", "--use-system-ca", "app.js"), {}, []),
        (("node", "app.js"), {"NODE_OPTIONS": "--use-openssl-ca"}, []),
        (("node", "app.js"), {"NODE_EXTRA_CA_CERTS": "/x"}, []),
    ],
)
def test_a_node_with_built_in_roots_is_named(tmp_path, arguments, environ, own) -> None:
    found = group(tmp_path, Program("/usr/bin/node", arguments, environ))
    assert has_own_roots(found) == own
    found.root.close()


class NoCovers:
    """Nothing is mounted."""

    def file(self, target: int, content: bytes) -> None:
        raise AssertionError

    directory = file


def test_files_that_are_read_in_vain_take_a_limited_time(tmp_path, monkeypatch, stores) -> None:
    """A program names thousands of them, or of one hash in a directory."""
    target = cast(Target, SimpleNamespace(what="container c"))
    hashed = X509.from_cryptography(OURS).subject_name_hash()
    named = [f"/named/{each}" for each in range(20)]
    hashes = [f"/hashes/{hashed:08x}.{each}" for each in range(20)]
    for each in (*named, *hashes):
        file = tmp_path / each.lstrip("/")
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"no certificate")
    for variable, value in (("SSL_CERT_FILE", ":".join(named)), ("SSL_CERT_DIR", "/hashes")):
        monkeypatch.setattr(trust, "time", SimpleNamespace(monotonic=partial(next, count())))
        found = group(tmp_path, Program("/usr/bin/app", (), {variable: value}))
        with closing(found.root):
            covers = cast(Covers, NoCovers())
            said = list(ContainerTrust(target, [(found, covers)], stores, []).lay(OURS))
        assert said[-1].endswith("those of process 1 (too many, or too slow)")
