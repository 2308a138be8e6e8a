"""What is known of each class: how sure the network is of it, and which images show it. Equal on every process.

H. Hu et al., "Semi-Supervised Semantic Segmentation via Adaptive Equalization Learning", NeurIPS 2021 (Eq. 4, 7).
"""

from __future__ import annotations

import torch
from torch import Tensor

from fuzzyseg.ops import distributed


def class_confidence(logits: Tensor, mask: Tensor) -> Tensor:
    """Over the pixels of each class: the sum of the probability of that class, and their number. (2,C), fp32.

    logits (B,C,H,W), without gradient here; mask (B,H,W) int64, where a value that is no class (255) does not count.
    """
    classes = logits.shape[1]
    with torch.no_grad():
        known = (mask >= 0) & (mask < classes)
        label = torch.where(known, mask, 0)
        true = torch.softmax(logits.float(), 1).gather(1, label.unsqueeze(1)).squeeze(1)
        both = torch.stack([torch.where(known, true, 0), known.float()]).flatten(1)  # (2,B*H*W)
        return both.new_zeros(2, classes).scatter_add_(1, label.flatten().expand(2, -1), both)


def moved(bank: Tensor, sums: Tensor, decay: float, *, absent: bool) -> Tensor:
    """decay * bank + (1 - decay) * the mean confidence of each class over the pixels of all processes: (C,).

    bank (C,); sums (2,C) of `class_confidence`, of this process. A class of which there is no pixel counts as 0 if
    `absent`, and else stays as it is.
    """
    total, count = distributed.mean(sums)  # the mean over the processes: the quotient is that of the sums
    moved = bank * decay + (1 - decay) * total / count.clamp(min=torch.finfo(count.dtype).tiny)
    return moved if absent else torch.where(count > 0, moved, bank)


def area_of_classes(labels: Tensor, classes: int) -> Tensor:
    """How many pixels of each class each image has: (B,C), fp32. labels (B,H,W) int64; no class does not count."""
    known = ((labels >= 0) & (labels < classes)).flatten(1)
    index = torch.where(known, labels.flatten(1), 0)
    return known.new_zeros(len(labels), classes, dtype=torch.float32).scatter_add_(1, index, known.float())


def noted(bank: Tensor, index: Tensor, shows: Tensor) -> Tensor:
    """`bank` (C,N) bool, class by image, after images were seen anew on any process; what is not seen stays.

    index (B,) places of the images seen on this process; shows (B,C) bool, which classes each showed. An image that was
    seen twice shows what it showed either time.
    """
    index = distributed.gather(index)
    shows = distributed.gather(shows.float())
    seen = torch.zeros_like(bank[0], dtype=torch.float32).index_fill(0, index, 1) > 0
    found = torch.zeros_like(bank, dtype=torch.float32).index_add(1, index, shows.T) > 0
    return torch.where(seen, found, bank)
