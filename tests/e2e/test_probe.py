"""--probe-clients and real programs, with and without their checks."""

from __future__ import annotations

import json
import sys

import pytest

from mitml4.lab.network import SERVER_V4
from tests.e2e import forked

CASES = (
    *("self_signed", "unknown_issuer", "wrong_name", "expired", "not_yet_valid"),
    *("leaf_as_issuer", "weak_key", "sha1", "old_version", "revoked"),
)
PYTHON = """
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile=sys.argv[1])
if sys.argv[2] == "off":
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
for _ in range(int(sys.argv[3])):
    try:
        print(opener.open("https://www.example/", timeout=20).read().decode(), end="")
        break
    except OSError as error:
        print("again:", error, file=sys.stderr)
else:
    sys.exit(1)
"""
NODE = """
const off = process.argv[1] === "off"
const visit = left => require("https").get(
  "https://www.example/", {rejectUnauthorized: !off, agent: false},
  response => { response.pipe(process.stdout) }
).on("error", error => {
  console.error("again:", error.message)
  if (left > 1) visit(left - 1)
  else process.exit(1)
})
visit(Number(process.argv[2]))
"""
TRIES = str(len(CASES) + 1)


def programs(ca, resolve) -> dict[str, tuple[str, list[str]]]:
    curl = ["curl", "-sS", "-m", "20", "--resolve", resolve, "https://www.example/"]
    return {
        "curl": ("refused", [*curl, "--cacert", str(ca)]),
        "curl -k": ("sent_data", [*curl, "-k"]),
        "wget": (
            "refused",
            ["wget", "-qO-", "-t1", f"--ca-certificate={ca}", "https://www.example/"],
        ),
        "node": ("refused", ["node", "-e", NODE, "on", TRIES]),
        "node without checks": ("sent_data", ["node", "-e", NODE, "off", TRIES]),
        "python": ("refused", [sys.executable, "-c", PYTHON, str(ca), "on", TRIES]),
        "python without checks": (
            "sent_data",
            [sys.executable, "-c", PYTHON, str(ca), "off", TRIES],
        ),
    }


@pytest.mark.parametrize("program", programs("", "x"))
def test_each_defect_is_refused_or_told(intercept, client, nginx, hosts, program: str) -> None:
    session = intercept("--probe-clients")
    expected, argv = programs(session.ca, f"www.example:443:{SERVER_V4}")[program]
    script = 'mount --bind "$0" /etc/hosts && exec "$@"'
    argv = ["env", f"NODE_EXTRA_CA_CERTS={session.ca}", *argv]
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(hosts), *argv]
    failed = 0  # which some programs tell that try again themselves
    while (last := client.run(*argv)).code and failed <= len(CASES):
        failed += 1
    failed += last.err.count("again:")
    assert (last.code, last.out) == (0, b"hello from nginx\n"), last.err
    session.wait_for(lambda: len(session.of_type("client.probe")) == len(CASES), "every probe")
    told = {each["case"]: each["outcome"] for each in session.of_type("client.probe")}
    # The library, its version and its distributor decide about the others.
    assert {case: told[case] for case in CASES[:6]} == dict.fromkeys(CASES[:6], expected)
    assert told["revoked"] == ("refused" if program == "wget" else "not_offered")
    if program == "curl":
        assert (told["weak_key"], told["sha1"]) == ("refused", "refused")
    assert tuple(each["case"] for each in session.of_type("client.probe")) == CASES
    watch = session.watch()
    assert client.run(*argv).code == 0
    assert watch.flow().layer("tls")["action"] == "intercepted"
    told = session.of_type("client.probe")
    assert {each["name"] for each in told} == {"www.example"}
    for flow in session.flows()[:failed]:
        assert (flow.stack, flow.actions, flow.errors) == (["tls"], ["answered"], [])
    session.stop()
    said = session.said()
    shown = "SENT DATA" if expected == "sent_data" else "refused"
    assert "  probed    " in said
    assert f"            {shown:<11}  self_signed, unknown_issuer, wrong_name, " in said, said


def test_a_client_that_reads_staples_refuses_a_revoked_one(intercept, client, nginx) -> None:
    """curl does so after the handshake."""
    session = intercept("--probe-clients")
    resolve = f"www.example:443:{SERVER_V4}"
    argv = ("curl", "-sS", "--cert-status", "--cacert", str(session.ca), "--resolve", resolve)
    for _ in CASES:
        client.run(*argv, "https://www.example/")
    probes = session.wait_for(
        lambda: [each for each in session.of_type("client.probe") if each["case"] == "revoked"],
        "the last probe",
    )
    assert [each["outcome"] for each in probes] == ["refused"]


def test_run_tells_at_the_end(lab, nginx, hosts, tmp_path, authority) -> None:
    events = tmp_path / "events.jsonl"
    command = f"curl -sk --resolve www.example:443:{SERVER_V4} https://www.example/; exit 0"
    argv = ["run", "--probe-clients", "-o", str(events), "--filter", "state:sent_data", "--"]
    done = forked.run([*argv, "sh", "-c", command], namespace=lab.router, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "SENT DATA    self_signed" in done.stderr
    told = [json.loads(line) for line in events.read_text().splitlines()]
    (probe,) = [each for each in told if each["type"] == "client.probe"]
    assert (probe["case"], probe["outcome"]) == ("self_signed", "sent_data")


def test_it_is_a_usage_error_beside_allow_and_passthrough(tmp_path) -> None:
    for options in (
        ["run", "--probe-clients", "--allow", "a.example", "--", "true"],
        ["run", "--probe-clients", "--tls", "passthrough", "--", "true"],
    ):
        done = forked.run(options, cwd=tmp_path)
        assert done.returncode == 2
        assert "--probe-clients" in done.stderr
