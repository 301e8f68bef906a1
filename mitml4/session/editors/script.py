"""A script of a session (docs/hooks.md), as an `Editor`.

A script runs in a separate process (`hooks/runner.py`), which a supervisor starts
(`hooks/supervisor.py`). Here its hooks are asked, and what they answer is checked: a script is
trusted with the traffic that it edits, but not to leave this process intact. Whatever it does wrong
leaves the traffic as it was.

When the file changes, a second process loads it and replaces the first one, or the first one stays.
A process that does not answer in time is killed, and another one takes its place.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import trio

from mitml4.address import Address
from mitml4.errors import UsageError
from mitml4.events import FlowClose, FlowLayer, FlowOpen, ScriptError
from mitml4.filter.parser import FilterError
from mitml4.hooks.changes import flow_told
from mitml4.hooks.editor import HookEditor, HookError, Info, What
from mitml4.hooks.supervisor import MAX_COMMAND, RunnerOptions, start_supervisor
from mitml4.hooks.wire import LENGTHS, Contents, Frame, lengths
from mitml4.model import flow as model
from mitml4.model.builder import FlowBuilder
from mitml4.printable import printable
from mitml4.session.editors.script_process import (
    MAX_ASKED,
    Call,
    Runner,
    receive,
    take_answer,
    unless_broken,
)
from mitml4.sinks.updates import Published

__all__ = ["Script"]

_START_S: Final = 20.0
"""How long a process may take to load its script."""
_GRACE_S: Final = 0.5
"""How much longer than a hook's time-out its process may take to say that it was reached."""
_SETTLED_S: Final = 1.0
"""A process that ends sooner is not started again at once."""
_END_S: Final = 2.0
"""How long the hooks of the last flows may take when the session ends."""
_MEMORY: Final = 1 << 30
_BODIES: Final = 8
"""How many bodies at the limit a script has memory for, besides."""
_MAX_TOLD: Final = 4
"""How many bodies at the limit an answer may have before it is nonsense."""
_MAX_WAITING: Final = 4096
"""How many notifications may be without an answer. Of more connections, a script that is too slow
hears nothing."""
_LINES_PER_S: Final = 1000
_MAX_LINE: Final = 4096
_MAX_SAID: Final = 32
"""How many kinds of failures are said. What fails may depend on the traffic."""
_NOBODY: Final = Address("0.0.0.0", 0)


