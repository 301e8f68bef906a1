"""What a process tree has used, as /proc tells it."""

import os
import subprocess
import sys

import pytest

from bench.processes import (
    busy_seconds,
    cpu_seconds,
    parse_busy_ticks,
    parse_cpu_ticks,
    resident_bytes,
    stop,
    tree,
)


@pytest.mark.parametrize("name", ["python", "a b", "x) R 1 1 (y", ")"])
def test_cpu_ticks_are_found_behind_any_command_name(name: str) -> None:
    before = "S 1 2 3 4 5 6 7 8 9 10"
    after = "20 0 1 0 123456 0 0"
    assert parse_cpu_ticks(f"42 ({name}) {before} 100 20 3 4 {after}") == 127


def test_a_core_is_busy_unless_it_is_idle_or_waits_for_a_disk() -> None:
    assert parse_busy_ticks("cpu  1 20 300 4000 50000 6 70 800 9000 10000\ncpu0 1 2") == 1197


def test_the_machine_is_busy_with_a_process_at_least() -> None:
    own, all_programs = cpu_seconds(os.getpid()), busy_seconds()
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    assert busy_seconds() - all_programs >= cpu_seconds(os.getpid()) - own - 0.02


def test_a_tree_has_the_children_of_children() -> None:
    parent = subprocess.Popen(
        ["sh", "-c", "sh -c 'cat; true'; true"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(b"x")  # once it comes back, cat and its parents are all there
        parent.stdin.flush()
        assert parent.stdout.read(1) == b"x"
        assert len(tree(parent.pid)) == 3


def test_time_of_an_ended_child_counts_with_its_parent() -> None:
    before = cpu_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    assert cpu_seconds(os.getpid()) > before


def test_a_living_process_is_resident_and_an_ended_one_is_not() -> None:
    assert resident_bytes(os.getpid()) > 1_000_000
    process = subprocess.Popen(["true"])
    process.wait()
    assert resident_bytes(process.pid) == 0


def test_stop_ends_a_process_that_ignores_being_asked() -> None:
    process = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo up; while read line; do :; done"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        stop(process, grace_s=0.1)
        assert process.returncode == -9
