"""Which Unix sockets are hidden from a confined command."""

from __future__ import annotations

import errno
import multiprocessing
import os
import socket
from pathlib import Path

import pytest

from mitml4.net import isolation
from mitml4.net.namespace import hidden
from mitml4.net.namespace.hidden import directories_of, hide, sockets_of_host
from mitml4.net.trial.child import run_in_child


def test_sockets_are_found_that_listen_or_that_the_environment_names(tmp_path: Path) -> None:
    path = tmp_path / "a socket"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        environ = {
            "SSH_AUTH_SOCK": "/a/agent",
            "DOCKER_HOST": "unix:///a/docker.sock",
            "DBUS_SESSION_BUS_ADDRESS": "unix:path=/a/bus,guid=1;unix:abstract=/b",
            "CONTAINER_HOST": "tcp://127.0.0.1:1",
        }
        found = sockets_of_host(environ)
    assert path in found
    assert found[:3] == [Path("/a/agent"), Path("/a/docker.sock"), Path("/a/bus")]
    assert all(each.is_absolute() for each in found)
    assert path not in sockets_of_host({})


def test_sockets_of_other_network_namespaces_are_found_too(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere"
    fork = multiprocessing.get_context("fork")
    ready, wait = fork.Event(), fork.Event()

    def serve() -> None:
        isolation.unshare_without_power(isolation.CLONE_NEWNET, root=False)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
            ready.set()
            wait.wait()

    process = fork.Process(target=serve)
    process.start()
    assert ready.wait(20)
    found = sockets_of_host({})
    wait.set()
    process.join()
    assert path in found


@pytest.mark.parametrize("method", ["stat", "read_text"])
@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_no_socket_is_forgotten_for_want_of_a_descriptor(monkeypatch, method, code) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, method, fail)
    with pytest.raises(OSError, match=os.strerror(code)):
        sockets_of_host({})


def test_no_socket_is_forgotten_where_there_is_no_list(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hidden, "_PROC", tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        sockets_of_host({})


def test_processes_that_have_ended_are_skipped(monkeypatch, tmp_path: Path) -> None:
    row = "0000: 00000002 00000000 00010000 0001 01 1 /a/socket"
    for process, rows in (("1", [row]), ("2", None)):
        (tmp_path / process / "net").mkdir(parents=True)
        if rows:
            (tmp_path / process / "net/unix").write_text("\n".join(["head", *rows]))
    monkeypatch.setattr(hidden, "_PROC", tmp_path)
    assert sockets_of_host({}) == [Path("/a/socket")]


def test_directories_of_services_are_those_of_the_user() -> None:
    environ = {"TMUX_TMPDIR": "/mine", "XDG_RUNTIME_DIR": "/mine/run"}
    found = directories_of(environ)
    assert Path("/mine/run") in found
    assert any(str(each).startswith("/mine/tmux-") for each in found)
    assert all(each.is_absolute() for each in directories_of({}))


def test_sockets_and_directories_are_hidden_for_this_namespace_only(tmp_path: Path) -> None:
    service, directory = tmp_path / "service", tmp_path / "directory"
    directory.mkdir()
    (directory / "file").touch()

    def work() -> list[object]:
        isolation.unshare_without_power(isolation.CLONE_NEWNS, root=False)
        isolation.mount_slave()
        hide([service, tmp_path / "missing"], [directory, tmp_path / "none"])
        sock = socket.socket(socket.AF_UNIX)
        return [sock.connect_ex(str(service)), len(list(directory.iterdir()))]

    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(service))
        sock.listen()
        assert run_in_child(work, timeout_s=20) == [[111, 0]]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(service))
    assert list(directory.iterdir())
