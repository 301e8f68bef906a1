"""What clients make of servers with the roots that their environment names, as a JSON object.

roots_visits.py SERVER…
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

# Each visits all URLs that it is given, and says of each on a line how it went.
NODE = """
for (const url of process.argv.slice(1))
    fetch(url).then(r => r.text()).then(() => "accepted", e => e.cause?.message ?? e.message)
        .then(said => console.log(url, said));
"""
PYTHON = """
import sys, urllib.request
for url in sys.argv[1:]:
    try:
        urllib.request.urlopen(url, timeout=60).read()
        print(url, "accepted")
    except OSError as error:
        print(url, error)
"""
REQUESTS = """
import sys, requests
for url in sys.argv[1:]:
    try:
        requests.get(url, timeout=60)
        print(url, "accepted")
    except OSError as error:
        print(url, error)
"""
LWP = """
use LWP::UserAgent;
for (@ARGV) {
    my $got = LWP::UserAgent->new->get($_);
    print "$_ ", $got->is_success ? "accepted" : $got->status_line, "\\n";
}
"""
SHELL = 'for url; do echo "$url" $({} "$url" 2>&1 && echo accepted); done'
CURL = SHELL.format("curl -sSf -m 60 -o /dev/null")
GIT = SHELL.format("git ls-remote")
# It names only the URLs that it cannot fetch.
PIP = "/usr/bin/python3 -m pip download --no-cache-dir --disable-pip-version-check --retries 0"
PIP += ' --timeout 60 nothing --index-url "$1" --extra-index-url "$2"'

CLIENTS = {
    "curl": ["sh", "-c", CURL, "sh"],
    "python": ["/usr/bin/python3", "-c", PYTHON],
    "requests": ["/usr/bin/python3", "-c", REQUESTS],
    "node": ["node", "-e", NODE],
    "git": ["sh", "-c", GIT, "sh"],
    "perl": ["perl", "-e", LWP],
    "pip": ["sh", "-c", PIP, "sh"],
}


def visit(argv: list[str], servers: list[str]) -> dict[str, str]:
    """The outcome for each server."""
    urls = {f"https://{server}/": server for server in servers}
    done = subprocess.run([*argv, *urls], capture_output=True, text=True)
    # pip has asked all, and there is no such package.
    otherwise = "accepted" if "matching distribution" in done.stderr else done.stderr[-300:]
    outcomes = dict.fromkeys(servers, otherwise)
    for line in done.stdout.splitlines():
        url, _, said = line.removeprefix("Could not fetch URL ").partition(" ")
        if server := urls.get(url.removesuffix("nothing/:")):
            outcomes[server] = outcome(said)
    return outcomes


def outcome(said: str) -> str:
    if said.endswith("accepted") or "git repository" in said:  # there is none; TLS was fine
        return "accepted"
    return "refused" if re.search("certificate|CERT|verif|CAfile|issuer", said) else said


servers = sys.argv[1:]
with ThreadPoolExecutor(4) as workers:
    each = workers.map(lambda argv: visit(argv, servers), CLIENTS.values())
    found = {
        f"{name} {server}": outcomes[server]
        for name, outcomes in zip(CLIENTS, each, strict=True)
        for server in servers
    }
    print(json.dumps(found))
