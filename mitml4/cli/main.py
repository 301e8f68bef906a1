"""`mitml4`: the global options, the table of commands, and the handling of errors.

A command's module is imported when the command is called, so that help and completion are fast.
This module alone turns exceptions into an error line, a hint and an exit code.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Final, NoReturn

import click
from click.shell_completion import (
    CompletionItem,
    FishComplete,
    add_completion_class,
    shell_complete,
)

from mitml4 import __version__
from mitml4.cli.console import Console, let_go_of_stdout
from mitml4.cli.origin import origin_of
from mitml4.dataclass import dataclass
from mitml4.errors import LIMITS, ExitCode, MachineError, MitmError, UsageError, limit_hint
from mitml4.screen.terminal import Color

__all__ = ["COMMANDS", "COMPLETE_VARIABLE", "ENVIRONMENT_PREFIX", "Entry", "cli", "main", "run"]

PROGRAM: Final = "mitml4"
ENVIRONMENT_PREFIX: Final = "MITML4"
COMPLETE_VARIABLE: Final = "_MITML4_COMPLETE"

_UNWRITABLE: Final = {
    errno.ENOSPC: "df .",
    errno.EDQUOT: "df .",
    errno.EFBIG: "ulimit -f",
    errno.EIO: "the terminal, or the disk, is gone",
}
"""Errors of an output, and the hint for each."""
_PLAIN: Final = (
    (r"is not a valid boolean\. Recognized values: .*", "is neither yes nor no"),
    (r"is not a valid integer( range)?", "is no whole number"),
    (r"(\S+) is not in the range x>=(\S+)", r"\1 is less than \2"),
)
"""What click says of values, and plain words for it."""
_REFUSALS: Final = {errno.EPERM, errno.ENOSYS}
"""How a system call is refused by a container's filter."""
_NO_THREAD: Final = "can't start new thread"
"""How Python says it (threading.Thread.start)."""
_INTERRUPTED: Final = 130  # 128 + SIGINT, as a shell reports it


