"""The files that a session writes beside its events, as those read them for whom they are."""

import json

import pytest

V4 = "198.51.100.2"


@pytest.fixture
def visit(client):
    """curl for pages of nginx's, with one connection for all of them."""

    def run(session, *urls, options=()):
        outcome = client.run(
            *("curl", "-sS", "--max-time", "20", "--cacert", str(session.ca)),
            *("--resolve", f"www.example:443:{V4}", *options),
            *(part for url in urls for part in ("-o", "/dev/null", url)),
        )
        assert outcome.code == 0, outcome

    return run


@pytest.mark.usefixtures("nginx")
@pytest.mark.parametrize("version", ["1.1", "2"])
def test_the_archive_has_every_exchange_with_headers_which_the_events_lack(
    intercept, visit, tmp_path, version
):
    path = tmp_path / "exchanges.har"
    session = intercept("--har", str(path))
    watch = session.watch()
    root = "https://www.example/"
    visit(session, root, root + "missing?a=b", options=[f"--http{version}", "-b", "c=d"])
    flow = watch.flow()
    assert session.stop() == 0
    archive = json.loads(path.read_bytes())["log"]
    first, second = archive["entries"]
    assert [first["response"]["status"], second["response"]["status"]] == [200, 404]
    assert second["request"]["url"] == root + "missing?a=b"
    assert second["request"]["queryString"] == [{"name": "a", "value": "b"}]
    assert second["request"]["cookies"] == [{"name": "c", "value": "d"}]
    assert first["response"]["content"]["mimeType"] == "text/html"
    assert first["response"]["content"]["size"] == first["response"]["bodySize"] > 0
    assert first["serverIPAddress"] == V4
    assert first["_stack"] == ["tls", f"http/{version[0]}"] == flow.stack
    names = {header["name"].lower() for header in first["response"]["headers"]}
    assert {"content-type", "content-length", "server"} <= names
    assert {event["headers"] for event in flow.http if "headers" in event} == {None}
    assert path.stat().st_mode & 0o077 == 0
