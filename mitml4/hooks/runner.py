"""The process of a script: it loads the file, and calls its hooks.

Each hook that is an async function runs in a task; a plain function runs at once, in the order in
which the session has asked. The process ends with its session. What it answers is checked there.
"""

from __future__ import annotations

import functools
import inspect
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import trio

from mitml4.address import Address
from mitml4.edit.headers import Field, Headers
from mitml4.hooks.channel import Channel
from mitml4.hooks.flows import Flow, Layer
from mitml4.hooks.messages import Message, Request, Response
from mitml4.hooks.wire import HOOKS, Contents, Frame
from mitml4.net.processes import die_with_parent
from mitml4.tasks import fail_after

__all__ = ["ScriptHooks", "describe", "main"]

_MODULE: Final = "mitml4_script"
_ARGUMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "request": ("flow", "request"),
    "response": ("flow", "request", "response"),
    "message": ("flow", "message"),
    "data": ("flow", "direction", "data"),
    "open": ("flow",),
    "layer": ("flow", "layer"),
    "close": ("flow",),
}
_LAST_S: Final = 2.0
"""How long hooks may go on after the session has ended."""
_NO_BOUND: Final = (1 << 32) - 1
"""The session holds what it sends to its own bounds."""


def main() -> None:
    """Arguments: the parent's process id, the descriptor of the socket, the limits of memory and of
    an answer in bytes, the time-out of a hook in seconds, and the file."""
    parent, channel, memory, max_content, timeout, path = sys.argv[1:7]
    die_with_parent(signal.SIGKILL, int(parent))
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.argv = [path]
    sock = socket.socket(fileno=int(channel))
    sock.set_inheritable(False)
    try:
        module = _load(path)
        head = describe(module)
    except BaseException as error:  # SystemExit, too
        said = _brief(error, path)
        sock.sendall(Frame({"failed": said}).encode())
        os._exit(1)
    sock.sendall(Frame(head).encode())
    process = _Process(
        ScriptHooks(module), path, timeout_s=float(timeout), max_content=int(max_content)
    )
    trio.run(process.serve, sock)
    os._exit(0)  # whatever threads the script has started


def _load(path: str) -> ModuleType:
    folder = str(Path(path).resolve().parent)
    sys.path.insert(0, folder)
    module = ModuleType(_MODULE)
    module.__file__ = path
    sys.modules[_MODULE] = module
    code = compile(Path(path).read_bytes(), path, "exec")
    exec(code, module.__dict__)
    return module


def describe(module: ModuleType) -> dict[str, Any]:
    """What the session needs to know of it. Raises TypeError."""
    names = vars(module)
    hooks = _hooks(module)
    if not hooks:
        raise TypeError(f"there is no hook: none of {', '.join(HOOKS)}")
    for name, hook in hooks.items():
        _check_call(name, hook)
    match = names.get("match")
    if match is not None and not isinstance(match, str):
        raise TypeError("match is a filter expression, in a text")
    return {
        "hooks": list(hooks),
        "match": match,
        "bodies": _flag(module, "bodies", default=True),
        "answers": _flag(module, "answers", default=False) and "request" in hooks,
    }


