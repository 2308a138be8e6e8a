"""Checks of the networks that a method is given."""

from __future__ import annotations

import torch
from torch import nn

STAGES = ("encode", "decode", "classify")


def check_stages(network: nn.Module, method: str) -> None:
    """Raise ValueError if the network lacks one of the methods `encode`, `decode` and `classify`."""
    missing = [stage for stage in STAGES if not callable(getattr(network, stage, None))]
    if missing:
        raise ValueError(
            f"network: {method} works on features, but {type(network).__name__} has no {', '.join(missing)}; add "
            "`encode` (image -> list of feature maps), `decode` (feature maps -> one map) and `classify` (map -> "
            "logits), with forward their composition, or choose a method that needs only logits"
        )


def check_different(first: nn.Module, second: nn.Module, method: str) -> None:
    """Raise ValueError if two networks that teach each other have equal weights."""
    if all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)):
        raise ValueError(
            f"the two networks of {method} start from equal weights and would teach each other nothing: "
            "give two files trained from different seeds (--init FILE,FILE)"
        )
