"""Options that the help lists under headings, and commands whose help does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from mitml4.cli.values import Parsed, parse_duration, parse_size
from mitml4.errors import UsageError
from mitml4.session.destinations.policy import HostPattern

__all__ = [
    "DURATION",
    "HOST",
    "SIZE",
    "Command",
    "F",
    "SectionOption",
    "choice",
    "option",
    "section_of",
]

F = TypeVar("F", bound=Callable[..., Any])


_SINGLE: Final = {"expr", "name", "pid"}
"""Types of values of which a second one would say that both are meant."""


class SectionOption(click.Option):
    """An option that the help lists under a heading."""

    def __init__(self, *args: Any, section: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.section = section


class Command(click.Command):
    """A command whose help lists its options in sections.

    `exit_status` and `keys` are tables for its man page and the reference: terms and meanings.
    """

    def __init__(
        self,
        *args: Any,
        exit_status: tuple[tuple[str, str], ...] = (),
        keys: tuple[tuple[str, str], ...] = (),
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        self.exit_status = exit_status
        self.keys = keys

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:  # as the shell's completion does, which shows no error
            self._refuse_second_values(ctx, args)
        return super().parse_args(ctx, args)

    def _refuse_second_values(self, ctx: click.Context, args: list[str]) -> None:
        """Of options that select connections, only the last value would be used. Of files, numbers
        and choices it is usual that the last replaces the others, such as those of an alias."""
        _, _, given = self.make_parser(ctx).parse_args(args.copy())
        for option in given:
            single = isinstance(option, click.Option) and not option.multiple
            if single and option.type.name in _SINGLE and given.count(option) > 1:
                raise UsageError(
                    f"{option.opts[-1]} is given {given.count(option)} times",
                    hint="leave out all but one of them",
                )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            if isinstance(option, click.Option) and (record := option.get_help_record(ctx)):
                sections.setdefault(section_of(option), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def section_of(option: click.Option) -> str:
    """The heading under which an option is listed."""
    return option.section if isinstance(option, SectionOption) else "Options"


HOST: Final = Parsed("host", HostPattern.parse)
DURATION: Final = Parsed("duration", parse_duration)
SIZE: Final = Parsed("size", parse_size)


def option(section: str, *names: str, **settings: Any) -> Callable[[F], F]:
    return click.option(*names, cls=SectionOption, section=section, **settings)


def choice(section: str, name: str, *values: str, help: str) -> Callable[[F], F]:
    """An option with a closed set of values; the first is the default."""
    kind = click.Choice(values)
    return option(section, name, type=kind, default=values[0], show_default=True, help=help)
