"""TLS by one library of Python's, in both roles. It runs as a process of its own.

peer.py LIBRARY client HOST PORT CASES    prints what the server answers to each case, in a line
peer.py LIBRARY server PORT CERTIFICATE KEY
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from ctypes import (
    c_char,
    c_char_p,
    c_int,
    c_ushort,
    c_void_p,
    cdll,
    create_string_buffer,
)
from ctypes.util import find_library

NAME = "www.example"
REQUEST = b"GET /wait HTTP/1.0\r\n\r\n"
"""The server is to wait until the client closes: some cannot read data in front of an end."""
ANSWER = b"HTTP/1.0 200 OK\r\n\r\nok\n"
TIMEOUT_S = 5
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


# --- the standard library's interface ------------------------------------------------------------


def context_client(module) -> Callable:
    def client(raw, case):
        context = module.SSLContext(module.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = module.CERT_NONE
        if version := case.get("version"):
            context.minimum_version = context.maximum_version = module.TLSVersion(VERSIONS[version])
        if suite := case.get("suite"):
            context.set_ciphers(suite)
        if group := case.get("group"):
            context.set_ecdh_curve(group)
        if preset := case.get("preset"):
            context.set_fingerprint(module.Fingerprint.from_preset(preset))
        if ech := case.get("ech"):
            context = context.set_ech_configs(bytes.fromhex(ech))
        return context.wrap_socket(raw, server_hostname=NAME)

    return client


def context_server(module) -> Callable:
    def server(certificate, key):
        context = module.SSLContext(module.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return lambda raw: context.wrap_socket(raw, server_side=True)

    return server


# --- tlslite-ng ----------------------------------------------------------------------------------


def tlslite_settings(case):
    from tlslite.handshakesettings import HandshakeSettings

    settings = HandshakeSettings()
    if version := case.get("version"):
        settings.minVersion = settings.maxVersion = (3, 4) if version == "1.3" else (3, 3)
    if suite := case.get("suite"):
        settings.cipherNames = [suite]
    if group := case.get("group"):
        settings.eccCurves = [group]
        settings.keyShares = [group]
        settings.dhGroups = []
    return settings


def tlslite_client(raw, case):
    from tlslite.api import TLSConnection

    connection = TLSConnection(raw)
    settings = tlslite_settings(case)
    connection.handshakeClientCert(settings=settings, serverName=NAME)
    return connection


def tlslite_server(certificate, key):
    from tlslite.api import TLSConnection, X509CertChain, parsePEMKey

    chain = X509CertChain()
    with open(certificate) as pem:
        chain.parsePemList(pem.read())
    with open(key) as pem:
        private = parsePEMKey(pem.read(), private=True)

    def wrap(raw):
        connection = TLSConnection(raw)
        connection.handshakeServer(
            certChain=chain, privateKey=private, settings=tlslite_settings({})
        )
        return connection

    return wrap


# --- Mbed TLS ------------------------------------------------------------------------------------


def mbedtls_client(raw, case):
    from mbedtls import tls

    suite = case.get("suite")
    configuration = tls.TLSConfiguration(
        validate_certificates=False,
        ciphers=(suite,) if suite else None,
        lowest_supported_version=tls.TLSVersion.TLSv1_2,
    )
    wrapped = tls.ClientContext(configuration).wrap_socket(raw, server_hostname=NAME)
    wrapped.do_handshake()
    return wrapped


def mbedtls_server(certificate, key):
    from mbedtls import pk, tls, x509

    with open(certificate) as pem:
        own = x509.CRT.from_PEM(pem.read())
    with open(key) as pem:
        private = pk.ECC.from_PEM(pem.read())  # which reads any kind of key
    configuration = tls.TLSConfiguration(
        validate_certificates=False, certificate_chain=((own,), private)
    )

    def wrap(raw):
        wrapped = tls.ServerContext(configuration).wrap_socket(raw)
        wrapped.do_handshake()
        return wrapped

    return wrap


# --- wolfSSL, whose package of PyPI has no sources ------------------------------------------------


class WolfConnection:
    def __init__(self, raw, case):
        self.raw = raw
        self.wolf = wolf = cdll.LoadLibrary(find_library("wolfssl"))
        for name in ("wolfTLSv1_2_client_method", "wolfTLSv1_3_client_method"):
            getattr(wolf, name).restype = c_void_p
        for name, *arguments in (
            ("CTX_new", c_void_p),
            ("CTX_set_verify", c_void_p, c_int, c_void_p),
            ("CTX_set_cipher_list", c_void_p, c_char_p),
            ("CTX_set_groups", c_void_p, c_void_p, c_int),
            ("new", c_void_p),
            ("set_fd", c_void_p, c_int),
            ("UseSNI", c_void_p, c_char, c_char_p, c_ushort),
            ("connect", c_void_p),
            ("write", c_void_p, c_char_p, c_int),
            ("read", c_void_p, c_char_p, c_int),
            ("shutdown", c_void_p),
        ):
            function = getattr(wolf, f"wolfSSL_{name}")
            function.argtypes = arguments
            function.restype = c_void_p if name.endswith("new") else c_int
        raw.setblocking(True)
        version = case["version"].replace(".", "_")
        context = wolf.wolfSSL_CTX_new(getattr(wolf, f"wolfTLSv{version}_client_method")())
        wolf.wolfSSL_CTX_set_verify(context, 0, None)
        if suite := case.get("suite"):
            self.check(wolf.wolfSSL_CTX_set_cipher_list(context, suite.encode()))
        if group := case.get("group"):
            self.check(wolf.wolfSSL_CTX_set_groups(context, (c_int * 1)(group), 1))
        self.tls = wolf.wolfSSL_new(context)
        self.check(wolf.wolfSSL_set_fd(self.tls, raw.fileno()))
        self.check(wolf.wolfSSL_UseSNI(self.tls, b"\0", NAME.encode(), len(NAME)))
        self.check(wolf.wolfSSL_connect(self.tls))

    def check(self, outcome):
        if outcome < 1:
            raise OSError(outcome)
        return outcome

    def send(self, data):
        self.check(self.wolf.wolfSSL_write(self.tls, data, len(data)))

    def recv(self, count):
        buffer = create_string_buffer(count)
        size = self.check(self.wolf.wolfSSL_read(self.tls, buffer, count))
        return buffer.raw[:size]

    def close(self):
        self.wolf.wolfSSL_shutdown(self.tls)


# --- both roles ----------------------------------------------------------------------------------


def library(name) -> tuple[Callable, Callable]:
    match name:
        case "tlslite":
            return tlslite_client, tlslite_server
        case "mbedtls":
            return mbedtls_client, mbedtls_server
        case "wolfssl":
            return WolfConnection, None
        case _:
            module = __import__(name)
            return context_client(module), context_server(module)


def visit(client, host, port, case) -> str:
    with socket.create_connection((host, port), TIMEOUT_S) as raw:
        tls = client(raw, case)
        tls.send(REQUEST)
        answer = b""
        while not answer.endswith(b"\n") or answer.endswith(b"\r\n"):
            answer += bytes(tls.recv(4096))
        with suppress(Exception):
            tls.close()
        return answer.decode().partition("\r\n\r\n")[2].strip()


def run_client(client, host, port, cases) -> None:
    for case in json.loads(cases):
        try:
            print(visit(client, host, int(port), case), flush=True)
        except Exception as error:
            print(f"error: {error!r}".replace("\n", " "), flush=True)


def run_server(server, port, certificate, key) -> None:
    wrap = server(certificate, key)
    with socket.create_server(("", int(port)), backlog=64) as listener:
        while True:
            raw, _ = listener.accept()
            raw.settimeout(TIMEOUT_S)
            try:
                tls = wrap(raw)
                tls.recv(4096)
                tls.send(ANSWER)
                tls.recv(1)
                tls.close()
            except Exception as error:
                print(f"{error!r}", file=sys.stderr)
            raw.close()


if __name__ == "__main__":
    _, name, role, *rest = sys.argv
    client, server = library(name)
    run_client(client, *rest) if role == "client" else run_server(server, *rest)
