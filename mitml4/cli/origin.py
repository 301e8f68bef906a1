"""The name of an option in errors."""

from __future__ import annotations

import click
from click.core import ParameterSource

__all__ = ["origin_of"]


def origin_of(param: click.Parameter, ctx: click.Context | None) -> str:
    """The source of an option's value: an environment variable, or the option itself."""
    source = ctx.get_parameter_source(param.name) if ctx and param.name else None
    if source is ParameterSource.ENVIRONMENT and isinstance(param, click.Option):
        assert ctx is not None
        return f"{ctx.auto_envvar_prefix}_{param.name}".upper()
    if isinstance(param, click.Argument):
        return (param.metavar or param.name or "").removesuffix("…")
    return param.opts[-1]
