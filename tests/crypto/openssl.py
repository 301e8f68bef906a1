"""A connection between OpenSSL and OpenSSL in memory, with all that it can tell."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import trustme
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL

NO_EXTENDED_MASTER_SECRET = 1  # SSL_OP_NO_EXTENDED_MASTER_SECRET
CHANGE_CIPHER_SPEC, HANDSHAKE = 20, 22

CERTIFICATE = trustme.CA().issue_cert("server", key_type=trustme.KeyType.RSA)
KEY = load_pem_private_key(CERTIFICATE.private_key_pem.bytes(), None)


def records_of(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        end = at + 5 + int.from_bytes(data[at + 3 : at + 5], "big")
        yield data[at:end]
        at = end


def messages_of(records: list[bytes]) -> Iterator[bytes]:
    """The handshake messages up to the first record that is no handshake."""
    data = b""
    for record in records:
        if record[0] != HANDSHAKE:
            break
        data += record[5:]
    while data:
        end = 4 + int.from_bytes(data[1:4], "big")
        yield data[:end]
        data = data[end:]


@dataclass
class Pair:
    """A client and a server after their handshake, with one cipher suite, by OpenSSL's name."""

    suite: str
    options: int = 0
    secrets: dict[str, bytes] = field(default_factory=dict)
    """By the key log's label."""
    client_records: list[bytes] = field(default_factory=list)
    """All that the client has sent."""
    server_records: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client = self._connection()
        self.server = self._connection()
        self.client.set_connect_state()
        self.server.set_accept_state()
        for _ in range(3):
            for end in (self.client, self.server):
                with suppress(SSL.WantReadError):
                    end.do_handshake()
                self.move()

    def move(self) -> None:
        for source, sink, records in (
            (self.client, self.server, self.client_records),
            (self.server, self.client, self.server_records),
        ):
            with suppress(SSL.WantReadError):
                data = source.bio_read(1 << 20)
                sink.bio_write(data)
                records += records_of(data)

    def _connection(self) -> SSL.Connection:
        context = SSL.Context(SSL.TLS_METHOD)
        CERTIFICATE.configure_cert(context)
        context.set_options(self.options | SSL.OP_NO_TICKET)
        context.set_keylog_callback(lambda _, line: self._note(line))
        if self.suite.startswith("TLS_"):
            context.set_cipher_list(b"ALL:@SECLEVEL=0")  # CCM8 has no level otherwise
            context.set_tls13_ciphersuites(self.suite.encode())
        else:
            context.set_cipher_list(self.suite.encode() + b":@SECLEVEL=0")
            context.set_max_proto_version(SSL.TLS1_2_VERSION)
        return SSL.Connection(context, None)

    def _note(self, line: bytes) -> None:
        label, _, secret = line.decode().split()
        self.secrets[label] = bytes.fromhex(secret)
