"""`fuzzyseg methods`: list the methods, from their own declarations."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fuzzyseg.cli.options import Import, Json
from fuzzyseg.config import ConfigError, nearest
from fuzzyseg.config.reference import description, written

if TYPE_CHECKING:
    from fuzzyseg.methods import Method

LISTING = Path(__file__).with_suffix(".json")
"""What fuzzyseg's own methods declare, in a file, because their classes import torch; `write_listing` makes it."""

_FPL = {
    "native": "native: replaces the paper's own pseudo labels",
    "variant": "a variant of ours: replaces a term without pseudo labels",
}


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One method, with its settings.")] = None,
    as_json: Json = False,
    imports: Import = None,
) -> None:
    """List the methods, or all settings of one.

    Shows the paper, how FPL applies, the cost of a step, and the state between steps.

    \b
    Examples:
      fuzzyseg methods
      fuzzyseg methods cps
    """
    found = json.loads(LISTING.read_text(encoding="utf-8"))
    if imports or entry_points(group="fuzzyseg.methods"):
        from fuzzyseg.plugins import methods as known_methods

        found |= {each: facts(method) for each, method in known_methods().items() if each not in found}
    if name is not None:
        if name not in found:
            raise ConfigError(f"method: found {name!r}.{nearest(name, found)}")
        found = {name: found[name]}
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for method, shown in found.items():
        typer.echo(method)
        settings = shown.pop("settings")
        for key, text in shown.items():
            typer.echo(f"  {key:<12} {text}")
        for setting, text in settings.items() if name else ():
            typer.echo(f"  method.{setting}: {text}")
    if name is None:
        typer.echo("\nsettings of one method: fuzzyseg methods NAME")


def facts(method: type[Method]) -> dict[str, Any]:
    """What a method declares, as it is listed."""
    own = method.paper_loss
    settings = {
        key: f"{description(field)} [default: {written(field.default)}]"
        for key, field in method.Config.model_fields.items()
    }
    return {
        "paper": method.paper,
        "paper's loss": own[0] if own else "none of the pixel losses",
        "fuzzy": method.refuses.get("fuzzy") or _FPL[method.fuzzy],
        "networks": f"{method.learners}, each trained from its own initial weights",
        "cost": method.cost,
        "keeps": method.keeps,
        "settings": settings,
    }


def write_listing() -> None:
    """Write `LISTING` from the classes."""
    from fuzzyseg.methods import METHODS

    found = {name: facts(method) for name, method in METHODS.items()}
    LISTING.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
