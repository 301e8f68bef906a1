"""Which suites there are: where their tests come from, and how they are run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["SUITES", "Suite"]


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A project's tests."""

    requirement: str
    needs: tuple[str, ...] = ()
    """The packages that its tests import, as pip names them."""
    tests: tuple[str, ...] = ("tests",)
    options: tuple[str, ...] = ()
    """For pytest."""
    debian: str = ""
    """The source package that has the tests, and its release, if PyPI lacks them."""
    server: str = ""
    """A shell command that runs next to the tests, in the same network."""
    environment: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    """Programs that must be installed."""
    as_root: bool = True
    """Whether its tests run as root too."""


# Those of aiohttp's files that open connections, without the benchmarks.
_AIOHTTP: Final = tuple(
    f"tests/test_{name}.py"
    for name in (
        *("client_functional", "client_middleware", "client_middleware_digest_auth"),
        *("client_session", "client_ws_functional", "connector", "formdata", "proxy_functional"),
        *("pytest_plugin", "run_app", "test_utils", "web_app", "web_exceptions"),
        *("web_functional", "web_log", "web_middleware", "web_runner", "web_sendfile_functional"),
        *("web_server", "web_urldispatcher", "web_websocket_functional"),
    )
)
# Left out: hypercorn, whose source distribution has no tests.
SUITES: Final = {
    "aiohttp": Suite(
        requirement="aiohttp==3.12.15",
        needs=(
            *("aiohttp[speedups]", "blockbuster", "freezegun", "isal", "proxy.py", "pytest-mock"),
            *("pytest-xdist", "pytest-codspeed", "pytest-cov", "re-assert", "setuptools-git"),
            *("time-machine", "trustme", "zlib_ng"),
        ),
        options=("-o", "addopts=", "-p", "no:warnings", "-n", "4"),
        tests=_AIOHTTP,
    ),
    "aioftp": Suite(
        requirement="aioftp==0.25.2",
        needs=("async_timeout", "pytest-asyncio", "pytest-mock", "siosocks", "trustme"),
        options=("-o", "addopts=", "-o", "asyncio_mode=auto"),
    ),
    "aiosmtpd": Suite(
        requirement="aiosmtpd==1.4.6",
        # Its tests import pkg_resources, whose warnings end a run from setuptools 80 on.
        needs=(
            "pytest-asyncio",
            "pytest-mock",
            "pytest-print",
            "pytest-profiling",
            "setuptools<80",
        ),
        options=("-o", "addopts="),
        tests=("aiosmtpd/tests",),
    ),
    "asyncpg": Suite(
        requirement="asyncpg==0.30.0",
        needs=("distro",),
        tests=("tests/test_connect.py", "tests/test_execute.py", "tests/test_copy.py"),
        environment={
            "PGINSTALLATION": str(max(Path("/usr/lib/postgresql").glob("*/bin"), default=""))
        },
        commands=("pg_ctlcluster",),
        as_root=False,  # PostgreSQL does not start as root
    ),
    "asyncssh": Suite(
        requirement="asyncssh==2.21.0",
        needs=(
            "bcrypt",
            "fido2<2",
        ),
        tests=("tests/test_forward.py", "tests/test_process.py", "tests/test_stream.py"),
    ),
    "cpython": Suite(
        requirement="libpython3-testsuite",
        # They use loopback only, but ask for the resource. The one left out names its own CA; if
        # its certificate is refused, it leaves a server running that breaks the tests after it.
        options=("-u", "network", "-i", "*.test_stls_context"),
        tests=(
            *("test_httplib", "test_urllib2_localnet", "test_ftplib", "test_smtplib"),
            *("test_imaplib", "test_poplib", "test_socketserver", "test_asyncore"),
        ),
    ),
    # The cases of the Autobahn test suite, which itself needs Python 2.
    "autobahn": Suite(
        requirement="kosoku==0.1.0", needs=("websockets==15.0.1",), tests=("websocket.py",)
    ),
    "cheroot": Suite(
        requirement="cheroot==11.1.2",
        needs=(
            *(
                "jaraco.text",
                "portend",
                "pyopenssl",
                "pytest-mock",
                "requests",
                "requests-toolbelt",
            ),
            *("requests-unixsocket2", "trustme", "urllib3"),
        ),
        options=("-o", "addopts=", "-p", "no:warnings", "-p", "no:threadexception"),
        tests=(
            "cheroot/test/test_conn.py",
            "cheroot/test/test_core.py",
            "cheroot/test/test_ssl.py",
        ),
    ),
    "grpcio": Suite(
        requirement="grpcio==1.51.1",  # Debian's
        debian="grpc/bookworm",
        needs=(
            *(
                "grpcio-tools==1.51.1",
                "protobuf<5",
                "coverage",
                "google-auth[requests]",
                "oauth2client",
            ),
            *("grpcio-status==1.51.1", "setuptools<80"),
        ),
        tests=(
            *("tests/interop/_insecure_intraop_test.py", "tests/interop/_secure_intraop_test.py"),
            *("tests/unit/_abort_test.py", "tests/unit/_compression_test.py"),
            *("tests/unit/_channel_close_test.py", "tests/unit/_channel_connectivity_test.py"),
            *("tests/unit/_empty_message_test.py", "tests/unit/_error_message_encoding_test.py"),
            *("tests/unit/_interceptor_test.py", "tests/unit/_invalid_metadata_test.py"),
            *(
                "tests/unit/_invocation_defects_test.py",
                "tests/unit/_metadata_code_details_test.py",
            ),
            *("tests/unit/_metadata_flags_test.py", "tests/unit/_metadata_test.py"),
            *("tests/unit/_reconnect_test.py", "tests/unit/_resource_exhausted_test.py"),
            *("tests/unit/_rpc_part_1_test.py", "tests/unit/_rpc_part_2_test.py"),
            *("tests/unit/_server_shutdown_test.py", "tests/unit/_session_cache_test.py"),
            *("tests_aio/unit/abort_test.py", "tests_aio/unit/call_test.py"),
            *("tests_aio/unit/channel_test.py", "tests_aio/unit/compatibility_test.py"),
            *("tests_aio/unit/compression_test.py", "tests_aio/unit/metadata_test.py"),
            *("tests_aio/unit/server_test.py", "tests_aio/unit/timeout_test.py"),
            *("tests_aio/unit/wait_for_ready_test.py", "tests_aio/unit/secure_call_test.py"),
        ),
    ),
    "h11": Suite(requirement="h11==0.16.0", tests=("h11/tests",)),
    # No test of these opens a connection.
    "h2": Suite(requirement="h2==4.3.0", needs=("hypothesis",), options=("-o", "addopts=")),
    # Those of h2spec, written anew: h2spec is a program in Go, which no registry has.
    "http2-cases": Suite(
        requirement="hypercorn==0.17.3", tests=("http2.py",), commands=("nghttpd", "nginx")
    ),
    "httpcore": Suite(
        requirement="httpcore==1.0.9",
        needs=(
            *("anyio", "h2", "pytest-httpbin", "pytest-trio", "socksio", "trio", "trio-typing"),
            "werkzeug<2.1",
        ),
        options=("-o", "addopts="),
    ),
    "httpx": Suite(
        requirement="httpx==0.28.1",
        needs=(
            *("anyio", "brotli", "chardet<6", "cryptography", "h2", "rich", "click<8.2", "socksio"),
            *("trio", "trustme", "uvicorn", "zstandard", "pygments"),
        ),
        options=("-o", "addopts=", "-m", "not network"),
    ),
    "paramiko": Suite(
        requirement="paramiko==3.5.1",
        needs=("icecream", "invoke", "pytest-relaxed"),
        options=("-o", "addopts=", "-p", "no:relaxed"),
        tests=("tests/test_client.py", "tests/test_transport.py", "tests/test_sftp.py"),
    ),
    "pyftpdlib": Suite(
        requirement="pyftpdlib==2.0.1",
        needs=("psutil", "pyopenssl", "setuptools", "pyasyncore", "pyasynchat"),
        tests=("pyftpdlib/test/test_functional.py",),  # the TLS tests sometimes crash pyOpenSSL
    ),
    "redis-py": Suite(
        requirement="redis==5.2.1",
        needs=("pytest-asyncio", "packaging", "uvloop"),
        options=(
            *("-o", "addopts=", "-m", "not onlycluster and not redismod and not ssl"),
            "--redis-url=redis://localhost:16379/0",
        ),
        tests=(
            "tests/test_connection.py",
            "tests/test_connection_pool.py",
            "tests/test_commands.py",
        ),
        server="redis-server --port 16379 --save '' --enable-debug-command yes",
        commands=("redis-server",),
    ),
    "tornado": Suite(
        requirement="tornado==6.5.1",
        tests=(
            *("tornado/test/httpserver_test.py", "tornado/test/httpclient_test.py"),
            *("tornado/test/iostream_test.py", "tornado/test/simple_httpclient_test.py"),
            *("tornado/test/websocket_test.py", "tornado/test/web_test.py"),
            "tornado/test/tcpserver_test.py",
        ),
    ),
    "twisted": Suite(
        requirement="twisted==24.11.0",
        needs=(
            "hypothesis",
            "idna",
            "pyhamcrest",
            "pyopenssl<24.3",
            "service_identity<25",
            "bcrypt",
            "appdirs",
        ),
        tests=(
            *("src/twisted/test/test_tcp.py", "src/twisted/test/test_ssl.py"),
            *("src/twisted/mail/test/test_smtp.py", "src/twisted/web/test/test_http.py"),
        ),
    ),
    "urllib3": Suite(
        requirement="urllib3==2.5.0",
        needs=(
            *("h2", "httpx", "hypercorn", "pysocks", "pytest-socket", "quart", "quart-trio"),
            *("trio", "trustme", "tornado", "zstandard", "brotli", "idna", "pyopenssl"),
            "pytest-xdist",
        ),
        options=("-o", "addopts=", "-p", "no:warnings", "-n", "4"),
        tests=("test",),
        environment={"CI": "true"},  # then its time-outs are longer
    ),
    "uvicorn": Suite(
        requirement="uvicorn[standard]==0.35.0",
        needs=(
            *("a2wsgi", "cryptography", "httpx", "pytest-mock", "trustme", "typing-extensions"),
            *("websockets<15", "wsproto", "anyio", "trio"),
        ),
        options=("-o", "addopts=", "-p", "no:warnings"),
        tests=(
            "tests/protocols",
            "tests/test_main.py",
            "tests/test_server.py",
            "tests/test_ssl.py",
        ),
    ),
    "waitress": Suite(requirement="waitress==3.0.2", options=("-o", "addopts=")),
    "websocket-client": Suite(
        requirement="websocket-client==1.9.0",
        needs=("python-socks", "websockets"),
        options=("-o", "addopts="),
        tests=("websocket/tests",),
        server="LOCAL_WS_SERVER_PORT=8765 ../venv/bin/python websocket/tests/echo-server.py",
        environment={"LOCAL_WS_SERVER_PORT": "8765"},
    ),
    "websockets": Suite(
        requirement="websockets==15.0.1",  # Debian's
        debian="python-websockets/trixie",
        needs=("python-socks[asyncio]", "werkzeug", "mitmproxy", "pytest-xdist"),
        options=("-p", "no:warnings", "-n", "4"),
        tests=("tests",),
    ),
}
