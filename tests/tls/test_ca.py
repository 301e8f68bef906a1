"""The certificate authority: what it is, and how its two files are kept."""

from __future__ import annotations

import os
import pwd
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from mitml4.errors import CertificateError, UsageError
from mitml4.tls.ca import (
    CERTIFICATE_FILE,
    KEY_FILE,
    CertificateAuthority,
    ca_command,
    default_directory,
    env_command,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data" / "mitml4"


def self_signed(
    key: ec.EllipticCurvePrivateKey, *, ca: bool = True, days: tuple[int, int] = (-1, 1)
) -> x509.Certificate:
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "of the user's own making")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(key, SHA256())
    )


def _no_home() -> Path:
    raise CertificateError("no home")


def _key_identifier(ca: CertificateAuthority) -> str:
    """Its first eight digits."""
    extension = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return extension.value.digest.hex()[:8]


class TestGenerate:
    def test_it_is_an_authority_that_signs_leaves_only(self) -> None:
        certificate = CertificateAuthority.generate().certificate
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert constraints.critical
        assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert usage.value.key_cert_sign
        assert usage.value.crl_sign
        assert not usage.value.digital_signature
        assert certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)

    @pytest.mark.parametrize(
        ("key", "kind", "size", "hash_type"),
        [
            ("ec-p256", ec.EllipticCurvePrivateKey, 256, SHA256),
            ("ec-p384", ec.EllipticCurvePrivateKey, 384, SHA384),
            ("rsa2048", rsa.RSAPrivateKey, 2048, SHA256),
            ("rsa3072", rsa.RSAPrivateKey, 3072, SHA256),
        ],
    )
    def test_the_key_is_of_the_kind_that_was_asked_for(
        self, key: str, kind: type, size: int, hash_type: type
    ) -> None:
        ca = CertificateAuthority.generate(key=key)
        assert isinstance(ca.key, kind)
        assert ca.key.key_size == size
        assert isinstance(ca.certificate.signature_hash_algorithm, hash_type)

    def test_its_name_says_host_date_and_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("socket.gethostname", lambda: "lab7")
        before, ca, after = datetime.now(UTC), CertificateAuthority.generate(), datetime.now(UTC)
        key = _key_identifier(ca)
        names = {f"CN=mitml4 CA of lab7 ({day:%Y-%m-%d} {key})" for day in (before, after)}
        assert ca.subject in names

    def test_two_authorities_of_one_day_have_different_names(self) -> None:
        """OpenSSL takes the first root of the issuer's name for a leaf without a key identifier."""
        assert CertificateAuthority.generate().subject != CertificateAuthority.generate().subject

    def test_a_long_host_name_is_cut(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("socket.gethostname", lambda: "h{}" * 21)
        before, ca, after = datetime.now(UTC), CertificateAuthority.generate(), datetime.now(UTC)
        assert len(ca.subject.removeprefix("CN=")) == 64
        key = _key_identifier(ca)
        assert ca.subject.endswith(tuple(f"({day:%Y-%m-%d} {key})" for day in (before, after)))

    def test_it_lives_for_the_days_that_were_asked_for(self) -> None:
        certificate = CertificateAuthority.generate(days=3).certificate
        life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        assert life == timedelta(days=3)
        assert certificate.not_valid_before_utc < datetime.now(UTC)

    def test_it_can_be_limited_to_domains(self) -> None:
        ca = CertificateAuthority.generate(permit_domains=["Example.com", "*.bücher.example"])
        assert ca.permitted_domains == ("example.com", "xn--bcher-kva.example")
        constraints = ca.certificate.extensions.get_extension_for_class(x509.NameConstraints)
        assert constraints.critical
        excluded = [str(name.value) for name in constraints.value.excluded_subtrees or ()]
        assert excluded == ["0.0.0.0/0", "::/0"]
        assert CertificateAuthority.generate().permitted_domains == ()

    @pytest.mark.parametrize(
        "domain", ["", "*", ".", "a..b", "192.0.2.1", "a b.c", "a/b", "x" * 70, "-a.b", "a-.b"]
    )
    def test_what_is_no_domain_is_refused(self, domain: str) -> None:
        with pytest.raises(UsageError, match="no such domain"):
            CertificateAuthority.generate(permit_domains=[domain])

    @pytest.mark.parametrize("days", [0, -1, 10**9, 3_000_000])
    def test_an_impossible_life_is_refused(self, days: int) -> None:
        with pytest.raises(UsageError, match="no such life"):
            CertificateAuthority.generate(days=days)

    @pytest.mark.parametrize("name", ["", "x" * 65, "\udcff", "a\x1b[2J"])
    def test_an_impossible_name_is_refused(self, name: str) -> None:
        with pytest.raises(UsageError, match="no such name"):
            CertificateAuthority.generate(name=name)

    def test_an_unknown_key_is_refused(self) -> None:
        with pytest.raises(UsageError, match="no such key: dsa"):
            CertificateAuthority.generate(key="dsa")

    def test_the_untrusted_one_says_so(self) -> None:
        one, two = CertificateAuthority.untrusted(), CertificateAuthority.untrusted()
        assert "UNTRUSTED" in one.subject
        assert one.sha256 != two.sha256


class TestSaveAndLoad:
    def test_what_was_saved_is_loaded(self, directory: Path) -> None:
        ca = CertificateAuthority.generate(key="rsa2048")
        ca.save(directory)
        loaded = CertificateAuthority.load(directory)
        assert loaded.sha256 == ca.sha256
        assert loaded.key.private_numbers() == ca.key.private_numbers()

    def test_only_the_owner_can_read_it(self, directory: Path) -> None:
        old = os.umask(0)
        try:
            CertificateAuthority.generate().save(directory)
        finally:
            os.umask(old)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
        assert modes == {CERTIFICATE_FILE: 0o600, KEY_FILE: 0o600}
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE(directory.parent.stat().st_mode) == 0o700

    @pytest.mark.parametrize("left", [CERTIFICATE_FILE, KEY_FILE])
    def test_neither_file_is_overwritten_without_force(self, directory: Path, left: str) -> None:
        directory.mkdir(parents=True)
        (directory / left).write_text("precious")
        with pytest.raises(CertificateError, match="there already") as caught:
            CertificateAuthority.generate().save(directory)
        assert "--force" in str(caught.value.hint)
        assert [path.name for path in directory.iterdir()] == [left]
        assert (directory / left).read_text() == "precious"

    def test_a_file_that_appears_while_saving_stands(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = CertificateAuthority.generate()
        other.save(directory)
        monkeypatch.setattr("mitml4.tls.ca.exists", lambda path: False)
        with pytest.raises(CertificateError, match="File exists"):
            CertificateAuthority.generate().save(directory)
        monkeypatch.undo()
        assert CertificateAuthority.load(directory).sha256 == other.sha256
        assert len(list(directory.iterdir())) == 2

    def test_force_replaces_it(self, directory: Path) -> None:
        CertificateAuthority.generate().save(directory)
        ca = CertificateAuthority.generate()
        ca.save(directory, force=True)
        assert CertificateAuthority.load(directory).sha256 == ca.sha256

    def test_first_use_makes_one_and_second_use_finds_it(self, directory: Path) -> None:
        first, made = CertificateAuthority.load_or_generate(directory)
        second, made_again = CertificateAuthority.load_or_generate(directory)
        assert (made, made_again) == (True, False)
        assert first.sha256 == second.sha256

    def test_half_an_authority_is_no_first_use(self, directory: Path) -> None:
        CertificateAuthority.generate().save(directory)
        (directory / KEY_FILE).unlink()
        with pytest.raises(CertificateError, match=f"{KEY_FILE} is missing"):
            CertificateAuthority.load_or_generate(directory)

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
    def test_a_key_that_others_can_read_is_refused_with_the_remedy(
        self, directory: Path, mode: int
    ) -> None:
        CertificateAuthority.generate().save(directory)
        (directory / KEY_FILE).chmod(mode)
        with pytest.raises(CertificateError, match="others can read the key") as caught:
            CertificateAuthority.load(directory)
        assert caught.value.hint == f"chmod 600 {directory / KEY_FILE}"

    def test_a_missing_authority_is_said_with_the_remedy(self, directory: Path) -> None:
        with pytest.raises(
            CertificateError, match="there is no certificate authority in"
        ) as caught:
            CertificateAuthority.load(directory)
        assert caught.value.hint == f"mitml4 ca generate --ca-dir {directory}"

    @pytest.mark.parametrize("content", ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
    @pytest.mark.parametrize("file", [CERTIFICATE_FILE, KEY_FILE])
    def test_broken_pem_is_refused(self, directory: Path, file: str, content: str) -> None:
        CertificateAuthority.generate().save(directory)
        (directory / file).write_text(content)
        with pytest.raises(CertificateError, match=f"{file} is no ") as caught:
            CertificateAuthority.load(directory)
        assert "\n" not in caught.value.message
        assert str(caught.value.hint).endswith("--force")

    def test_a_key_of_another_certificate_is_refused(self, directory: Path) -> None:
        CertificateAuthority.generate().save(directory)
        key = (directory / KEY_FILE).read_bytes()
        CertificateAuthority.generate().save(directory, force=True)
        (directory / KEY_FILE).write_bytes(key)
        with pytest.raises(CertificateError, match="does not belong to"):
            CertificateAuthority.load(directory)

    @pytest.mark.parametrize(
        ("days", "reason"), [((-9, -1), "it expired on"), ((1, 9), "it is not valid before")]
    )
    def test_an_authority_out_of_its_time_is_refused(
        self, directory: Path, days: tuple[int, int], reason: str
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        CertificateAuthority(self_signed(key, days=days), key).save(directory)
        with pytest.raises(CertificateError, match=reason):
            CertificateAuthority.load(directory)

    def test_a_leaf_is_no_authority(self, directory: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        CertificateAuthority(self_signed(key, ca=False), key).save(directory)
        with pytest.raises(CertificateError, match="no certificate of an authority"):
            CertificateAuthority.load(directory)

    def test_an_encrypted_key_is_refused(self, directory: Path) -> None:
        ca = CertificateAuthority.generate()
        ca.save(directory)
        encryption = BestAvailableEncryption(b"secret")
        (directory / KEY_FILE).write_bytes(
            ca.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        )
        with pytest.raises(CertificateError, match="is encrypted"):
            CertificateAuthority.load(directory)

    def test_a_key_that_cannot_sign_for_all_clients_is_refused(self, directory: Path) -> None:
        CertificateAuthority.generate().save(directory)
        key = ed25519.Ed25519PrivateKey.generate()
        (directory / KEY_FILE).write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        with pytest.raises(CertificateError, match="neither an EC nor an RSA key"):
            CertificateAuthority.load(directory)

    def test_a_directory_that_is_a_file_is_one_line_with_a_hint(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        for directory in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(CertificateError, match="cannot make the directory") as caught:
                CertificateAuthority.generate().save(directory)
            assert caught.value.hint

    def test_a_path_that_cannot_be_looked_at_is_one_line(self, tmp_path: Path) -> None:
        directory = tmp_path / ("x" * 300)
        with pytest.raises(CertificateError, match="File name too long"):
            CertificateAuthority.load(directory)
        with pytest.raises(CertificateError, match="File name too long"):
            CertificateAuthority.load_or_generate(directory)
        with pytest.raises(CertificateError, match="File name too long"):
            CertificateAuthority.generate().save(directory, force=True)

    def test_a_full_disk_leaves_nothing_behind(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(CertificateError, match="No space left on device") as caught:
            CertificateAuthority.generate().save(directory)
        assert str(caught.value.hint).startswith("df ")
        assert list(directory.iterdir()) == []

    def test_a_directory_that_refuses_is_one_line_with_a_hint(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "mkdir", refuse)
        with pytest.raises(CertificateError, match="Permission denied") as caught:
            CertificateAuthority.generate().save(directory)
        assert caught.value.hint == f"ls -ld {directory.parent}"


class TestWhereItLives:
    def test_commands_name_its_directory_unless_it_is_the_users_own(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_DATA_HOME", "/data")
        assert ca_command("status", Path("/data/mitml4")) == "mitml4 ca status"
        assert ca_command("status", Path("/a b")) == "mitml4 ca status --ca-dir '/a b'"
        assert env_command(Path("/c")) == 'eval "$(mitml4 ca env --ca-dir /c)"'
        monkeypatch.setattr("mitml4.tls.ca.default_directory", _no_home)
        assert ca_command("status", Path("/c")) == "mitml4 ca status --ca-dir /c"

    def test_in_the_data_home(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_DATA_HOME", "/data")
        assert default_directory() == Path("/data/mitml4")

    @pytest.mark.parametrize("configured", [None, "", "relative"])
    def test_else_below_the_home(
        self, monkeypatch: pytest.MonkeyPatch, configured: str | None
    ) -> None:
        monkeypatch.delenv("SUDO_USER", raising=False)
        monkeypatch.setenv("HOME", "/home/someone")
        monkeypatch.delenv("XDG_DATA_HOME", raising=False)
        if configured is not None:
            monkeypatch.setenv("XDG_DATA_HOME", configured)
        assert default_directory() == Path("/home/someone/.local/share/mitml4")

    @pytest.mark.parametrize("home", [None, "", "relative"])
    def test_a_home_that_is_no_place_is_looked_up(
        self, monkeypatch: pytest.MonkeyPatch, home: str | None
    ) -> None:
        monkeypatch.delenv("SUDO_USER", raising=False)
        monkeypatch.delenv("XDG_DATA_HOME", raising=False)
        monkeypatch.delenv("HOME", raising=False)
        if home is not None:
            monkeypatch.setenv("HOME", home)
        users = Path(pwd.getpwuid(os.getuid()).pw_dir)
        assert default_directory() == users / ".local/share/mitml4"

    def test_sudo_user_means_nothing_to_an_ordinary_user(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setenv("SUDO_USER", "root")
        monkeypatch.setenv("HOME", "/home/someone")
        monkeypatch.delenv("XDG_DATA_HOME", raising=False)
        assert default_directory() == Path("/home/someone/.local/share/mitml4")
