"""What a session keeps of root's power once it carries connections, and that it does without."""

from __future__ import annotations

import json
import os
import pwd
from contextlib import suppress
from pathlib import Path

import pytest

V4 = "198.51.100.2"
NOBODY = pwd.getpwnam("nobody")
NET_ADMIN_AND_RAW = 1 << 12 | 1 << 13

# Tells what is imported once the process is no longer root: root's own Python would be out of its
# reach then.
HOOK = """
import os, sys

class Recorder:
    found = os.open({path!r}, os.O_WRONLY | os.O_APPEND)

    def find_spec(self, name, path=None, target=None):
        if os.geteuid() != 0:
            os.write(self.found, (name + "\\n").encode())
            raise ImportError("too late")

sys.meta_path.insert(0, Recorder())
"""


@pytest.fixture
def late(tmp_path, monkeypatch) -> Path:
    """Where the names of modules go that are imported too late."""
    path = tmp_path / "late"
    path.touch()
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook/sitecustomize.py").write_text(HOOK.format(path=str(path)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hook"))
    return path


def statuses(pid: int) -> list[dict[str, str]]:
    """Of each thread, as in proc(5)."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        found.append(dict(line.split(":\t", 1) for line in lines if ":\t" in line))
    return found


def processes_with(path: Path) -> set[int]:
    """Those that have this file open."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or has closed the file
            if str(path) in map(os.readlink, (process / "fd").iterdir()):
                found.add(int(process.name))
    return found


@pytest.mark.usefixtures("nginx")
@pytest.mark.parametrize("caller", [None, "nobody"])
def test_it_goes_on_without_files_programs_and_most_capabilities(
    intercept, client, tmp_path, late, monkeypatch, caller: str | None
) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    if caller:
        monkeypatch.setenv("SUDO_USER", caller)
        # What is theirs under sudo has to be reachable for them.
        os.chown(tmp_path, NOBODY.pw_uid, NOBODY.pw_gid)
    names = {"-o": "events", "--har": "har", "-w": "packets", "--keylog": "keys"}
    outputs = {option: tmp_path / name for option, name in names.items()}
    options = [part for option, path in outputs.items() for part in (option, str(path))]
    session = intercept(*options, "--spoof-source", wrapper=())
    for status in statuses(session.process.pid):
        ids = {*status["Uid"].split(), *status["Gid"].split()}
        assert "0" not in ids
        assert not caller or ids == {str(NOBODY.pw_uid), str(NOBODY.pw_gid)}
        assert status["Groups"].split() == []
        assert int(status["CapPrm"], 16) & ~NET_ADMIN_AND_RAW == 0
        assert int(status["CapAmb"], 16) == int(status["CapInh"], 16) == 0
        assert status["Seccomp"] == "2"
    (main,) = (each for each in statuses(session.process.pid) if each["Pid"] == each["Tgid"])
    assert main["NoNewPrivs"] == "1"
    assert int(main["CapBnd"], 16) == 0
    (writer,) = processes_with(outputs["--har"]) - {session.process.pid}
    (status,) = statuses(writer)
    assert "0" not in (*status["Uid"].split(), *status["Gid"].split())
    assert int(status["CapPrm"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
    held = sorted(os.readlink(each) for each in Path(f"/proc/{writer}/fd").iterdir())
    assert held[:4] == [*[os.devnull] * 3, str(outputs["--har"])]
    assert [each.partition(":")[0] for each in held[4:]] == ["socket"]
    watch = session.watch()
    for version in ("1.2", "1.3"):
        outcome = client.run(
            *("curl", "-sS", "--max-time", "20", "--cacert", str(session.ca), "-o", "/dev/null"),
            *("--tls-max", version, "--resolve", f"www.example:443:{V4}", "https://www.example/"),
        )
        assert outcome.code == 0, outcome
    with client.connect(V4, 80) as sock:
        sock.sendall(
            b"GET /\xc2\x9b\xff\xe2\x80\xae HTTP/1.1\r\nHost: \xe4\xbe\x8b.example\r\n\r\n"
        )
        assert sock.recv(100).startswith(b"HTTP/1.1 ")
    assert [flow.stack for flow in watch.flows(3)] == [*[["tls", "http/2"]] * 2, ["http/1"]]
    assert session.stop() == 0
    assert late.read_text() == ""
    assert len(json.loads(outputs["--har"].read_bytes())["log"]["entries"]) == 3
    for path in outputs.values():
        assert path.stat().st_size > 100
        assert path.stat().st_uid == (NOBODY.pw_uid if caller else 0)


@pytest.mark.usefixtures("nginx")
def test_a_script_is_started_again_without_privileges(intercept, client, tmp_path) -> None:
    script = tmp_path / "hooks.py"
    script.write_text(
        "import os\ndef response(flow, request, response):\n"
        "    if request.path == '/exit': os._exit(1)\n"
        "    response.headers['X-User'] = str(os.getuid())\n"
    )
    session = intercept("--script", str(script), wrapper=())
    watch = session.watch()
    for path, users in (("", 1), ("exit", 0), ("", 1)):
        url = f"http://www.example/{path}"
        resolve = ("--resolve", f"www.example:80:{V4}")
        outcome = client.run("curl", "-sS", "-i", "--max-time", "60", *resolve, url)
        assert outcome.code == 0, outcome
        assert outcome.text.count(f"X-User: {os.getuid()}") == users
    assert [flow.stack for flow in watch.flows(3)] == [["http/1"]] * 3
    assert session.stop() == 0