class Script(HookEditor):
    """One script of a session."""

    def __init__(
        self, path: Path, *, timeout_s: float, limit: int, publish: Callable[[ScriptError], None]
    ) -> None:
        """Starts its process, and waits until it has loaded the file. Blocks.

        Raises UsageError for a script that cannot be used, MachineError."""
        super().__init__(path.name, limit)
        self._path = path
        self._timeout_s = timeout_s
        self._publish = publish
        self._say: Callable[[str], None] = lambda _text: None
        self._said: set[tuple[str, str, str]] = set()
        """The failures since the script was loaded that were said: hook, kind, and place."""
        self.on_loaded: Callable[[Mapping[str, Any]], None] = lambda _head: None
        """Is told what the script says of itself, each time that another process has loaded it."""
        self._open_prints = 0
        self._runner: Runner | None = None
        self._change = trio.Event()
        """Set and renewed when the process changes."""
        self._is_broken = False
        """Whether there will be no process until the file changes."""
        self._is_closing = False
        self._is_orphan = False
        """Whether its supervisor has ended, so that no process can be started."""
        self._permits = trio.Semaphore(MAX_ASKED)
        self._flows = FlowBuilder()
        self._waiting = 0
        """Notifications without an answer yet."""
        options = RunnerOptions(
            path=path.absolute(),
            timeout_s=timeout_s,
            memory=_MEMORY + _BODIES * limit,
            max_content=_MAX_TOLD * limit,
        )
        self._control = start_supervisor(options)
        try:
            self.info = self._begin()
        except BaseException:
            self._control.close()
            if self._runner:
                self._runner.socket.close()
                os.close(self._runner.prints)
            raise

    def _begin(self) -> Info:
        """Start the first process. Raises UsageError."""
        self._control.settimeout(_START_S)
        try:
            self._control.send(b"start")
            self._runner = runner = self._started(*socket.recv_fds(self._control, MAX_COMMAND, 2))
            runner.socket.settimeout(_START_S)
            head = receive(runner.socket, LENGTHS.size)
            one, other = lengths(head, 0)
            frame = Frame.decode(receive(runner.socket, one), receive(runner.socket, other))
            info = Info.of(frame.head)
        except TimeoutError:
            raise self._unusable("it takes too long to load") from None
        except (OSError, EOFError) as error:
            raise self._unusable(f"its process has ended at its start{_colon(error)}") from None
        except FilterError as error:
            raise self._unusable(
                f"match: {error.message}", "docs/filter.md has all words"
            ) from None
        except ValueError as error:
            raise self._unusable(f"nonsense: {error}") from None
        runner.socket.setblocking(False)
        self._control.setblocking(False)
        runner.info = info
        return info

    def _unusable(self, reason: str, hint: str | None = None) -> UsageError:
        printed = ""
        if self._runner:
            os.set_blocking(self._runner.prints, False)
            try:
                printed = os.read(self._runner.prints, _MAX_LINE).decode(errors="replace")
            except BlockingIOError:
                printed = ""
        last = printed.strip().rpartition("\n")[2]
        more = f" ({last})" if last else ""
        hint = hint or printable(f"python3 {self._path}")
        return UsageError(printable(f"{self._path}: {reason}{more}"), hint=hint)

    def _started(self, data: bytes, fds: list[int], _flags: int, _address: Any) -> Runner:
        """Raises OSError for what is no process."""
        what, _, rest = data.decode().partition(" ")
        if what != "started" or len(fds) != 2:
            raise OSError(0, rest or "its supervisor has ended")
        return Runner(int(rest), socket.socket(fileno=fds[0]), fds[1])

    # The processes

    async def run(self, say: Callable[[str], None]) -> None:
        """Until cancelled."""
        self._say = say
        try:
            async with trio.open_nursery() as self._nursery:
                assert self._runner
                self._nursery.start_soon(self._serve, self._runner)
                await self._watch()
        finally:
            self._is_closing = True

    async def finish(self) -> None:
        """Wait for the last notifications, and let the process end."""
        self._is_closing = True
        with trio.move_on_after(_END_S):
            while self._waiting and self._runner:
                await self._change.wait()
            if self._runner:
                with suppress(OSError):
                    self._runner.socket.shutdown(socket.SHUT_WR)
                while self._runner:
                    await self._change.wait()
            while self._open_prints:
                await self._change.wait()

    def close(self) -> None:
        self._control.close()

    def _changed(self) -> None:
        self._change.set()
        self._change = trio.Event()

    def _command(self, command: str) -> None:
        try:
            self._control.send(command.encode())
        except OSError:  # the supervisor has ended, which _watch tells
            return

    async def _watch(self) -> None:
        """Follow what the supervisor says."""
        while True:
            await trio.lowlevel.wait_readable(self._control)
            try:
                received = socket.recv_fds(self._control, MAX_COMMAND, 2)
            except BlockingIOError:
                continue
            except OSError:
                received = b"", [], 0, None
            what, _, rest = received[0].decode(errors="replace").partition(" ")
            match what:
                case "started":
                    try:
                        runner = self._started(*received)
                    except OSError:
                        continue
                    self._nursery.start_soon(self._serve, runner)
                case "changed":
                    self._command("start")
                case "failed":
                    self._break(rest)
                case "":
                    self._is_orphan = True
                    self._break("the process that starts it has ended")
                    await trio.sleep_forever()

    def _break(self, reason: str) -> None:
        if self._is_closing:
            return
        self._is_broken = self._runner is None
        self._note(f"{self.name}: {reason}")
        self._changed()

    async def _serve(self, runner: Runner) -> None:
        """Serve a process to its end."""
        frames = runner.frames
        self._nursery.start_soon(self._print, runner.prints)
        reason = "its process has ended"
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(unless_broken, frames.write)
                with trio.move_on_after(math.inf if runner.info else _START_S) as loading:
                    while frame := await frames.read(_MAX_TOLD * self.limit + (1 << 20)):
                        if runner.info is None:
                            if not self._loaded(runner, frame):
                                break
                            loading.deadline = math.inf
                        else:
                            take_answer(runner, frame)
                if loading.cancelled_caught:
                    self._note(f"{self._path}: it takes too long to load")
                nursery.cancel_scope.cancel()
        except* ValueError as errors:
            reason = f"its process has sent nonsense: {errors.exceptions[0]}"
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            runner.socket.close()
        self._end(runner, reason)

    def _loaded(self, runner: Runner, frame: Frame) -> bool:
        """A process has loaded the file, or has failed to. Raises ValueError."""
        try:
            info = Info.of(frame.head)
        except FilterError as error:
            return self._not_loaded(f"{self._path}: match: {error.message}")
        except UsageError as error:
            return self._not_loaded(error.message)
        before, self._runner = self._runner, runner
        runner.info = self.info = info
        self.on_loaded(frame.head)
        self._is_broken = False
        self.told.clear()
        if before:
            self._said.clear()
            self._note(f"{self._path}: read again")
            self._nursery.start_soon(self._retire, before)
        self._changed()
        return True

    def _not_loaded(self, reason: str) -> Literal[False]:
        stays = "; the script stays as it was" if self._runner else ""
        self._is_broken = self._runner is None
        self._note(f"{reason}{stays}")
        self._changed()
        return False

    async def _retire(self, runner: Runner) -> None:
        """End a process that was replaced, once its hooks have ended."""
        with trio.move_on_after(self._timeout_s + _GRACE_S):
            for call in list(runner.calls.values()):
                await call.done.wait()
        self._command(f"kill {runner.number}")

    def _end(self, runner: Runner, reason: str, what: What = "ended") -> None:
        """A process is over: kill what is left of it, and start another one if it was needed."""
        if not runner.is_lost:
            runner.lose(HookError(what, reason))
            self._command(f"kill {runner.number}")
        if self._runner is runner:
            self._runner = None
            self.told.clear()
            self._is_broken = self._is_orphan
            if not (self._is_closing or self._is_orphan):
                self._nursery.start_soon(self._restart, runner)
            self._changed()

    async def _restart(self, runner: Runner) -> None:
        if trio.current_time() < runner.born + _SETTLED_S:
            await trio.sleep(_SETTLED_S)
        if self._runner is None:
            self._command("start")

    async def _print(self, descriptor: int) -> None:
        """Say what a process prints."""
        self._open_prints += 1
        rest = b""
        async with trio.lowlevel.FdStream(descriptor) as pipe:
            while data := await pipe.receive_some(_MAX_LINE):
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > _MAX_LINE:
                    lines, rest = [*lines, rest], b""
                for line in lines:
                    self._note(f"{self.name}: {line.decode(errors='replace')}")
                # A script that prints without end waits, and not what reads its notes.
                await trio.sleep(len(lines) / _LINES_PER_S)
        if rest:
            self._note(f"{self.name}: {rest.decode(errors='replace')}")
        self._open_prints -= 1
        self._changed()

    def say_once(self, hook: str, error: HookError) -> None:
        kind = hook, error.what, _place(error)
        if kind not in self._said and len(self._said) < _MAX_SAID:
            self._said.add(kind)
            self._note(
                f"{self.name}: {hook}: {error.reason} ({error.what}; said once, "
                "the events have each)"
            )

    def _note(self, text: str) -> None:
        self._say(printable(text))

    # Asking

    async def ask(self, head: dict[str, Any], contents: Contents) -> Frame:
        """Raises HookError."""
        try:
            self._permits.acquire_nowait()
        except trio.WouldBlock:
            await self._permits.acquire()
        try:
            return await self._ask(head, contents)
        finally:
            self._permits.release()

    async def _ask(self, head: dict[str, Any], contents: Contents) -> Frame:
        deadline = trio.current_time() + self._timeout_s + _GRACE_S
        runner = await self._ready(deadline)
        call, number = Call(), self._number(runner)
        runner.calls[number] = call
        try:
            with suppress(OSError):  # the process has ended, which `_serve` finds
                runner.frames.send(Frame({"id": number, **head}, contents.body))
            with trio.CancelScope(deadline=deadline):
                await call.done.wait()
            if not call.done.is_set():
                late = "another of its hooks did not end in time"
                call.end(HookError("timeout", self._late))
                self._end(runner, late)
        finally:
            runner.calls.pop(number, None)
        return self._checked(call)

    def _number(self, runner: Runner) -> int:
        runner.count += 1
        return runner.count

    @property
    def _late(self) -> str:
        return f"not done after {self._timeout_s:g} s"

    def _checked(self, call: Call) -> Frame:
        """Raises HookError."""
        if call.failure:
            raise call.failure
        assert call.answer
        head = call.answer.head
        match head.get("kind"):
            case None:
                return call.answer
            case "timeout":
                raise HookError("timeout", self._late)
            case "exception":
                raise HookError("exception", str(head.get("reason"))[:_MAX_LINE])
            case _:
                raise HookError("refused", "its answer is nonsense")

    async def _ready(self, deadline: float) -> Runner:
        """The process. Raises HookError."""
        if self._runner:
            return self._runner
        with trio.CancelScope(deadline=deadline):
            while self._runner is None and not self._is_broken and not self._is_closing:
                await self._change.wait()
        if self._runner is None:
            raise HookError("ended", "the script does not run")
        return self._runner

    # Notifications

    def publish(self, event: Published) -> None:
        """A flow has opened, has a layer, or has closed."""
        if isinstance(event, FlowOpen | FlowLayer):
            if self.info.has("open", "layer", "close"):
                self._flows.add(event)
                hook = "open" if isinstance(event, FlowOpen) else "layer"
                self._notify(hook, event.flow)
        elif isinstance(event, FlowClose):
            self._notify("close", event.flow)
            self._flows.forget(event.flow)
            self.told.discard(event.flow)

    def _notify(self, hook: str, number: int) -> None:
        flow, is_told = self._flows.flow(number), number in self.told
        if self._runner is None or self._is_closing:
            return
        if flow is None or not self._possible(flow, is_named=False):
            if hook != "close" or not is_told:
                return
            flow = flow or model.Flow(
                number=number, client=_NOBODY, destination=_NOBODY, opened_at=datetime.now(UTC)
            )
        elif not self.info.has(hook) and not is_told:
            return
        elif self._waiting >= _MAX_WAITING and not (hook == "close" and is_told):
            self._report(hook, flow, HookError("timeout", "too many hooks wait for their turn"))
            return
        head: dict[str, Any] = {"hook": hook, "flow": flow_told(flow)}
        if hook == "layer":
            head["layer"] = head["flow"]["layers"][-1]
        self.told.add(number)
        self._waiting += 1
        self._nursery.start_soon(self._tell, head, flow)

    async def _tell(self, head: dict[str, Any], flow: model.Flow) -> None:
        try:
            await self.ask(head, Contents())
        except HookError as error:
            self._report(head["hook"], flow, error)
        finally:
            self._waiting -= 1
            self._changed()

    def _report(self, hook: str, flow: model.Flow, error: HookError) -> None:
        self.say_once(hook, error)
        if hook != "close" and self._flows.flow(flow.number):  # flow.close is a flow's last event
            self._publish(
                ScriptError(
                    flow=flow.number,
                    depth=max(len(flow.layers) - 1, 0),
                    stream=None,
                    hook=f"{self.name}: {hook}",
                    what=error.what,
                    reason=printable(error.reason),
                )
            )


def _place(error: HookError) -> str:
    """The line of the script and the type of the exception, without what it says: that may be of
    the traffic."""
    return ": ".join(error.reason.split(": ", 2)[:2])


def _colon(error: Exception) -> str:
    said = getattr(error, "strerror", None)
    return f": {said}" if said else ""
