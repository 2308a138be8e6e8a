"""AEL's banks: the confidence in each class, and the images that contain it. The banks are identical on every process.

H. Hu et al., NeurIPS 2021 (Eq. 4, 7).
"""

import torch
from torch import Tensor

from fuzzyseg.ops import distributed


def class_confidence(logits: Tensor, mask: Tensor) -> Tensor:
    """Return each class's probability, summed over its pixels, and its number of pixels: (2,C), fp32.

    logits (B,C,H,W), without gradient; mask (B,H,W) int64, in which values that are not classes (255) are ignored.
    """
    classes = logits.shape[1]
    with torch.no_grad():
        known = (mask >= 0) & (mask < classes)
        label = torch.where(known, mask, 0)
        true = torch.softmax(logits.float(), 1).gather(1, label.unsqueeze(1)).squeeze(1)
        both = torch.stack([torch.where(known, true, 0), known.float()]).flatten(1)  # (2,B*H*W)
        return both.new_zeros(2, classes).scatter_add_(1, label.flatten().expand(2, -1), both)


def moved(bank: Tensor, sums: Tensor, decay: float, *, absent: bool) -> Tensor:
    """Return the bank (C,) after an EMA update with each class's mean confidence over the pixels of all processes.

    bank (C,); sums (2,C): this process's result of `class_confidence`. A class without pixels counts as 0 if `absent`
    is true; otherwise its value is kept.
    """
    total, count = distributed.mean(sums)  # a ratio of means equals the ratio of sums
    moved = bank * decay + (1 - decay) * total / count.clamp(min=torch.finfo(count.dtype).tiny)
    return moved if absent else torch.where(count > 0, moved, bank)


def area_of_classes(labels: Tensor, classes: int) -> Tensor:
    """Count the pixels of each class in each image: (B,C), fp32. labels (B,H,W) int64; other values are ignored."""
    known = ((labels >= 0) & (labels < classes)).flatten(1)
    index = torch.where(known, labels.flatten(1), 0)
    return known.new_zeros(len(labels), classes, dtype=torch.float32).scatter_add_(1, index, known.float())


def noted(bank: Tensor, index: Tensor, shows: Tensor) -> Tensor:
    """Return `bank` (C,N) bool, class by image, with the columns of the images seen on any process updated.

    index (B,): indices of the images seen on this process; shows (B,C) bool: the classes in each of them. An image seen
    twice gets the union of its classes.
    """
    index, shows = distributed.gather(index), distributed.gather(shows)
    seen = torch.zeros_like(bank[0], dtype=torch.float32).index_fill(0, index, 1) > 0
    present = torch.zeros_like(bank, dtype=torch.float32).index_add(1, index, shows.T.float()) > 0
    return torch.where(seen, present, bank)
