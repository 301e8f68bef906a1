"""Cgroups: found by what people call them, and watched, in directories that stand for theirs."""

from pathlib import Path

import pytest
import trio

from mitml4.errors import MitmError
from mitml4.net.rules import cgroups, scope
from mitml4.net.rules.cgroups import CgroupWatch, find_cgroup
from mitml4.net.rules.scope import Cgroup

_V1 = "30 23 0:26 / {root}/cpu rw - cgroup cgroup rw,cpu\n"
_V2 = "31 23 0:27 / {mount} rw,relatime shared:9 - cgroup2 cgroup2 rw\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (found := tmp_path / "cgroup").mkdir()
    for module in (cgroups, scope):
        monkeypatch.setattr(module, "CGROUPS", found)
    monkeypatch.setenv("PATH", "/nowhere")
    return found


def mounts(root: Path, text: str, mount: Path | None = None) -> Path:
    (path := root.parent / "mountinfo").write_text(text.format(root=root, mount=mount or root))
    return path


@pytest.mark.parametrize("below", ["", "unified"])
@pytest.mark.parametrize(
    "name",
    [
        "/system.slice/nginx.service",
        "system.slice/nginx.service/",
        "{mount}/system.slice/nginx.service",
        "nginx.service",
        "nginx",
    ],
)
def test_a_cgroup_is_found_by_its_path_and_by_its_unit(root: Path, below: str, name: str) -> None:
    mount = root / below
    (mount / "system.slice/nginx.service").mkdir(parents=True)
    found = find_cgroup(name.format(mount=mount), mounts(root, _V1 + _V2, mount))
    assert (found.path, found.level) == ("/system.slice/nginx.service", 2)
    assert found.known_to_nft_as == f"{below}/system.slice/nginx.service".lstrip("/")


def test_systemd_is_asked_for_the_cgroup_of_a_unit(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows units in slices of others, and those whose cgroup has another name."""
    (root / "a.slice/other").mkdir(parents=True)
    (program := root.parent / "systemctl").write_text(
        '#!/bin/sh\n[ "$1 $2 $3 $4 $5" = "show --property=ControlGroup --value -- web" ] '
        "&& echo /a.slice/other\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(cgroups, "environment", lambda: {"PATH": f"{root.parent}:/bin:/usr/bin"})
    assert find_cgroup("web", mounts(root, _V2)).path == "/a.slice/other"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("/gone", _V2, "there is no cgroup '/gone'"),
        ("gone.service", _V2, "there is no cgroup 'gone.service'"),
        ("../..", _V2, "the cgroup / has all programs"),
        ('/a"; flush ruleset', _V2, "nft cannot name"),
        ("/x", _V1, "no cgroups of version 2"),
        ("/x", _V2.replace("{mount}", "/elsewhere"), "mounted at /elsewhere"),
    ],
)
def test_what_is_no_cgroup_is_said_with_a_hint(root: Path, name: str, text: str, says: str) -> None:
    with pytest.raises(MitmError, match=says) as raised:
        find_cgroup(name, mounts(root, text))
    assert raised.value.hint


async def test_a_cgroup_that_goes_and_comes_back_is_told_of_as_are_those_above_it(
    root: Path,
) -> None:
    one, other = Cgroup("/slice/one", root), Cgroup("/slice/other", root)
    for each in (one, other):
        each.directory.mkdir(parents=True)
    watch = CgroupWatch([one, other])
    try:
        with trio.fail_after(4):  # it looks every five seconds, whatever it is told
            one.directory.rmdir()
            assert await watch.changes() == [(0, False)]
            one.directory.mkdir()
            assert await watch.changes() == [(0, True)]
            other.directory.rmdir()
            one.directory.rmdir()
            (root / "slice").rmdir()
            assert await watch.changes() == [(0, False), (1, False)]
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def come_back() -> None:
                    (root / "slice").mkdir()
                    await trio.testing.wait_all_tasks_blocked()
                    other.directory.mkdir()

                assert await watch.changes() == [(1, True)]
    finally:
        watch.close()
