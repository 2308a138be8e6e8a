"""Which pixels teach in the methods with a confidence threshold (FixMatch and its successors)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fuzzyseg.losses.masking_note import under_mask
from fuzzyseg.losses.pseudo_label import PixelLoss, hard
from fuzzyseg.losses.reduction import local_mean, masked_mean

Confidence = Literal["keep", "drop", "gate"] | None

CONFIDENCE = (
    "keep: confident pixels alone teach (paper); drop: all (ours); gate: confident ones while at least "
    "method.threshold of them are right on held-back labels, else all (the idea is CW-BASS v2's); None: keep with "
    "hard, else drop. From .95 on, for T up to .95, K is 1 and the weight at least .986: FPL is cross entropy but for "
    "that."
)
"""Help text of the setting."""


class ConfidentPixels(nn.Module):
    """The mean of a pixel loss in which confident pixels alone count, all do, or a reliability gate decides.

    threshold: tau, the confidence from which on a pixel is confident. which: `keep` lets these alone teach, `drop` all,
    None is keep where pixel_loss is the hard loss, else drop.

    `gate`: a mask of confident pixels rests on the confidence being true. From labelled pixels that were held back,
    the share right among the confident ones is measured; where it is at least tau, the buffer `reliable` is True and
    they alone teach, else all pixels do, over a set loss by their sets and weights. The idea is that of CW-BASS v2,
    arXiv 2608.12773; the rule is ours. True until it is first measured.
    """

    reliable: Tensor

    def __init__(self, which: Confidence, threshold: float, pixel_loss: nn.Module | None) -> None:
        super().__init__()
        self.threshold = threshold
        self.which = which or ("keep" if getattr(pixel_loss, "function", None) is hard else "drop")
        if self.which == "gate":
            self.register_buffer("reliable", torch.ones((), dtype=torch.bool))

    def forward(self, found: PixelLoss, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean over all valid pixels, those that do not teach counting as 0, and what is logged.

        found: with maps (B,H,W); valid (B,H,W).
        """
        if self.which == "drop":
            return masked_mean(found.loss, valid), found.stats
        assert found.confidence is not None
        teaches = found.confidence >= self.threshold
        metrics = {**found.stats, "confident": local_mean(teaches.float(), valid)}
        if self.which == "gate":
            teaches = teaches | ~self.reliable
            metrics["reliable"] = self.reliable.float()
        return masked_mean(found.loss * teaches.float(), valid), metrics

    def decide(self, confident: float, right: float) -> bool:
        """Sets and returns `reliable` for a gate, from how many held-back pixels were confident, and right of these.

        False where none was confident: a mask would leave nothing to learn from.
        """
        reliable = confident > 0 and right >= self.threshold * confident
        self.reliable.fill_(reliable)
        return reliable

    def notes(self, pixel_loss: nn.Module | None) -> list[str]:
        """Sentences on what the mask makes of the loss."""
        if self.which == "gate" and getattr(pixel_loss, "function", None) is hard:
            return ["method.confidence=gate with the loss hard: where all pixels teach they do by one label each"]
        return under_mask(pixel_loss, self.threshold) if self.which == "keep" else []
