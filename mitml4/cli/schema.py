"""`mitml4 schema`: print the JSON Schema of the events."""

from __future__ import annotations

import json

import click

from mitml4.cli.console import Console
from mitml4.schema import json_schema

__all__ = ["schema"]


@click.command(
    epilog="""\b
Examples:
  mitml4 schema > events.schema.json
  mitml4 schema | jq '."$defs" | keys'
"""
)
@click.pass_obj
def schema(console: Console) -> None:
    """Print the JSON Schema of the events.

    It describes every line that `intercept --json` and `-o FILE` write: JSON Schema, draft
    2020-12.
    """
    console.data(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n")
