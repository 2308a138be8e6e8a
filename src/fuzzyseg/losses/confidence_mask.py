"""Confidence mask as in FixMatch and its successors."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from fuzzyseg.losses.ablations import partial
from fuzzyseg.losses.base import local_mean, masked_mean
from fuzzyseg.losses.fpl.adaptive_threshold import Adaptive
from fuzzyseg.losses.fpl.threshold import Schedule
from fuzzyseg.losses.fpl.weight import weight_curve
from fuzzyseg.losses.pseudo_label import PixelLoss, PixelLossModule, fuzzy, hard
from fuzzyseg.ops.mix import Mixed

Confidence = Literal["keep", "drop", "gate"] | None

CONFIDENCE = (
    "Pixels that contribute to the loss. keep: only confident ones, as in the paper; drop: all; gate: confident ones "
    "if at least the fraction method.threshold of them is correct on held-out labels, else all (after CW-BASS v2); "
    "None: keep for the hard loss, else drop. If this threshold is at least T, confident pixels have K = 1, and FPL "
    "is weighted cross entropy."
)
"""Help text of `method.confidence`."""


class ConfidentPixels(nn.Module):
    """Average a pixel loss over confident pixels or over all pixels.

    threshold: tau, the minimum teacher probability of a confident pixel. mode: `keep` uses only confident pixels and
    `drop` uses all; None means keep for the hard loss, otherwise drop. `gate` depends on the buffer `reliable`: only
    confident pixels count if at least a fraction tau of them is correct on held-out labelled pixels; otherwise all do.
    The idea is from CW-BASS v2, arXiv 2608.12773; the rule is ours. The buffer is True until it is first set.
    """

    reliable: Tensor

    def __init__(self, mode: Confidence, threshold: float, pixel_loss: nn.Module | None) -> None:
        super().__init__()
        self.threshold = threshold
        self.mode = mode or ("keep" if getattr(pixel_loss, "function", None) is hard else "drop")
        if self.mode == "gate":
            self.register_buffer("reliable", torch.ones((), dtype=torch.bool))

    def forward(
        self,
        pixel_loss: Callable[..., PixelLoss],
        student: Tensor,
        teacher: Tensor | Mixed,
        valid: Tensor,
        progress: tuple[int, int],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss over the pixels in `valid` (B,H,W), counting masked ones as 0, and metrics to log."""
        result = pixel_loss(student, teacher, size=valid.shape[1:], valid=valid, progress=progress, maps=True)
        if self.mode == "drop":
            return masked_mean(result.loss, valid), result.stats
        assert result.confidence is not None
        confident = result.confidence >= self.threshold
        metrics = {**result.stats, "confident": local_mean(confident.float(), valid)}
        if self.mode == "gate":
            confident = confident | ~self.reliable
            metrics["reliable"] = self.reliable.float()
        return masked_mean(result.loss * confident.float(), valid), metrics

    def decide(self, confident: float, right: float) -> bool:
        """Set and return `reliable`, given the number of confident held-out pixels and of correct ones among them.

        It is False if no pixel is confident, since the mask would then exclude every pixel.
        """
        reliable = confident > 0 and right >= self.threshold * confident
        self.reliable.fill_(reliable)
        return reliable

    def notes(self, pixel_loss: nn.Module | None) -> list[str]:
        """Return messages that tell the user how the mask changes the loss."""
        if self.mode == "gate" and getattr(pixel_loss, "function", None) is hard:
            return ["method.confidence=gate with the loss hard: without the mask, every pixel is trained on one label"]
        return under_mask(pixel_loss, self.threshold) if self.mode == "keep" else []


def under_mask(loss: nn.Module | None, confidence: float) -> list[str]:
    """Return a note for the user if `loss` is cross entropy wherever the teacher's top probability is >= `confidence`.

    Up to the weight, this is the case for the fuzzy and partial-label losses if T <= confidence, since the top class
    alone then exceeds T, and no rule except a fixed K adds another. For a policy, T is the largest value known in
    advance.
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
    minimum = float(weight_curve(*p, kind=kind, a=a))
    but = "" if kind == "none" else f" except for a weight of {minimum:.3f} to 1"
    return [
        f"only pixels with a confidence of at least {confidence:g} are used, and with T = {largest:g} each of them has "
        f"one label: --loss {loss.function.__name__} is cross entropy{but}; to use all pixels, set method.threshold=0"
    ]
