"""NSS databases (Firefox, Thunderbird, Chromium): the part that is needed to trust one root.

A database is a directory: `cert9.db` (certificates and trust), `key4.db` (keys, and a MAC of each
trust if the database has a password, even an empty one) and `pkcs11.txt` (the list of modules).
NSS's own module can be loaded a second time, with another database. This adds a root for one
process without a change of the first two files.

Formats: lib/softoken/sdb.c, lib/softoken/sftkdb.c and lib/util/utilmod.c of NSS.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

__all__ = [
    "CERTIFICATES_FILE",
    "KEYS_FILE",
    "MODULES_FILE",
    "initial_modules",
    "modules_with",
    "remove_certificate",
    "trusting_database",
]

CERTIFICATES_FILE: Final = "cert9.db"
MODULES_FILE: Final = "pkcs11.txt"
KEYS_FILE: Final = "key4.db"

# One column for each attribute of NSS, as of NSS 3.12x (known_attributes of sdb.c).
_ATTRIBUTES: Final = (
    "0-4 10-12 80-8c 90 100-10c 110-111 120-129 130-134 160-166 170-172 180-181 200-202 210 "
    "220-227 22a-22f 250-252 300-302 400-406 480-482 500-503 601-612 617-637 40000211-40000213 "
    "80000001 ce534351-ce534358 ce534364-ce534369 ce534373-ce534374 ce536351-ce536360 "
    "ce5363b4-ce5363b5 d5a0db00"
)
_INDEXES: Final = {"issuer": 0x81, "subject": 0x101, "label": 0x3, "ckaid": 0x102}

_EMPTY: Final = b"\xa5\x00\x5a"  # SQLITE_EXPLICIT_NULL
_YES, _NO = b"\x01", b"\x00"

# PKCS #11 3.2; values that start with "ce5" are NSS's (pkcs11n.h).
_CLASS, _TOKEN, _PRIVATE, _LABEL, _VALUE = 0x0, 0x1, 0x2, 0x3, 0x11
_CERTIFICATE_TYPE, _ISSUER, _SERIAL, _NAME_HASH_ALGORITHM = 0x80, 0x81, 0x82, 0x8C
_SUBJECT, _ID, _MODIFIABLE = 0x101, 0x102, 0x170
_TRUST_SERVERS, _TRUST_CLIENTS, _TRUST_CODE, _TRUST_MAIL = 0x62C, 0x62D, 0x62E, 0x62F
_HASH_OF_CERTIFICATE: Final = 0x635
_NSS_SERVERS, _NSS_CLIENTS, _NSS_CODE, _NSS_MAIL = 0xCE536358, 0xCE536359, 0xCE53635A, 0xCE53635B
_NSS_STEP_UP, _NSS_SHA1, _NSS_MD5 = 0xCE536360, 0xCE5363B4, 0xCE5363B5

_A_CERTIFICATE, _A_TRUST, _A_TRUST_OF_NSS = 0x1, 0xB, 0xCE534353
_X509: Final = 0
_SHA256: Final = 0x250  # CKM_SHA256
_UNKNOWN, _ANCHOR, _MUST_VERIFY = 0x1, 0x2, 0x4  # CKT_TRUST_…
_NSS_DELEGATOR, _NSS_UNKNOWN = 0xCE534352, 0xCE534355  # CKT_NSS_TRUSTED_DELEGATOR, …_UNKNOWN

_MODULES: Final = """\
library=
name=NSS Internal PKCS #11 Module
parameters=configdir='sql:{directory}' certPrefix='' keyPrefix='' secmod='secmod.db' \
flags=optimizeSpace updatedir='' updateCertPrefix='' updateKeyPrefix='' updateid='' \
updateTokenDescription='' \n\
NSS=Flags=internal,critical trustOrder=75 cipherOrder=100 \
slotParams=(1={{slotFlags=[ECC,RSA,DSA,DH,RC2,RC4,DES,RANDOM,SHA1,MD5,MD2,SSL,TLS,AES,Camellia,\
SEED,SHA256,SHA512] askpw=any timeout=30}})

"""
# The library is already loaded, so NSS adds a token to it instead of initialising it again
# (secmod_handleReload of lib/pk11wrap/pk11load.c).
_MODULE: Final = """
library=libsoftokn3.so
name=mitml4
parameters=configdir='sql:{directory}' certPrefix='' keyPrefix='' secmod='secmod.db' \
flags=readOnly tokenDescription='mitml4'
NSS=trustOrder=75

