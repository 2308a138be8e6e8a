"""What there is to say of each method, from its own declarations."""

from __future__ import annotations

from typing import Any

from fuzzyseg.config import ConfigError, nearest
from fuzzyseg.config.reference import source_of, written
from fuzzyseg.methods import METHODS, Method

_PLUGS = {
    "native": "native: in the place of the paper's own pseudo labels",
    "variant": "a variant of ours: in the place of a term that has no pseudo labels",
}


def described(name: str | None = None) -> dict[str, dict[str, Any]]:
    """Method -> paper, its own loss, how FPL applies, networks, cost, keeps, and its settings with their help texts.

    name: only this one. Raises ConfigError where there is none of that name.
    """
    if name is not None and name not in METHODS:
        raise ConfigError(f"method: found {name!r}.{nearest(name, METHODS)}")
    return {each: _facts(method) for each, method in METHODS.items() if name in (None, each)}


def _facts(method: type[Method]) -> dict[str, Any]:
    own = method.paper_loss
    starts = "a start of its own" if method.learners == 1 else "starts of their own"
    settings = {}
    for key, field in method.Config.model_fields.items():
        source = source_of(field)
        settings[key] = (
            f"{field.description}{f' Source: {source}.' if source else ''} [default: {written(field.default)}]"
        )
    return {
        "paper": method.paper,
        "paper's loss": own[0] if own else "none of the pixel losses",
        "fuzzy": _PLUGS.get(method.fuzzy) or method.refuses["fuzzy"],
        "networks": f"{method.learners} trained from {starts}",
        "cost": method.cost,
        "keeps": method.keeps,
        "settings": settings,
    }
