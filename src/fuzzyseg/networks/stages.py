"""What a method may need of a network beyond its logits: the three stages apart."""

from __future__ import annotations

from torch import nn

STAGES = ("encode", "decode", "classify")


def check_stages(network: nn.Module, method: str) -> None:
    """Raises ValueError, which names the method, where the network does not offer its three stages apart."""
    missing = [stage for stage in STAGES if not callable(getattr(network, stage, None))]
    if missing:
        raise ValueError(
            f"network: {method} works on features, but {type(network).__name__} has no {', '.join(missing)}; give it "
            "`encode` (image -> list of feature maps), `decode` (that -> one map) and `classify` (that -> logits), "
            "with forward the three in a row, or choose a method that needs logits alone"
        )
