"""What is released is built, and the Debian package installed in a copy of this machine's files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# An overlay over / in a mount namespace: programs and dpkg's records are this machine's, and what
# is written is in memory.
IN_A_COPY = """
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
mount --rbind /proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
cp "$2" "$1/root/mitml4.deb"
exec chroot "$1/root" /bin/sh -ec "$3" 2>&1
"""
STEPS = {
    "installed": "dpkg --no-triggers -i /mitml4.deb",
    "version": "mitml4 --version",
    "schema": "mitml4 schema | grep -o flow.close | head -n 1",
    "run": "mitml4 run -q -- sh -c 'echo inside'",
    "man": "man -w mitml4-intercept",
    "bash": "bash --norc -c '. /usr/share/bash-completion/bash_completion;"
    " _completion_loader mitml4; complete -p mitml4'",
    "zsh": "zsh -f -c 'autoload -U compinit; compinit -u -D; echo $_comps[mitml4]'",
    "fish": "HOME=/tmp fish -c 'complete -C \"mitml4 inter\"'",
    "removed": "dpkg --no-triggers -r mitml4 >/dev/null;"
    " ls -d /usr/lib/mitml4 /usr/bin/mitml4 || true",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("dist"))


def build(out: Path) -> Path:
    tool = (sys.executable, ROOT / "tools/package.py", "--out", out)
    # Python may write what it compiles, as where a person builds.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(tool, check=True, capture_output=True, env=environment)
    return out


def test_two_builds_are_the_same_bytes(built: Path, tmp_path: Path) -> None:
    again = build(tmp_path)
    assert {each.name for each in built.iterdir()} == {each.name for each in again.iterdir()}
    differing = [
        each.name
        for each in built.iterdir()
        if each.read_bytes() != (again / each.name).read_bytes()
    ]
    assert differing == []


def test_components_and_licences_are_listed(built: Path) -> None:
    (file,) = built.glob("*.cdx.json")
    components = json.loads(file.read_text())["components"]
    names = {item["name"].lower(): item.get("licenses") for item in components}
    assert {"trio", "cryptography", "pyopenssl", "h11", "regex"} <= names.keys()
    assert all(names.values())
    licences = (built / "licences.txt").read_text()
    assert all(f"\n{name} " in f"\n{licences}".lower() for name in names)
    assert ": unknown" not in licences


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="not Debian")
def test_the_debian_package_is_installed_used_and_removed(built: Path, tmp_path: Path) -> None:
    (package,) = built.glob("*.deb")
    steps = "\n".join(f"echo '== {name}'; {command}" for name, command in STEPS.items())
    result = subprocess.run(
        ["unshare", "--mount", "--", "sh", "-c", IN_A_COPY, "sh", tmp_path, package, steps],
        capture_output=True,
        text=True,
        check=False,
    )
    said = dict(part.split("\n", 1) for part in result.stdout.split("== ")[1:])
    assert result.returncode == 0, result.stdout
    assert said["version"].startswith("mitml4 ")
    assert said["schema"] == "flow.close\n"
    assert said["run"] == "inside\n"
    assert said["man"].startswith("/usr/share/man/man1/mitml4-intercept.1")
    assert said["bash"].startswith("complete ")
    assert said["bash"].endswith(" mitml4\n")
    assert said["zsh"] == "_mitml4\n"
    assert said["fish"].startswith("intercept\t")
    assert said["removed"].count("No such file") == len(("/usr/lib/mitml4", "/usr/bin/mitml4"))
