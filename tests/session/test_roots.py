"""Which roots the programs of a command trust, and which authorities stand beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.session.command import roots as roots_module
from mitml4.session.command.roots import Authorities, CommandRoots, Place
from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.trust_store import BUNDLE_VARIABLES

NAMED = [CertificateAuthority.generate(name=f"Root {name}").certificate for name in "ABCDEFGH"]
A, B, C, *_ = DERS = [each.public_bytes(Encoding.DER) for each in NAMED]
SYSTEM = Place(0, (A, B))
BUILTIN = Place(1, ())

Write = Callable[..., str]


@pytest.fixture(autouse=True)
def system(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system trusts A and B, programs with roots of their own trust A."""
    monkeypatch.setattr(roots_module, "system_roots", lambda: [A, B])
    monkeypatch.setattr(roots_module, "builtin_roots", lambda: [A])
    monkeypatch.setattr(roots_module, "java_roots", lambda environ: [])


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(*numbers: int) -> str:
        file = tmp_path / "-".join(map(str, numbers))
        file.write_bytes(b"".join(NAMED[number].public_bytes(Encoding.PEM) for number in numbers))
        return str(file)

    return write


def test_without_a_word_programs_trust_the_system_or_what_they_have_built_in() -> None:
    roots = CommandRoots({})
    assert roots.sets == [{A, B}, {A}]
    extra = {roots.places.pop("NODE_EXTRA_CA_CERTS"), roots.places.pop("DENO_CERT")}
    assert extra == {BUILTIN} == {roots.builtin}
    assert set(roots.places.values()) == {SYSTEM}
    assert roots.java == SYSTEM


def test_what_is_built_in_may_be_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    for builtin in ([B, A], []):
        monkeypatch.setattr(roots_module, "builtin_roots", lambda builtin=builtin: builtin)
        assert CommandRoots({}).sets == [{A, B}]


def test_a_file_that_is_named_replaces_the_usual_roots_or_adds_to_them(write: Write) -> None:
    roots = CommandRoots({"CURL_CA_BUNDLE": write(2), "NODE_EXTRA_CA_CERTS": write(2)})
    assert roots.sets == [{A, B}, {A}, {C}, {A, C}]
    assert roots.places["CURL_CA_BUNDLE"] == Place(2, (C,))
    assert roots.places["NODE_EXTRA_CA_CERTS"] == Place(3, (C,))
    assert roots.places["SSL_CERT_FILE"] == SYSTEM


