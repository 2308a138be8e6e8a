"""`fuzzyseg methods`: list the methods. Also provides method and loss names without importing torch."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fuzzyseg.cli.options import Import, Json
from fuzzyseg.config import check_known
from fuzzyseg.config.reference import description, written

if TYPE_CHECKING:
    from fuzzyseg.methods import Method

LISTING = Path(__file__).with_suffix(".json")
"""Descriptions of the built-in methods, stored by `write_listing`, because importing their classes imports torch."""

_FPL = {
    "native": "native: replaces the paper's pseudo labels",
    "variant": "our variant: replaces a term that uses no pseudo labels",
}


LOSSES = {
    "paper": "the loss of the method's paper",
    "hard": "cross entropy on the teacher's most probable class",
    "soft": "cross entropy against the teacher's probabilities",
    "fuzzy": "Fuzzy Positive Learning (FPL)",
    "negative": "negative learning on the classes outside FPL's set (ablation)",
    "partial": "partial-label loss over FPL's set (ablation)",
    "thresholded": "cross entropy on pixels whose most probable class is confident",
}
"""Names of the pseudo-label losses, available without importing torch."""

_OTHER_NAMES = {"fpl": "fuzzy", "a-fpl": "fuzzy loss.threshold=adaptive"}


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A method or a pseudo-label loss.")] = None,
    as_json: Json = False,
    imports: Import = None,
) -> None:
    """List the methods, or all settings of one method.

    Shows the paper, how FPL applies, the cost of a step, and the state between steps.

    \b
    Examples:
      fuzzyseg methods
      fuzzyseg methods cps
    """
    listing, _ = known(imports)
    if name is not None:
        words = _OTHER_NAMES.get(name.lower(), name)
        loss, _, _ = words.partition(" ")
        if loss in LOSSES:
            without = [method for method, shown in listing.items() if shown["fuzzy"].startswith("does not apply")]
            description = {
                "loss": f"{LOSSES[loss]}; a pseudo-label loss, not a method",
                "use": f"--loss {words}, with any method except {' and '.join(without)}",
                "example": f"fuzzyseg train --data photos --loss {words} --out runs/{loss}",
                "more": "fuzzyseg settings loss; docs/losses.md",
            }
            listing = {name: {**description, "settings": {}}}
        else:
            check_known("method", name, [*listing, *LOSSES, *_OTHER_NAMES])
            listing = {name: listing[name]}
    if as_json:
        typer.echo(json.dumps(listing, indent=2, ensure_ascii=False))
        return
    for method, shown in listing.items():
        typer.echo(method)
        settings = shown.pop("settings")
        for key, text in shown.items():
            typer.echo(f"  {key:<12} {text}")
        for setting, text in settings.items() if name else ():
            typer.echo(f"  method.{setting}: {text}")
    if name is None:
        typer.echo("\nsettings of one method: fuzzyseg methods NAME; which one to choose: docs/which-settings.md")


def known(imports: list[Path] | None) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the descriptions of all methods, by name, and all loss names. Imports custom methods and losses."""
    listing: dict[str, dict[str, Any]] = json.loads(LISTING.read_text(encoding="utf-8"))
    if not imports and not any(entry_points(group=f"fuzzyseg.{kind}") for kind in ("methods", "losses")):
        return listing, list(LOSSES)
    from fuzzyseg import plugins

    listing |= {name: facts(method) for name, method in plugins.methods().items() if name not in listing}
    return listing, ["paper", *plugins.losses()]


def facts(method: type[Method]) -> dict[str, Any]:
    """Return the description of a method, as shown by `fuzzyseg methods`."""
    paper_loss, fields = method.paper_loss, method.Config.model_fields
    settings = {key: f"{description(field)} [default: {written(field.default)}]" for key, field in fields.items()}
    return {
        "paper": method.paper,
        "paper's loss": paper_loss[0] if paper_loss else "none of the pixel losses",
        "fuzzy": method.refuses.get("fuzzy") or _FPL[method.fuzzy],
        "networks": f"{method.learners}, with one set of initial weights each",
        "cost": method.cost,
        "keeps": method.keeps,
        "settings": settings,
    }


def write_listing() -> None:
    """Write `LISTING` from the method classes."""
    from fuzzyseg.methods import METHODS

    listing = {name: facts(method) for name, method in METHODS.items()}
    LISTING.write_text(json.dumps(listing, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