def _hooks(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """The functions and methods that have the name of a hook. A class or a built-in function may
    have one by chance."""
    found = ((name, vars(module).get(name)) for name in HOOKS)
    return {
        name: hook
        for name, hook in found
        if inspect.isfunction(hook) or inspect.ismethod(hook) or isinstance(hook, functools.partial)
    }


def _check_call(name: str, hook: Callable[..., Any]) -> None:
    """Raises TypeError for what fails, or does nothing, whenever it is called."""
    arguments = _ARGUMENTS[name]
    if inspect.isgeneratorfunction(hook) or inspect.isasyncgenfunction(hook):
        raise TypeError(f"{name} is a generator: without its yield it is a hook")
    try:
        inspect.signature(hook).bind(*arguments)
    except TypeError:
        raise TypeError(f"{name} is called as {name}({', '.join(arguments)})") from None
    except ValueError:  # it does not tell its parameters
        return


def _flag(module: ModuleType, name: str, *, default: bool) -> bool:
    value = vars(module).get(name, default)
    if not isinstance(value, bool):
        raise TypeError(f"{name} is True or False")
    return value


def _brief(error: BaseException, path: str) -> str:
    """The error with the last place of the script where it came from."""
    try:
        if isinstance(error, SyntaxError) and error.filename == path:
            return f"{path}:{error.lineno}:{error.offset or 1}: {error.msg}"
        frames = traceback.extract_tb(error.__traceback__)
        line = next((each.lineno for each in reversed(frames) if each.filename == path), None)
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    except BaseException:  # what the script has raised has a __str__ that fails
        return f"{path}: {type(error).__name__}"
    return f"{path}:{line}: {said}" if line else f"{path}: {said}"


class _Process:
    def __init__(
        self, hooks: ScriptHooks, path: str, *, timeout_s: float, max_content: int
    ) -> None:
        self._hooks = hooks
        self._path = path
        self._timeout_s = timeout_s
        self._max_content = max_content

    async def serve(self, sock: socket.socket) -> None:
        channel = Channel(sock)
        async with trio.open_nursery() as nursery:
            while frame := await _read(channel):
                nursery.start_soon(self._answer, channel, frame)
                await trio.lowlevel.checkpoint()  # it begins before later ones are read
            nursery.cancel_scope.deadline = trio.current_time() + _LAST_S

    async def _answer(self, channel: Channel, frame: Frame) -> None:
        number = frame.head["id"]
        answer = Frame({"id": number})
        try:
            with fail_after(self._timeout_s):
                answer = await self._hooks.call(frame)
            if len(answer.body) > self._max_content:
                raise ValueError(f"content of {len(answer.body)} bytes, far above --edit-limit")
        except trio.TooSlowError:
            answer = Frame({"id": number, "kind": "timeout"})
        except trio.Cancelled:
            raise
        except BaseException as error:  # SystemExit, too: the script ends no other hook by it
            said = _brief(error, self._path)
            answer = Frame({"id": number, "kind": "exception", "reason": said})
        try:
            try:
                channel.send(answer)
            except (RecursionError, TypeError, ValueError) as error:
                said = _brief(error, self._path)
                channel.send(Frame({"id": number, "kind": "exception", "reason": said}))
            if channel.has_unsent:
                await channel.flush()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            os._exit(0)  # the session has ended


async def _read(channel: Channel) -> Frame | None:
    try:
        return await channel.read(_NO_BOUND)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return None


class ScriptHooks:
    """The hooks of a script."""

    def __init__(self, module: ModuleType) -> None:
        self._hooks = _hooks(module)
        self._flows: dict[int, Flow] = {}

    async def call(self, frame: Frame) -> Frame:
        """Call one, and return what it has changed. Raises whatever it does."""
        head, sent = frame.head, Contents(frame.body)
        flow = self._flow(head["flow"])
        name, back = head["hook"], Contents()
        answer: dict[str, Any] = {"id": head["id"]}
        match name:
            case "request":
                request = _request(head["request"], sent)
                before = _picture(request)
                returned = await self._run(name, flow, request)
                if isinstance(returned, Response):
                    answer["answer"] = _told(returned, {}, back)
                elif returned is not None:
                    raise TypeError(f"request returns a Response, not {_kind(returned)}")
                else:
                    answer["request"] = _told(request, before, back)
            case "response":
                request = _request(head["request"], sent)
                response = _response(head["response"], sent)
                before = _picture(response)
                _nothing(name, await self._run(name, flow, request, response))
                answer["response"] = _told(response, before, back)
            case "message":
                request = _request(head["request"], sent)
                content = sent.take(head["length"]) or b""
                message = Message(
                    head["direction"], content, is_text=head["is_text"], request=request
                )
                _nothing(name, await self._run(name, flow, message))
                if message.content != content:
                    answer["length"] = back.put(_bytes(message.content))
            case "data":
                data = sent.take(head["length"]) or b""
                returned = await self._run(name, flow, head["direction"], data)
                if (changed := _bytes(returned)) != data:
                    answer["length"] = back.put(changed)
            case "layer":
                if name in self._hooks:
                    layer = head["layer"]
                    await self._run(name, flow, Layer(layer["protocol"], layer["details"]))
            case "close":
                self._flows.pop(flow.number, None)
                if name in self._hooks:
                    await self._run(name, flow)
            case _:
                await self._run(name, flow)
        return Frame(answer, back.body)

    async def _run(self, name: str, *arguments: object) -> Any:
        result = self._hooks[name](*arguments)
        return await result if inspect.isawaitable(result) else result

    def _flow(self, said: dict[str, Any]) -> Flow:
        number = said["number"]
        layers = tuple(Layer(each["protocol"], each["details"]) for each in said["layers"])
        if flow := self._flows.get(number):
            if len(layers) >= len(flow.layers):
                flow.layers = layers
            return flow
        flow = Flow(
            number=number,
            client=Address(*said["client"]),
            destination=Address(*said["destination"]),
            name=said["name"],
            interface=said["interface"],
            process=said["process"],
            container=said["container"],
            layers=layers,
        )
        self._flows[number] = flow
        return flow


# --- what came, and what is different -----------------------------------------------------------


def _request(said: dict[str, Any], sent: Contents) -> Request:
    return Request(
        said["method"],
        said["target"],
        _fields(said["headers"]),
        sent.take(said["length"]),
        scheme=said["scheme"],
        authority=said["authority"],
        http_version=said["version"],
        stream=said["stream"],
        streams=said["streams"],
    )


def _response(said: dict[str, Any], sent: Contents) -> Response:
    response = Response(
        200,
        _fields(said["headers"]),
        sent.take(said["length"]),
        reason=said["reason"],
        http_version=said["version"],
        streams=said["streams"],
    )
    response._status_code = said["status"]  # a server may send any, such as 999
    return response


def _fields(pairs: list[list[str]]) -> Headers:
    """As they came, whatever is in them."""
    return Headers(Field(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs)


def _picture(message: Request | Response) -> dict[str, Any]:
    picture: dict[str, Any] = {
        "headers": message.headers.items(),
        "content": message._content or b"",
    }
    if isinstance(message, Request):
        picture["line"] = message.method, message.target
        picture["server"] = message.scheme, message.host, message.port
    else:
        picture["line"] = message.status_code, message.reason
    return picture


def _told(message: Request | Response, before: dict[str, Any], back: Contents) -> dict[str, Any]:
    """What is different; everything, if there was nothing before."""
    now = _picture(message)
    told = {
        name: value for name, value in now.items() if name not in before or value != before[name]
    }
    if "content" in told:
        told["content"] = back.put(told["content"])
    return told


def _bytes(given: object) -> bytes:
    if isinstance(given, bytes | bytearray | memoryview):
        return bytes(given)
    raise TypeError(f"bytes are needed, not {_kind(given)}")


def _nothing(name: str, returned: object) -> None:
    if returned is not None:
        raise TypeError(f"{name} returns nothing, not {_kind(returned)}")


def _kind(given: object) -> str:
    return type(given).__name__
