"""The plan of `compare`: one configuration per method and loss."""

from collections.abc import Sequence
from typing import Any

from fuzzyseg import plugins
from fuzzyseg.config import ConfigError
from fuzzyseg.config.plan import Plan

REFERENCE = "supervised paper"
"""The configuration that all others are compared with: training on the labelled images only."""


def comparison(methods: Sequence[str], losses: Sequence[str]) -> tuple[Plan, list[str]]:
    """Build a plan with one configuration per method and loss. Also returns notes on omitted ones.

    Supervised training is always included as the reference. A method's published loss is run only once, as
    `paper`. Differences: each configuration minus the reference, and fuzzy minus hard (or `paper`, if that is the
    hard loss) for each method. The plan states where FPL is our own variant. Raises ConfigError if no loss applies to
    any method; supervised training alone is valid.
    """
    known = plugins.methods()
    arms: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    losses_apart: list[tuple[str, str]] = []
    masked: list[str] = []
    for name in methods:
        if name == "supervised":  # the reference has no pseudo labels
            continue
        method, slots = known[name], {}
        for loss in losses:
            if loss in method.refuses:
                notes.append(f"{name} with {loss}: {method.refuses[loss]}")
            elif method.paper_loss == (loss, {}) and "paper" in losses:
                slots[loss] = f"{name} paper"
                notes.append(f"{name} with {loss}: is its paper's loss, run once as 'paper'")
            else:
                slots[loss] = f"{name} {loss}"
                arms[slots[loss]] = {"method": {"name": name}, "loss": {"name": loss}}
        if "fuzzy" in slots and "hard" in slots:
            losses_apart.append((slots["fuzzy"], slots["hard"]))
            fields = method.Config.model_fields  # by default, the confidence mask applies to the hard loss only
            if "confidence" in fields and "threshold" in fields and fields["confidence"].default is None:
                masked += [name] if fields["threshold"].default > 0 else []
    if notes and not arms:
        raise ConfigError("nothing left to compare: " + "; ".join(notes))
    arms = {REFERENCE: {"method": {"name": "supervised"}, "loss": {"name": "paper"}}, **arms}
    pairs = [*((arm, REFERENCE) for arm in arms if arm != REFERENCE), *losses_apart]
    texts = [
        "Each method with each pseudo-label loss. `supervised` trains only on the labelled images, for the same "
        "number of steps: a difference from it is the gain from the unlabelled images."
    ]
    ours = [name for name in methods if known[name].fuzzy == "variant" and f"{name} fuzzy" in arms]
    if ours:
        texts.append(f"FPL in {', '.join(ours)} is our variant: the paper's loss has no pseudo labels.")
    if masked:
        both = (
            f"{', '.join(masked)}: the hard loss uses only confident pixels and the fuzzy loss all pixels, so "
            "differences show both changes; a plan with method.confidence=drop for both isolates the loss."
        )
        texts.append(both)
        notes.append(both)
    plan = Plan(title="Methods and losses", about=" ".join(texts), arms=arms, pairs=pairs)
    return plan, notes