@add_completion_class
class _Fish(FishComplete):
    """click's script for fish cuts descriptions at a comma; this one does not."""

    source_template = FishComplete.source_template.replace(
        '(string split "," $completion)', '(string split --max 1 "," $completion)'
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """A command: its location (`module:attribute`) and its summary."""

    where: str
    summary: str

    def load(self) -> click.Command:
        module, _, attribute = self.where.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


COMMANDS: Final = {
    "intercept": Entry(
        "mitml4.cli.intercept:intercept",
        "Intercept TCP that crosses an interface, or that a container starts.",
    ),
    "detect": Entry(
        "mitml4.cli.detect:detect",
        "Name the protocol stack of each flow of TCP and UDP in captures.",
    ),
    "view": Entry("mitml4.cli.view:view", "Show the flows of a file, or write a report of them."),
    "run": Entry("mitml4.cli.run:run", "Run a command, and intercept its connections."),
    "proxy": Entry(
        "mitml4.cli.proxy:proxy",
        "Intercept the connections of clients that use mitml4 as their proxy.",
    ),
    "ca": Entry("mitml4.cli.ca:ca", "Manage the certificate authority that clients have to trust."),
    "rules": Entry("mitml4.cli.rules:rules", "Check files of rules that change traffic."),
    "doctor": Entry(
        "mitml4.cli.doctor:doctor",
        "Say whether this machine can intercept, and what to do where not.",
    ),
    "cleanup": Entry(
        "mitml4.cli.cleanup:cleanup", "Remove what killed sessions and demos have left."
    ),
    "demo": Entry("mitml4.cli.demo:demo", "Show mitml4 at work in a lab of network namespaces."),
    "schema": Entry("mitml4.cli.schema:schema", "Print the JSON Schema of the events."),
}


class _Commands(click.Group):
    """A group that lists its commands from `COMMANDS`, and imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if entry := COMMANDS.get(cmd_name):
            return entry.load()
        if not ctx.resilient_parsing:
            import difflib

            close = difflib.get_close_matches(cmd_name, COMMANDS, n=1)
            ctx.fail(f"no such command: {cmd_name}" + "".join(f"; is it {c}?" for c in close))
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        commands = [
            CompletionItem(name, help=entry.summary)
            for name, entry in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return commands + super(click.Group, self).shell_complete(ctx, incomplete)


@click.group(
    cls=_Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": ENVIRONMENT_PREFIX,
        "max_content_width": 100,
    },
    epilog="""\b
Examples:
  mitml4 demo
  sudo mitml4 intercept --iface eth0
  sudo mitml4 intercept --iface eth0 --json | jq -c 'select(.type=="flow.close") | .stack'
""",
)
@click.option("-q", "--quiet", is_flag=True, help="Print only errors.")
@click.option(
    "-v", "--verbose", count=True, help="Log to standard error; -vv: more, and with tracebacks."
)
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="When to use colours.",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, *, quiet: bool, verbose: int, color: Color) -> None:
    """Intercept TCP connections, name the protocol stack of each, and decrypt TLS."""
    if quiet and verbose:
        raise UsageError("-q and -v contradict each other", hint="leave out -q")
    console = ctx.ensure_object(Console)
    console.verbosity = -1 if quiet else verbose
    console.has_tracebacks = verbose > 1
    console.color = color
    _log(console.verbosity)


def main() -> NoReturn:
    """The entry point: run the command line, and exit."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for an encoding without ✓
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command line, print its error if there is one, and return the exit code."""
    if instruction := os.environ.get(COMPLETE_VARIABLE):
        return shell_complete(cli, {}, PROGRAM, COMPLETE_VARIABLE, instruction)
    console = Console()
    try:
        with _helped(), cli.make_context(PROGRAM, list(arguments), obj=console) as context:
            outcome = cli.invoke(context)
        console.data("")
    except BaseException as error:
        return _answer(_worst(error), console)
    return ExitCode.DONE if outcome is None else int(outcome)


@contextmanager
def _helped() -> Iterator[None]:
    """Leave no process behind that the command has started to help it."""
    try:
        yield
    finally:
        if processes := sys.modules.get("mitml4.net.processes"):  # few commands start any
            processes.wait_for_helpers()


def _answer(error: BaseException, console: Console) -> int:
    """Print the error, and return the exit code."""
    match error:
        case SystemExit() | click.exceptions.Exit():
            code = error.code if isinstance(error, SystemExit) else error.exit_code
            return code if isinstance(code, int) else ExitCode.DONE
        case BrokenPipeError():
            let_go_of_stdout()
            return ExitCode.DONE
        case KeyboardInterrupt() | click.Abort():
            return _INTERRUPTED
        case click.exceptions.NoArgsIsHelpError():
            console.help(error.format_message())
            return ExitCode.USAGE
        case click.UsageError():
            failure = MitmError(_as_ours(error), hint=_help(error))
            failure.exit_code = ExitCode.USAGE
        case click.FileError():
            where = shlex.quote(os.path.dirname(error.ui_filename) or ".")
            failure = MitmError(
                f"cannot open {error.ui_filename}: {error.message}", hint=f"ls -ld {where}"
            )
        case OSError() if error.errno in _UNWRITABLE:
            let_go_of_stdout()
            where = error.filename or "standard output"
            hint = _UNWRITABLE[error.errno]
            failure = MitmError(f"cannot write to {where}: {error.strerror}", hint=hint)
        case OSError() if error.errno in LIMITS:
            failure = MachineError(
                f"cannot get what is needed: {error.strerror}", hint=limit_hint(error)
            )
        case OSError() if error.errno in _REFUSALS and not error.filename:
            failure = MachineError(
                f"the machine refuses what is needed: {error.strerror}", hint="mitml4 doctor"
            )
        case RuntimeError() if str(error) == _NO_THREAD:
            failure = MachineError("cannot start a thread", hint="ulimit -u")
        case MemoryError():
            failure = MachineError("cannot get what is needed: memory", hint="free -m")
        case MitmError():
            failure = error
        case _:
            failure = MitmError(
                f"internal error: {type(error).__name__}: {error}",
                hint="the same with -vv shows where: mitml4 -vv …; please report it",
            )
    console.traceback(error)
    console.error(failure)
    return failure.exit_code


def _worst(error: BaseException) -> BaseException:
    """The error of a group that is reported: a bug first, then an expected error, then an end that
    is not an error."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    harmless = (KeyboardInterrupt, BrokenPipeError, SystemExit)
    return min(
        map(_worst, error.exceptions),
        key=lambda one: (isinstance(one, harmless), isinstance(one, MitmError)),
    )


def _as_ours(error: click.UsageError) -> str:
    """click's message in our form: no capital letter, no full stop, and with the environment
    variable's name if the value comes from one."""
    if isinstance(error, click.BadParameter) and error.param and error.param_hint is None:
        error.param_hint = origin_of(error.param, error.ctx)
    message = error.format_message().strip().removesuffix(".")
    for pattern, plain in _PLAIN:
        message = re.sub(pattern, plain, message)
    return message[:1].lower() + message[1:]


def _help(error: click.UsageError) -> str:
    return f"{error.ctx.command_path if error.ctx else PROGRAM} --help"


class _ToStandardError(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to the current `sys.stderr`: the live table replaces it, so that both stay
    readable."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _log(verbosity: int) -> None:
    """Set up the developers' log; it is off by default."""
    logger = logging.getLogger("mitml4")
    logger.propagate = False
    if verbosity < 1:
        logger.handlers = [logging.NullHandler()]
        return
    handler = _ToStandardError()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if verbosity > 1 else logging.INFO)
