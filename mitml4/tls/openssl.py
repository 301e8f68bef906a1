"""SSL_read and SSL_write on the caller's memory, and the server's certificates as bytes.

pyOpenSSL's `recv_into` reads into its own memory and copies, and it raises an exception where
nothing can be read yet, which is the usual end of every read. Both cost more than OpenSSL does for
a short record.
"""

from __future__ import annotations

from OpenSSL import SSL, crypto
from OpenSSL._util import ffi, lib

__all__ = ["peer_chain", "peer_leaf", "read_into", "write"]


def read_into(connection: SSL.Connection, buffer: memoryview) -> int | None:
    """Read at most one record. None: there is none yet, or it needs room to write. Raises
    SSL.Error."""
    ssl = connection._ssl
    with ffi.from_buffer(buffer) as memory:
        count: int = lib.SSL_read(ssl, memory, len(buffer))
    if count > 0:
        return count
    if lib.SSL_get_error(ssl, count) not in (lib.SSL_ERROR_WANT_READ, lib.SSL_ERROR_WANT_WRITE):
        connection._raise_ssl_error(ssl, count)
    return None


def write(connection: SSL.Connection, data: memoryview) -> int:
    """Write all of the data. Raises SSL.Error; if it is a WantReadError or WantWriteError, call
    again with the same data."""
    ssl = connection._ssl
    with ffi.from_buffer(data) as memory:
        count: int = lib.SSL_write(ssl, memory, len(data))
    if count <= 0:
        connection._raise_ssl_error(ssl, count)
    return count


def peer_chain(connection: SSL.Connection) -> tuple[bytes, ...]:
    """The certificates that the server has sent (DER), the leaf first."""
    return tuple(map(_der, connection.get_peer_cert_chain() or []))


def peer_leaf(connection: SSL.Connection) -> bytes | None:
    """The server's certificate (DER), if it has sent one."""
    leaf = connection.get_peer_certificate()
    return None if leaf is None else _der(leaf)


def _der(certificate: crypto.X509) -> bytes:
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
