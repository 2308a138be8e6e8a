"""The plan of `compare`: an arm for each method and loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fuzzyseg.config import ConfigError, nearest
from fuzzyseg.config.plan import Plan
from fuzzyseg.plugins import losses as known_losses
from fuzzyseg.plugins import methods as known_methods


def comparison(methods: Sequence[str], losses: Sequence[str]) -> tuple[Plan, list[str]]:
    """A plan with an arm for each method and loss, and sentences on what was left out and why.

    A loss that a paper itself uses is run once, as `paper`. Differences: fuzzy minus hard (or `paper`, if that is the
    hard loss) in each method. The plan says where FPL is a variant of ours. Raises ConfigError for an unknown name or
    if no arm is left.
    """
    arms: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    pairs: list[tuple[str, str]] = []
    masked: list[str] = []
    for method in methods:
        if method not in known_methods():
            raise ConfigError(f"--methods: found {method!r}.{nearest(method, known_methods())}")
        slots = {}
        for loss in losses:
            if loss not in ("paper", *known_losses()):
                raise ConfigError(f"--loss: found {loss!r}.{nearest(loss, ['paper', *known_losses()])}")
            slots[loss] = f"{method} {loss}"
            own = known_methods()[method].paper_loss
            if loss in known_methods()[method].refuses:
                notes.append(f"{method} with {loss}: {known_methods()[method].refuses[loss]}")
                del slots[loss]
            elif own == (loss, {}) and "paper" in losses:
                slots[loss] = f"{method} paper"
                notes.append(f"{method} with {loss}: is its paper's loss, run once as 'paper'")
            else:
                arms[slots[loss]] = {"method": {"name": method}, "loss": {"name": loss}}
        if "fuzzy" in slots and "hard" in slots:
            pairs.append((slots["fuzzy"], slots["hard"]))
            if _mask_follows_the_loss(method):
                masked.append(method)
    if not arms:
        raise ConfigError("nothing to compare is left: " + "; ".join(notes))
    about = ["Each method with each pseudo-label loss in the same slot."]
    ours = [m for m in methods if known_methods()[m].fuzzy == "variant" and f"{m} fuzzy" in arms]
    if ours:
        about.append(f"FPL in {', '.join(ours)} is a variant of ours: there are no pseudo labels in the paper's term.")
    if masked:
        both = (
            f"{', '.join(masked)}: with the hard loss confident pixels alone teach, with the fuzzy one all do, so that "
            "differences show both changes; a plan with method.confidence=drop for both shows the loss alone."
        )
        about.append(both)
        notes.append(both)
    plan = Plan(title="Methods and losses", about=" ".join(about), arms=arms, pairs=pairs)
    return plan, notes


def _mask_follows_the_loss(method: str) -> bool:
    """Whether the method's confidence mask by default applies to the hard loss only."""
    fields = known_methods()[method].Config.model_fields
    if "confidence" not in fields or "threshold" not in fields:
        return False
    return fields["confidence"].default is None and fields["threshold"].default > 0
