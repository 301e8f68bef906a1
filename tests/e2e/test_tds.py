"""SQL Server's TLS, which travels in the packets of TDS, with the clients of others."""

from __future__ import annotations

import sys

from mitml4.lab.network import SERVER_V4

PYTDS = """
import sys, pytds
with pytds.connect(
    sys.argv[1], port=int(sys.argv[2]), cafile=sys.argv[3], validate_host=False,
    user="me", password="secret", login_timeout=10, timeout=10, autocommit=True,
) as connection, connection.cursor() as cursor:
    cursor.execute("select 6 * 7")
    print(cursor.fetchall())
"""


def test_freetds_is_opened(sql_server, session, client, tsql) -> None:
    port = sql_server()
    watch = session.watch()
    outcome = tsql(client, port, session.ca)
    assert (outcome.code, outcome.text) == (0, "42\n"), outcome.err
    flow = watch.flow()
    assert flow.stack == ["tds", "tls", "tds"]
    assert flow.actions == ["relayed", "intercepted", "relayed"]
    outer, opened, inner = (layer["details"] for layer in flow.layers)
    assert (outer["encryption"], outer["server_version"]) == ("all", "16.0.1000")
    assert (opened["version"], opened["certificate"]["verify"]) == ("TLSv1.2", "ok")
    assert inner["user"] == "me"


def test_python_tds_is_opened(sql_server, session, client) -> None:
    port = sql_server()
    watch = session.watch()
    outcome = client.run(sys.executable, "-c", PYTDS, SERVER_V4, str(port), str(session.ca))
    assert (outcome.code, outcome.text) == (0, "[(42,)]\n"), outcome.err
    flow = watch.flow()
    assert flow.stack == ["tds", "tls", "tds"]
    assert flow.actions == ["relayed", "intercepted", "relayed"]


def test_where_the_login_alone_is_encrypted_it_passes(
    sql_server, session, client, authority, tsql
) -> None:
    port = sql_server("off")
    watch = session.watch()
    outcome = tsql(client, port, authority.root)
    assert (outcome.code, outcome.text) == (0, "42\n"), outcome.err
    flow = watch.flow()
    assert flow.stack == ["tds"]
    assert flow.layer("tds")["details"]["encryption"] == "login only"


def test_what_the_user_wants_to_be_passed_is(
    sql_server, intercept, client, authority, tsql
) -> None:
    port = sql_server()
    session = intercept("--tls", "passthrough")
    watch = session.watch()
    outcome = tsql(client, port, authority.root)
    assert (outcome.code, outcome.text) == (0, "42\n"), outcome.err
    flow = watch.flow()
    assert flow.stack == ["tds", "tls"]
    assert flow.actions == ["relayed", "passthrough"]
    assert flow.layer("tls")["details"]["version"] == "TLSv1.2"


def test_who_does_not_believe_our_certificate_is_passed_the_third_time(
    sql_server, intercept, client, authority, tsql
) -> None:
    port = sql_server()
    session = intercept()
    for _ in range(2):  # FreeTDS ends the connection without an alert
        watch = session.watch()
        assert tsql(client, port, authority.root).code != 0
        assert watch.flow().actions[:2] == ["relayed", "intercepted"]
    watch = session.watch()
    outcome = tsql(client, port, authority.root)
    assert (outcome.code, outcome.text) == (0, "42\n"), outcome.err
    flow = watch.flow()
    assert flow.actions == ["relayed", "passthrough"]
    assert flow.layer("tls")["details"]["passthrough"] == "pinned"
