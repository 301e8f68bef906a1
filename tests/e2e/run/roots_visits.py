"""What clients make of servers with the roots that their environment names, as a JSON object.

roots_visits.py SERVER…
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

NODE = "fetch(process.argv[1]).then(r => r.text())"
PYTHON = "import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=10).read()"
REQUESTS = "import sys, requests; requests.get(sys.argv[1], timeout=10)"

LWP = "use LWP::UserAgent; my $got = LWP::UserAgent->new->get(shift); die $got->status_line if"
LWP += " !$got->is_success"
PIP = ("download", "--no-cache-dir", "--disable-pip-version-check", "--retries", "0")

CLIENTS = {
    "curl": ["curl", "-sSf", "-m", "10", "-o", "/dev/null"],
    "python": ["/usr/bin/python3", "-c", PYTHON],
    "requests": ["/usr/bin/python3", "-c", REQUESTS],
    "node": ["node", "-e", NODE],
    "git": ["git", "ls-remote"],
    "perl": ["perl", "-e", LWP],
    "pip": ["/usr/bin/python3", "-m", "pip", *PIP, "nothing", "--index-url"],
}


def visit(argv: list[str], server: str) -> str:
    done = subprocess.run([*argv, f"https://{server}/"], capture_output=True, text=True)
    said = done.stdout + done.stderr
    if done.returncode == 0 or "git repository" in said:  # there is none; TLS was fine
        return "accepted"
    if re.search("certificate|CERT|verif|CAfile|issuer", said):
        return "refused"
    if "matching distribution" in said:  # nor is there any
        return "accepted"
    return done.stderr[-300:]


with ThreadPoolExecutor(4) as workers:
    outcomes = {
        f"{name} {server}": workers.submit(visit, argv, server)
        for name, argv in CLIENTS.items()
        for server in sys.argv[1:]
    }
    print(json.dumps({name: outcome.result() for name, outcome in outcomes.items()}))
