"""What a loss over sets is where confident pixels alone teach."""

from __future__ import annotations

import torch
from torch import nn

from fuzzyseg.losses.ablations import partial
from fuzzyseg.losses.fpl.adaptive_threshold import Adaptive
from fuzzyseg.losses.fpl.threshold import Schedule
from fuzzyseg.losses.fpl.weight import weight_curve
from fuzzyseg.losses.modules import PixelLossModule
from fuzzyseg.losses.pseudo_label import fuzzy


def under_mask(loss: nn.Module | None, confidence: float) -> list[str]:
    """A sentence, if `loss` is cross entropy wherever the teacher's largest probability is at least `confidence`.

    The fuzzy and the partial-label loss are, but for the weight, as long as T does not exceed it: the first class alone
    passes T then, whatever the rule (a fixed K excepted). A policy counts with the largest T that is known beforehand.
    """
    if not isinstance(loss, PixelLossModule) or loss.function not in (fuzzy, partial):
        return []
    if isinstance(loss.options.get("rule"), int):
        return []
    largest = float(loss.threshold.max())
    if isinstance(loss.policy, Schedule):
        largest = max(loss.policy.start, loss.policy.end)
    elif isinstance(loss.policy, Adaptive):
        largest = max(loss.policy.candidates)
    if largest > confidence + 1e-6:  # the buffer is fp32
        return []
    kind, a = loss.options.get("weight", "concave"), loss.options.get("a", 50.0)
    p = torch.tensor([confidence, 1 - confidence], dtype=torch.float64)
    least = float(weight_curve(*p, kind=kind, a=a))
    but = "" if kind == "none" else f" but for a weight of {least:.3f} to 1"
    return [
        f"only pixels with a confidence of {confidence:g} or more teach, and with T = {largest:g} each of them has one "
        f"label: --loss {loss.function.__name__} is cross entropy{but}; method.threshold=0 lets all pixels teach"
    ]
