"""`fuzzyseg methods`: the methods that can be trained."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fuzzyseg.config import ConfigError, nearest
from fuzzyseg.config.reference import written

if TYPE_CHECKING:
    from fuzzyseg.methods import Method

_FUZZY = {
    "native": "native: in the place of the paper's own pseudo labels",
    "variant": "a variant of ours: in the place of a term that has no pseudo labels",
}


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One method, with its settings.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the methods, or all settings of one.

    Shows for each the paper, how FPL applies, the cost of a step and the state it keeps.

    \b
    Examples:
      fuzzyseg methods
      fuzzyseg methods cps
    """
    from fuzzyseg.methods import METHODS  # imports torch

    if name is not None and name not in METHODS:
        raise ConfigError(f"method: found {name!r}.{nearest(name, METHODS)}")
    found = {each: _facts(method) for each, method in METHODS.items() if name in (None, each)}
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
        typer.echo("\nall settings of one: fuzzyseg methods NAME")


def _facts(method: type[Method]) -> dict[str, Any]:
    """Paper, its own loss, how FPL applies, networks, cost, state and settings of a method."""
    own = method.paper_loss
    starts = "a start of its own" if method.learners == 1 else "starts of their own"
    settings = {
        key: f"{field.description} [default: {written(field.default)}]"
        for key, field in method.Config.model_fields.items()
    }
    return {
        "paper": method.paper,
        "paper's loss": own[0] if own else "none of the pixel losses",
        "fuzzy": _FUZZY.get(method.fuzzy) or method.refuses["fuzzy"],
        "networks": f"{method.learners} trained from {starts}",
        "cost": method.cost,
        "keeps": method.keeps,
        "settings": settings,
    }
