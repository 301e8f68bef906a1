"""What real clients log in with is not shown with what they say."""

from __future__ import annotations

import sys
from base64 import b64decode

from mitml4.lab.network import SERVER_V4
from tests.e2e.test_tds import PYTDS

PASSWORD = bytes((each >> 4 | (each & 15) << 4) ^ 0xA5 for each in "secret".encode("utf-16-le"))
"""As a login has it ([MS-TDS] §2.2.6.4)."""


def said(events: list[dict]) -> bytes:
    """What the clients have said."""
    shown = [each for each in events if each["type"] == "flow.data" and each["direction"] == "up"]
    return b"".join(
        each["text"].encode() if each["text"] is not None else b64decode(each["base64"])
        for each in shown
    )


def test_logins_of_freetds_and_of_python(sql_server, intercept, client, tsql) -> None:
    for option, hidden in (("--payload", True), ("--show-secrets", False)):
        session = intercept(*{"--payload", option})
        port, other = sql_server(), sql_server()
        assert tsql(client, port, session.ca).text == "42\n"
        argv = (sys.executable, "-c", PYTDS, SERVER_V4, str(other), str(session.ca))
        assert client.run(*argv).text == "[(42,)]\n"
        session.wait_for(lambda session=session: len(session.of_type("flow.close")) == 2, "two")
        session.stop()
        shown = said(session.events)
        assert "select 6 * 7".encode("utf-16-le") in shown
        assert shown.count(b"<redacted, 12 bytes>") == (2 if hidden else 0)
        assert shown.count(PASSWORD) == (0 if hidden else 2)