"""

_BUSY_S: Final = 2.0


def trusting_database(*certificates: x509.Certificate) -> dict[str, bytes]:
    """The files of a database without a password that trusts these roots for TLS servers."""
    kinds = (_certificate, _trust, _trust_before_3_2)
    return {
        CERTIFICATES_FILE: _database(
            _table("nssPublic"),
            "nssPublic",
            [kind(certificate) for certificate in certificates for kind in kinds],
        ),
        KEYS_FILE: _database(
            f"{_table('nssPrivate')}; CREATE TABLE metaData "
            "(id PRIMARY KEY UNIQUE ON CONFLICT REPLACE, item1, item2)",
            "nssPrivate",
            [],
        ),
    }


def initial_modules(directory: Path) -> bytes:
    """The content of `pkcs11.txt` in a new database of NSS."""
    return _MODULES.format(directory=directory).encode(errors="surrogateescape")


def modules_with(modules: bytes, directory: Path) -> bytes:
    """A `pkcs11.txt` with an additional read-only database."""
    return modules.rstrip(b"\n") + b"\n" + _MODULE.format(directory=directory).encode()


def remove_certificate(directory: Path, certificate: x509.Certificate) -> None:
    """Remove a certificate and its trust from a database that contains a copy of it.

    Raises sqlite3.Error if it is locked, or not a database.
    """
    der = certificate.public_bytes(Encoding.DER)
    ours = (certificate.issuer.public_bytes(), _serial(certificate))
    same_name = f"{_column(_ISSUER)} = ? AND {_column(_SERIAL)} = ?"
    with _opened(directory / CERTIFICATES_FILE) as certificates:
        found = certificates.execute(
            f"SELECT id FROM nssPublic WHERE {_column(_VALUE)} = ?", (der,)
        ).fetchall()
        if not found:
            return
        numbers = certificates.execute(f"SELECT id FROM nssPublic WHERE {same_name}", ours)
        objects = [number for (number,) in numbers]
        certificates.execute(f"DELETE FROM nssPublic WHERE {same_name}", ours)
    with _opened(directory / KEYS_FILE) as keys:
        for number in objects:
            keys.execute("DELETE FROM metaData WHERE id GLOB ?", (f"sig_cert_{number:08x}_*",))


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    """An existing database, in a transaction."""
    with (
        contextlib.closing(
            sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_S)
        ) as connection,
        connection,
    ):
        yield connection


def _database(schema: str, table: str, objects: list[Mapping[int, bytes]]) -> bytes:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(schema)
        for number, attributes in enumerate(objects, 1):
            columns = ", ".join(map(_column, attributes))
            places = ", ".join("?" * len(attributes))
            connection.execute(
                f"INSERT INTO {table} (id, {columns}) VALUES ({number}, {places})",
                list(attributes.values()),
            )
        connection.commit()
        return connection.serialize()


def _table(name: str) -> str:
    columns = ", ".join(map(_column, _attributes()))
    table = f"CREATE TABLE {name} (id PRIMARY KEY UNIQUE ON CONFLICT ABORT, {columns})"
    indexes = (f"CREATE INDEX {i} ON {name} ({_column(of)})" for i, of in _INDEXES.items())
    return "; ".join((table, *indexes))


def _attributes() -> Iterator[int]:
    for span in _ATTRIBUTES.split():
        first, _, last = span.partition("-")
        yield from range(int(first, 16), int(last or first, 16) + 1)


def _column(attribute: int) -> str:
    return f"a{attribute:x}"


def _certificate(certificate: x509.Certificate) -> dict[int, bytes]:
    der = certificate.public_bytes(Encoding.DER)
    return _object(_A_CERTIFICATE, certificate) | {
        _LABEL: b"mitml4",
        _VALUE: der,
        _CERTIFICATE_TYPE: _number(_X509),
        _SUBJECT: certificate.subject.public_bytes(),
        _ID: hashlib.sha1(der).digest(),
    }


def _trust(certificate: x509.Certificate) -> dict[int, bytes]:
    """NSS from 3.11x on reads this."""
    return _object(_A_TRUST, certificate) | {
        _NAME_HASH_ALGORITHM: _number(_SHA256),
        _TRUST_SERVERS: _number(_ANCHOR),
        _TRUST_CLIENTS: _number(_UNKNOWN),
        _TRUST_CODE: _number(_MUST_VERIFY),
        _TRUST_MAIL: _number(_UNKNOWN),
        _HASH_OF_CERTIFICATE: hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest(),
    }


def _trust_before_3_2(certificate: x509.Certificate) -> dict[int, bytes]:
    """All current versions of NSS read this."""
    der = certificate.public_bytes(Encoding.DER)
    return _object(_A_TRUST_OF_NSS, certificate) | {
        _NSS_SERVERS: _number(_NSS_DELEGATOR),
        _NSS_CLIENTS: _number(_NSS_UNKNOWN),
        _NSS_CODE: _number(_NSS_UNKNOWN),
        _NSS_MAIL: _number(_NSS_UNKNOWN),
        _NSS_STEP_UP: _NO,
        _NSS_SHA1: hashlib.sha1(der).digest(),
        _NSS_MD5: hashlib.md5(der).digest(),
    }


def _object(kind: int, certificate: x509.Certificate) -> dict[int, bytes]:
    return {
        _CLASS: _number(kind),
        _TOKEN: _YES,
        _PRIVATE: _NO,
        _LABEL: _EMPTY,
        _ISSUER: certificate.issuer.public_bytes(),
        _SERIAL: _serial(certificate),
        _MODIFIABLE: _YES,
    }


def _number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _serial(certificate: x509.Certificate) -> bytes:
    """The serial number as DER: RFC 5280 §4.1.2.2 limits it to 20 octets."""
    number = certificate.serial_number
    octets = number.to_bytes(number.bit_length() // 8 + 1, "big")
    return bytes((2, len(octets))) + octets
