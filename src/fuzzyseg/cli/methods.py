"""`fuzzyseg methods`: list the methods."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from fuzzyseg.cli.imports import Import


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One method, with its settings.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    imports: Import = None,
) -> None:
    """List the methods, or all settings of one.

    Shows the paper, how FPL applies, the cost of a step, and the state between steps.

    \b
    Examples:
      fuzzyseg methods
      fuzzyseg methods cps
    """
    from fuzzyseg.cli.list_methods import described

    found = described(name)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for method, facts in found.items():
        typer.echo(method)
        settings = facts.pop("settings")
        for key, text in facts.items():
            typer.echo(f"  {key:<12} {text}")
        for setting, text in settings.items() if name else ():
            typer.echo(f"  method.{setting}: {text}")
    if name is None:
        typer.echo("\nsettings of one method: fuzzyseg methods NAME")
