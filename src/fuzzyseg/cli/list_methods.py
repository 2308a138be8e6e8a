"""Descriptions of the methods, from their own declarations."""

from __future__ import annotations

from typing import Any

from fuzzyseg.config import ConfigError, nearest
from fuzzyseg.config.reference import source_of, written
from fuzzyseg.methods import Method
from fuzzyseg.plugins import methods

_FPL = {
    "native": "native: replaces the paper's own pseudo labels",
    "variant": "a variant of ours: replaces a term without pseudo labels",
}


def described(name: str | None = None) -> dict[str, dict[str, Any]]:
    """Method -> paper, its own loss, use of FPL, networks, cost, state, and its settings with their help texts.

    name: only this method. Raises ConfigError if it is unknown.
    """
    known = methods()
    if name is not None and name not in known:
        raise ConfigError(f"method: found {name!r}.{nearest(name, known)}")
    return {each: _facts(method) for each, method in known.items() if name in (None, each)}


def _facts(method: type[Method]) -> dict[str, Any]:
    own = method.paper_loss
    settings = {}
    for key, field in method.Config.model_fields.items():
        source = source_of(field)
        settings[key] = (
            f"{field.description}{f' Source: {source}.' if source else ''} [default: {written(field.default)}]"
        )
    return {
        "paper": method.paper,
        "paper's loss": own[0] if own else "none of the pixel losses",
        "fuzzy": method.refuses.get("fuzzy") or _FPL[method.fuzzy],
        "networks": f"{method.learners}, each trained from its own initial weights",
        "cost": method.cost,
        "keeps": method.keeps,
        "settings": settings,
    }
