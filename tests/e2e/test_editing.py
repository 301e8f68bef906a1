"""`mitml4 intercept --rules`: what a session of root's still reads once it has given up root, and
rules through proxies."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

V4 = "198.51.100.2"
SOCKS, HTTP_PROXY = 1080, 3128
RULES = """
[[rule]]
match = "path:/respond"
respond = { status = 418, body = "VERSION" }

[[rule]]
match = "path:/file/*"
file = "web"

[[rule]]
match = "path:/"
replace = { in = "response.body", regex = "nginx", with = "VERSION" }
"""


@pytest.fixture(scope="module")
def proxies(serve, files):
    serve("microsocks", "-i", V4, "-p", str(SOCKS), port=SOCKS)
    config = files / "tinyproxy.conf"
    config.write_text(f"Port {HTTP_PROXY}\nListen {V4}\nMaxClients 50\n")
    serve("tinyproxy", "-d", "-c", str(config), port=HTTP_PROXY)


@pytest.fixture
def rules(files: Path) -> Path:
    """In a folder that others may read: root's session reads it again as somebody else."""
    folder = files / "rules"
    (folder / "web" / "file").mkdir(parents=True, exist_ok=True)
    (folder / "web" / "file" / "a.txt").write_text("from a folder")
    path = folder / "rules.toml"
    path.write_text(RULES.replace("VERSION", "one"))
    for each in (folder, folder / "web", folder / "web" / "file"):
        each.chmod(0o755)
    return path


@pytest.fixture
def get(client):
    def run(url: str, *options: str) -> str:
        outcome = client.run("curl", "-sS", "--insecure", "--max-time", "10", *options, url)
        return outcome.out.decode() + outcome.err

    return run


def wait_said(session, text: str, get) -> bool:
    """Visit until the session has said this."""
    deadline = time.monotonic() + 30
    while text not in session.said() and time.monotonic() < deadline:
        get(f"http://{V4}/")
    return text in session.said()


def poll_text(get, text: str) -> bool:
    """Visit until the page is this."""
    deadline = time.monotonic() + 30
    while (got := get(f"http://{V4}/")) != text and time.monotonic() < deadline:
        pass
    return got == text


@pytest.mark.usefixtures("nginx", "proxies")
def test_a_session_reads_rules_and_files_after_it_has_given_up_root(intercept, rules, get):
    session = intercept("--rules", str(rules))
    resolve = ("--connect-to", f"::{V4}:")
    ways = {
        "plain": (f"http://{V4}", ()),
        "TLS": ("https://www.example", resolve),
        "HTTP/2": ("https://www.example", ("--http2", *resolve)),
        "SOCKS": ("https://www.example", ("--socks5-hostname", f"{V4}:{SOCKS}")),
        "proxy": (f"http://{V4}", ("--proxy", f"http://{V4}:{HTTP_PROXY}")),
        "tunnel": (f"https://{V4}", ("--proxy", f"http://{V4}:{HTTP_PROXY}")),
    }
    for name, (url, options) in ways.items():
        assert get(f"{url}/respond", *options) == "one", name
        assert get(f"{url}/file/a.txt", *options) == "from a folder", name
        if "www.example" not in url or name != "SOCKS":
            assert get(f"{url}/", *options) == "hello from one\n", name
    assert get(f"http://{V4}:9/respond") == "one"  # nobody listens there
    rules.write_text(RULES.replace("VERSION", "two"))
    assert wait_said(session, "read again, 3 rules", get)
    assert get(f"http://{V4}/") == "hello from two\n"
    rules.chmod(0o600)
    rules.write_text(RULES.replace("VERSION", "three"))
    assert poll_text(get, "hello from three\n")
    rules.parent.chmod(0o700)
    other = rules.with_suffix(".new")  # as editors replace a file
    other.write_text(RULES.replace("VERSION", "four").replace('file = "web"', "close = true"))
    other.chmod(0o600)
    other.rename(rules)
    assert poll_text(get, "hello from four\n")
    secret = rules.with_suffix(".secret")
    rules.rename(secret)
    rules.symlink_to(secret)
    assert wait_said(session, "cannot be read again", get)
    assert get(f"http://{V4}/") == "hello from four\n"
