"""Losses on labelled pixels: cross entropy (with OHEM, class weights and label smoothing) and Dice."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuzzyseg.losses.base import at_size, check_logits, full_precision, masked_mean

VOID = 255
"""Mask value of void pixels inside the package; files may use a different value."""


def cross_entropy_map(logits: Tensor, mask: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Return each pixel's cross entropy (B,H,W), 0 at void pixels. logits (B,C,H,W); mask (B,H,W) int64, 255 is void.

    label_smoothing: fraction of the target that is distributed evenly over all classes.
    """
    return F.cross_entropy(logits, mask, ignore_index=VOID, reduction="none", label_smoothing=label_smoothing)


def ohem_keep(logits: Tensor, mask: Tensor, *, threshold: float, min_kept: int) -> Tensor:
    """Select pixels by online hard example mining: (B,H,W) bool, False at void pixels, without gradient.

    A pixel is selected if the probability of its true class is at most max(threshold, the min_kept-th smallest in this
    process's batch), or if the batch has fewer than min_kept non-void pixels. logits (B,C,H,W); mask (B,H,W), 255 is
    void. A. Shrivastava, A. Gupta, R. Girshick, "Training region-based object detectors with online hard example
    mining", CVPR 2016, in the pixel-wise form used by CPS, AEL and U2PL. A NaN probability is also selected, so that it
    shows up in the loss.
    """
    with torch.no_grad():
        known = mask != VOID
        true = torch.softmax(logits, 1).gather(1, torch.where(known, mask, 0).unsqueeze(1)).squeeze(1)
        q = torch.where(known, true, 1)
        limit = q.flatten().sort().values[min(max(min_kept, 1), q.numel()) - 1].clamp(min=threshold)
        few = known.sum() < min_kept
        return known & ((~(q > limit)) | few)


def dice_loss(logits: Tensor, mask: Tensor, *, smooth: float = 1.0) -> Tensor:
    """Return 1 minus the soft Dice coefficient, averaged over the classes present: 0-dim; 0 if all pixels are void.

    The coefficient of a class is (2 sum(p y) + smooth) / (sum(p) + sum(y) + smooth), summed over the non-void pixels of
    this process's batch. logits (B,C,H,W); mask (B,H,W), 255 is void. After F. Milletari, N. Navab, S.-A. Ahmadi,
    "V-Net", 3DV 2016, without the squares in the denominator.
    """
    known = mask != VOID
    label = torch.where(known, mask, 0)
    p = torch.softmax(logits, 1)
    true = torch.where(known, p.gather(1, label.unsqueeze(1)).squeeze(1), 0)
    classes = logits.shape[1]
    both = p.new_zeros(classes).scatter_add(0, label.flatten(), true.flatten())
    count = p.new_zeros(classes).scatter_add(0, label.flatten(), known.flatten().to(p.dtype))
    predicted = torch.where(known.unsqueeze(1), p, 0).sum((0, 2, 3))
    dice = 1 - (2 * both + smooth) / (predicted + count + smooth)
    return torch.where(count > 0, dice, 0).sum() / (count > 0).sum().clamp(min=1)


class SupervisedLoss(nn.Module):
    """Loss on labelled images: a scalar from logits (B,C,h,w) at any stride and mask (B,H,W) int64.

    name: `ce`, or `ohem` with ohem_threshold in [0, 1] and ohem_min_kept pixels *per image*. class_weights: one per
    class, used as weights of the mean. label_smoothing: in [0, 1). dice: weight of an additional Dice loss. The
    configuration validates these ranges. 255 is void; a batch with only void pixels gives 0. Each process computes its
    own OHEM ranking and Dice sums, as published; means are over the global batch.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        name: Literal["ce", "ohem"] = "ce",
        *,
        ohem_threshold: float = 0.7,
        ohem_min_kept: int = 50_000,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        dice: float = 0.0,
    ) -> None:
        super().__init__()
        self.name = name
        self.ohem_threshold = ohem_threshold
        self.ohem_min_kept = ohem_min_kept
        self.label_smoothing = label_smoothing
        self.dice = dice
        weights = None if class_weights is None else torch.tensor(list(class_weights), dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Compute the loss. Raises ValueError if the shapes or the number of class weights do not match."""
        check_logits("logits", logits)
        if logits.dim() != 4 or mask.dim() != 3 or len(mask) != len(logits):
            shapes = f"logits {tuple(logits.shape)}, mask {tuple(mask.shape)}"
            raise ValueError(f"found {shapes}; expected the shapes (B,C,h,w) and (B,H,W)")
        if self.class_weights is not None and len(self.class_weights) != logits.shape[1]:
            raise ValueError(f"class_weights: found {len(self.class_weights)} for {logits.shape[1]} classes")
        with full_precision(logits.device):
            logits = at_size(logits, mask.shape[1:])
            valid = mask != VOID
            if self.name == "ohem":
                min_kept = self.ohem_min_kept * len(mask)
                valid = ohem_keep(logits, mask, threshold=self.ohem_threshold, min_kept=min_kept)
            if self.class_weights is not None:
                valid = self.class_weights[torch.where(valid, mask, 0)] * valid
            loss = masked_mean(cross_entropy_map(logits, mask, label_smoothing=self.label_smoothing), valid)
            return loss + self.dice * dice_loss(logits, mask) if self.dice else loss

    def extra_repr(self) -> str:
        """Return the name and options."""
        weights = None if self.class_weights is None else len(self.class_weights)
        return (
            f"{self.name!r}, ohem_threshold={self.ohem_threshold}, ohem_min_kept={self.ohem_min_kept}, "
            f"class_weights={weights}, label_smoothing={self.label_smoothing}, dice={self.dice}"
        )