def test_the_file_that_libpq_reads_counts_as_if_it_were_named(write: Write, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert "PGSSLROOTCERT" not in CommandRoots(home).places
    (tmp_path / ".postgresql").mkdir()
    Path(write(2)).rename(tmp_path / ".postgresql/root.crt")
    assert CommandRoots(home).places["PGSSLROOTCERT"] == Place(2, (C,))
    named = home | {"PGSSLROOTCERT": write(1)}
    assert CommandRoots(named).places["PGSSLROOTCERT"].roots == (B,)
    assert "PGSSLROOTCERT" not in CommandRoots(home | {"PGSSLROOTCERT": "system"}).places
    assert "PGSSLROOTCERT" not in CommandRoots({"HOME": ""}).places


def test_the_same_roots_are_one_set(write: Write) -> None:
    roots = CommandRoots({"CURL_CA_BUNDLE": write(1, 0), "PIP_CERT": write(0), "AWS_CA_BUNDLE": ""})
    assert roots.sets == [{A, B}, {A}]
    assert roots.places["CURL_CA_BUNDLE"] == Place(0, (B, A))
    assert roots.places["PIP_CERT"] == Place(1, (A,))
    assert roots.places["AWS_CA_BUNDLE"] == SYSTEM


def test_a_variable_that_a_program_looks_at_instead_is_not_hidden(write: Write) -> None:
    def unset(*named: str) -> set[str]:
        places = CommandRoots(dict.fromkeys(named, write(2))).places
        return {*BUNDLE_VARIABLES} - set(places)

    assert unset("CURL_CA_BUNDLE") == {"REQUESTS_CA_BUNDLE", "PIP_CERT"}
    assert unset("REQUESTS_CA_BUNDLE") == {"PIP_CERT", "AWS_CA_BUNDLE"}
    assert unset("PIP_CERT") == {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}
    assert unset("HTTPS_CA_DIR") == unset("PERL_LWP_SSL_CA_PATH") == {"PERL_LWP_SSL_CA_FILE"}
    usual = {"CURL_CA_BUNDLE", "PIP_CERT", "CARGO_HTTP_CAINFO", "NIX_SSL_CERT_FILE"}
    assert unset("SSL_CERT_FILE") == {*usual, "PERL_LWP_SSL_CA_FILE"}
    assert unset("SSL_CERT_FILE", "CURL_CA_BUNDLE") >= {"PIP_CERT", "REQUESTS_CA_BUNDLE"}
    assert unset("PGSSLROOTCERT", "NODE_EXTRA_CA_CERTS") == set()


def test_what_cannot_be_read_is_left_as_it_is(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"no certificate")
    for named in (empty, tmp_path / "missing", tmp_path):
        places = CommandRoots({"CURL_CA_BUNDLE": str(named), "SSL_CERT_DIR": str(named)}).places
        assert not {"CURL_CA_BUNDLE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"} & set(places)


def test_a_variable_for_one_program_is_set_only_where_it_was(write: Write) -> None:
    assert "PGSSLROOTCERT" not in CommandRoots({}).places
    assert CommandRoots({"PGSSLROOTCERT": write(2)}).places["PGSSLROOTCERT"] == Place(2, (C,))


def test_directories_are_read_as_openssl_reads_them(tmp_path: Path, write: Write) -> None:
    for name, number in (("one", 0), ("two", 2)):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "root.pem").write_bytes(Path(write(number)).read_bytes())
        (directory / "01234567.0").symlink_to("root.pem")
    roots = CommandRoots({"SSL_CERT_DIR": f"{tmp_path}/one:{tmp_path}/two:/nowhere"})
    assert roots.places["SSL_CERT_DIR"] == Place(2, (A, C), is_directory=True)
    in_place_of_a_file = CommandRoots({"REQUESTS_CA_BUNDLE": f"{tmp_path}/two"})
    assert in_place_of_a_file.places["REQUESTS_CA_BUNDLE"] == Place(2, (C,), is_directory=True)


def test_too_many_sets_leave_a_variable_as_it_is(write: Write) -> None:
    variables = [each for each in BUNDLE_VARIABLES if "CERTS" not in each][:6]
    environ = {variable: write(number) for number, variable in enumerate(variables, 2)}
    roots = CommandRoots(environ)
    assert len(roots.sets) == 6
    assert [variable in roots.places for variable in variables] == [True] * 4 + [False] * 2


def test_a_place_shows_the_authorities_of_what_its_set_verifies() -> None:
    authorities = Authorities.of(3)
    assert set(authorities.by_sets) == {
        *(frozenset({number}) for number in range(3)),
        *(frozenset(each) for each in ({0, 1}, {0, 2}, {1, 2}, {0, 1, 2})),
    }
    assert authorities.by_sets[frozenset({0, 1, 2})] is authorities.widest
    for number in range(3):
        shown = authorities.shown_in(Place(number, (C,)))
        assert shown[0] == C
        assert set(shown[1:]) == {
            each.certificate.public_bytes(Encoding.DER)
            for sets, each in authorities.by_sets.items()
            if number in sets
        }
    subjects = {each.subject for each in authorities.by_sets.values()}
    assert len(subjects) == 7


def test_no_name_is_that_of_an_authority_of_another_run() -> None:
    """A run inside a run: its command trusts both, and a leaf may name its issuer only."""
    first, second = Authorities.of(3), Authorities.of(3)
    subjects = {each.subject for one in (first, second) for each in one.by_sets.values()}
    assert len(subjects) == 14


def test_one_set_has_one_authority() -> None:
    authorities = Authorities.of(1)
    assert list(authorities.by_sets) == [{0}]
    assert authorities.widest.subject.startswith("CN=mitml4 CA of ")
