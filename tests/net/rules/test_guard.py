"""The guard's conversation with nft, held with a stand-in; the real one is in e2e/test_rules.py."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
import trio

from mitml4.errors import MachineError
from mitml4.net.identity import SLOTS
from mitml4.net.rules import guard as guard_module
from mitml4.net.rules.guard import Guard, GuardLostError, NftError

# It echoes with a prompt, as nft does where it was built with readline.
NFT = """#!/bin/sh
printf 'nft> '
while IFS= read -r line; do
    echo "$line"
    case "$line" in
    "describe ct mark") echo "ct expression, datatype mark (packet mark), 32 bits" ;;
    "create table"*)
        table=${line#create table inet }
        if grep -qx "${table%% *}" "$STATE/taken" 2>/dev/null; then
            echo "Error: Could not process rule: File exists" >&2
            echo "$line" >&2
            echo "^^^^^" >&2
        fi ;;
    refuse*) echo "Error: syntax error, unexpected string" >&2; echo "$line" >&2 ;;
    lack*) echo "netlink: Error: Could not process rule: No buffer space available" >&2 ;;
    slow*) read _ < "$STATE/gate"; echo "answer to $line" ;;
    die) exit 3 ;;
    *) echo "answer to $line" ;;
    esac
    printf 'nft> '
done
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "nft"
    program.write_text(NFT.replace("$STATE", str(tmp_path)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


async def test_answers_belong_to_their_questions_despite_the_prompt(state: Path) -> None:
    guard = await Guard.claim()
    assert "answer to one" in await guard.tell("one")
    assert "answer to two; three" in await guard.tell("\ttwo\n  three\n")
    await guard.aclose()


async def test_a_refusal_is_one_line_of_nft_s_own(state: Path) -> None:
    guard = await Guard.claim()
    with pytest.raises(NftError) as caught:
        await guard.tell("refuse this")
    assert caught.value.message == "nft: syntax error, unexpected string"
    assert "answer to next" in await guard.tell("next")
    await guard.aclose()


async def test_a_request_that_the_kernel_does_not_take_is_a_refusal_too(state: Path) -> None:
    guard = await Guard.claim()
    with pytest.raises(NftError) as caught:
        await guard.tell("lack of memory")
    assert caught.value.message == "nft: Could not process rule: No buffer space available"
    assert "answer to next" in await guard.tell("next")
    await guard.aclose()


async def test_a_cancelled_question_does_not_shift_the_answers(state: Path) -> None:
    gate = state / "gate"
    os.mkfifo(gate)
    guard = await Guard.claim()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(guard.tell, "slow")
        await trio.to_thread.run_sync(open_to_write, gate)  # nft has begun to answer
        nursery.cancel_scope.cancel()
    assert "answer to next" in await guard.tell("next")
    await guard.aclose()


def open_to_write(path: Path) -> None:
    with path.open("w") as gate:
        gate.write("\n")


async def test_questions_from_two_tasks_take_turns(state: Path) -> None:
    guard = await Guard.claim()
    async with trio.open_nursery() as nursery:

        async def ask(question: str) -> None:
            assert f"answer to {question}" in await guard.tell(question)

        for number in range(8):
            nursery.start_soon(ask, f"number {number}")
    await guard.aclose()


async def test_a_slot_that_is_taken_is_passed_over(state: Path) -> None:
    first = await Guard.claim()
    (state / "taken").write_text(f"{first.identity.table}\n")
    second = await Guard.claim()
    assert second.identity.slot == (first.identity.slot + 1) % SLOTS
    for guard in (first, second):
        await guard.aclose()


async def test_nft_s_end_is_noticed_by_who_asks_and_by_who_waits(state: Path) -> None:
    guard = await Guard.claim()
    with pytest.raises(GuardLostError):
        await guard.tell("die")
    assert await guard.wait() == "the guard of the rules ended with status 3"
    with pytest.raises(GuardLostError):
        await guard.tell("anything")
    await guard.aclose()


async def test_an_nft_that_is_not_interactive_is_named(state: Path) -> None:
    (state / "nft").write_text("#!/bin/sh\necho 'Error: no interactive mode' >&2\nexit 1\n")
    with pytest.raises(MachineError, match="no interactive mode"):
        await Guard.claim()


async def test_a_restricted_guard_tells_nft_nothing_but_what_was_allowed(state: Path) -> None:
    guard = await Guard.claim()
    assert "answer to before" in await guard.tell("before")
    await guard.restrict("list counter\n", "flush chain a b\nflush chain a c\n")
    assert "answer to list counter" in await guard.tell("list counter")
    assert "answer to flush chain a b; flush" in await guard.tell(
        "flush chain a b\nflush chain a c"
    )
    for other in (
        "before",
        'include "/etc/shadow"',
        "list counter; list ruleset",
        "#allow x",
        "#restrict",
    ):
        printed = await guard.tell(other)
        assert "answer to not-allowed-in-a-restricted-session" in printed
        assert other not in printed
    await guard.restrict("list ruleset")
    assert "answer to not-allowed" in await guard.tell("list ruleset")
    await guard.aclose()


async def test_an_nft_that_somebody_has_stopped_does_not_outlive_its_session(state: Path) -> None:
    guard = await Guard.claim()
    (stopped,) = running_nfts()
    os.kill(stopped, signal.SIGSTOP)
    with trio.fail_after(60):
        await guard.aclose()  # which waits for it, but not for as long as a busy machine may take
        while running_nfts():  # noqa: ASYNC110 - nothing tells of it
            await trio.sleep(0.05)
        await guard.aclose()


def running_nfts() -> list[int]:
    """The children of this process that are one."""
    tasks = Path("/proc/self/task").glob("*/children")
    children = [int(pid) for task in tasks for pid in task.read_text().split()]
    return [pid for pid in children if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(b"-i\0")]


def test_the_filter_ends_where_it_cannot_pass_a_statement_on() -> None:
    """nft would answer the next statement as if it had obeyed this one."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    with open("/dev/full", "wb") as full:
        command = ["/bin/sh", "-c", guard_module._FILTER, "sh", str(ended.pid)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=full, stderr=full) as shell:
            assert shell.stdin
            shell.stdin.write(b"one\n")
            shell.stdin.flush()
            shell.wait(timeout=60)
