"""Real clients trust what they are shown: by variables, and by the system's own places alone."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from tests.e2e.conftest import QUICK_JAVA

WEB = "https://www.example/"
HELLO = "hello from nginx\n"

GET_JAVA = """
import java.net.URI;
import java.net.http.*;
public class Get {
    public static void main(String[] arguments) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(arguments[0])).build();
        var handler = HttpResponse.BodyHandlers.ofString();
        System.out.print(HttpClient.newHttpClient().send(request, handler).body());
    }
}
"""

CLIENTS = {
    "curl": ["curl", "-sS", WEB],
    "wget": ["wget", "-q", "-O", "-", WEB],
    "python3": [
        *("/usr/bin/python3", "-c"),
        f"import urllib.request as u; print(u.urlopen('{WEB}').read().decode(), end='')",
    ],
    "requests": [
        *("/usr/bin/python3", "-c"),
        f"import requests; print(requests.get('{WEB}').text, end='')",
    ],
    "httpx": ["/usr/bin/python3", "-c", f"import httpx; print(httpx.get('{WEB}').text, end='')"],
    "perl": ["perl", "-MLWP::Simple", "-e", f"getprint('{WEB}')"],
    "ruby": ["ruby", "-ropen-uri", "-e", f"print URI.open('{WEB}').read"],
    "php": ["php", "-r", f"echo file_get_contents('{WEB}');"],
    "java": ["java", QUICK_JAVA, "Get.java", WEB],
    "rclone": ["rclone", "-q", "copyurl", "--stdout", WEB],
    "node": [
        "node",
        "-e",
        f"fetch('{WEB}').then(r => r.text()).then(t => process.stdout.write(t))",
    ],
}
NODE_HAS_ROOTS_OF_ITS_OWN = "node"


def check(host, names: Iterable[str], *before: str) -> None:
    """Each client, which `before` may prepare, gets its page in one session with all others."""
    (host.home / "Get.java").write_text(GET_JAVA)
    script = "".join(
        f"echo '== {name}'; {shlex.join((*before, *CLIENTS[name]))}; echo $?\n" for name in names
    )
    ended = host.run("sh", "-c", script)
    assert ended.out == "".join(f"== {name}\n{HELLO}0\n" for name in names), ended.err
    assert all(stack[0] == "tls" and len(stack) == 2 for stack in ended.stacks)


def test_clients_trust_us_by_their_variables(host, nginx) -> None:
    check(host, CLIENTS)


def test_clients_without_variables_trust_us_by_the_systems_roots(host, nginx) -> None:
    bare = ("env", "-i", f"PATH={host.environ['PATH']}", f"HOME={host.home}")
    check(host, [name for name in CLIENTS if name != NODE_HAS_ROOTS_OF_ITS_OWN], *bare)


def test_git_trusts_us(host, nginx) -> None:
    ended = host.run("git", "ls-remote", f"{WEB}repository")
    assert "not found" in ended.err
    assert [event["status"] for event in ended.of_type("http.response")] == [404]


def test_npm_trusts_us(host, nginx) -> None:
    ended = host.run("npm", "view", "--registry", WEB, "nothing")
    assert "E404" in ended.err
    assert 404 in [event["status"] for event in ended.of_type("http.response")]


def test_pip_trusts_us(host, nginx) -> None:
    pip = [host.python, "-m", "pip", "--disable-pip-version-check", "download", "--no-cache-dir"]
    ended = host.run(*pip, "-i", f"{WEB}simple", "nothing")
    assert "No matching distribution" in ended.err
    assert 404 in [event["status"] for event in ended.of_type("http.response")]


def test_a_program_that_pins_works_from_its_third_try_on(host, nginx, pin) -> None:
    """curl looks at the key behind the handshake, and leaves without a word."""
    curl = f"curl -s --max-time 10 --pinnedpubkey {pin} {WEB}; echo $?"
    both = {"CURL_CA_BUNDLE": str(host.root_certificate)}  # it trusts the server's root as well
    command = f"{curl}; {curl}; {curl}; {curl}"
    ended = host.run("sh", "-c", command, options=["--table"], env=both)
    assert ended.out == f"90\n90\n{HELLO}0\n{HELLO}0\n"
    actions = [e["action"] for e in ended.of_type("flow.layer") if e["protocol"] == "tls"]
    assert actions == ["intercepted", "intercepted", "passthrough", "passthrough"]
    assert "pinned" in ended.err
