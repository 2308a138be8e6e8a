"""A threshold for every pixel, chosen by its neighbourhood: the T-value adaption of A-FPL.

P. Qiao, Y. Wang, C. Liu, L. Shang, B. Sun, Z. Wang, X. Zheng, R. Ji, J. Chen, "Adaptive Fuzzy Positive Learning for
Annotation-Scarce Semantic Segmentation", IJCV 2025. Each of a few candidates gives every pixel a fuzzy set; the pixel
takes the candidate whose set explains best which classes lie in the window around it. Object boundaries and noisy
regions take a large T, homogeneous ones a small T. The only code that the authors released is for source-free domain
adaptation; what we do here is that choice, carried over to this setting (see `adaptive_threshold`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.losses.base import at_least_fp32, check_logits, full_precision
from fuzzyseg.losses.fpl.assignment import assign
from fuzzyseg.losses.fpl.options import FPLOptions, Rule, Variant
from fuzzyseg.ops.mix import Mixed


class Adaptive(NamedTuple):
    """What the choice depends on.

    candidates: thresholds in (0, 1], the smallest first; the first of those that explain a pixel equally well is taken.
    window: side of the square around the pixel, odd, from 3. epsilon: added to every density; the smaller it is, the
    worse is a neighbour whose class the pixel's set lacks (by -log epsilon), the rarer a small T.
    """

    candidates: tuple[float, ...] = (0.85, 0.9, 0.95)
    window: int = 5
    epsilon: float = 1e-6

    def check(self) -> None:
        """ValueError naming the option, the value found and what is allowed."""
        rising = all(low <= high for low, high in zip(self.candidates, self.candidates[1:], strict=False))
        if not self.candidates or not rising or not all(0 < value <= 1 for value in self.candidates):
            raise ValueError(
                f"candidates: found {list(self.candidates)}, expected thresholds in (0, 1], the smallest first"
            )
        if self.window < 3 or self.window % 2 == 0:
            raise ValueError(f"window: found {self.window}, expected an odd number from 3")
        if not 0 < self.epsilon < 1:
            raise ValueError(f"epsilon: found {self.epsilon}, expected a small number above 0, such as 1e-6")


def adaptive_threshold(
    teacher_logits: Tensor,
    *,
    candidates: Sequence[float] = Adaptive().candidates,
    window: int = Adaptive().window,
    epsilon: float = Adaptive().epsilon,
    k_cap: int | None = None,
    rule: Rule = "n-1",
    variant: Variant = "paper",
) -> Tensor:
    """The threshold of every pixel, one of `candidates`: (B,H,W) from (B,C,H,W), without gradient.

    For each candidate: the fuzzy set by k_cap, rule and variant (`fuzzy_membership`), and how badly it explains the
    window (`neighbourhood_divergence`). The smallest divergence wins, the first candidate among equals. Give the logits
    at the network's own stride: up-sampled, a window holds little but copies of its centre. The window takes in
    padding; at the border of the image it is smaller. Raises ValueError for wrong shapes and options.
    """
    Adaptive(tuple(candidates), window, epsilon).check()
    options = FPLOptions(k_cap=k_cap, rule=rule, variant=variant)
    check_logits("teacher_logits", teacher_logits)
    if teacher_logits.dim() != 4:
        raise ValueError(f"teacher_logits: found shape {tuple(teacher_logits.shape)}, expected (B,C,H,W)")
    with torch.no_grad(), full_precision(teacher_logits.device):
        teacher = at_least_fp32(teacher_logits)
        best = torch.full_like(teacher[:, 0], candidates[0])
        smallest: Tensor | None = None
        for candidate in candidates:
            found = assign(teacher, candidate, options)
            divergence = neighbourhood_divergence(found.membership().to(teacher.dtype), window=window, epsilon=epsilon)
            if smallest is None:
                smallest = divergence
                continue
            better = divergence < smallest
            best = torch.where(better, candidate, best)
            smallest = torch.where(better, divergence, smallest)
        return best


def neighbourhood_divergence(membership: Tensor, *, window: int, epsilon: float) -> Tensor:
    """KL(neighbours || pixel) of the class densities: (B,H,W) from memberships (B,C,H,W) in [0, 1].

    The pixel's density is epsilon plus its memberships over their sum; the neighbours' is epsilon plus the memberships
    in the window around it, itself left out and nothing beyond the border, over the sum of these. Neither is
    normalised again, as in the authors' code: compare values, do not read them. A pixel without neighbours gets 0.
    """
    own = membership / membership.sum(1, keepdim=True) + epsilon
    boxes = F.avg_pool2d(membership, window, stride=1, padding=window // 2, divisor_override=1)
    around = (boxes - membership).clamp(min=0)
    total = around.sum(1, keepdim=True)
    neighbours = around / torch.where(total > 0, total, 1) + epsilon
    divergence = (neighbours * (neighbours.log() - own.log())).sum(1)
    return torch.where(total.squeeze(1) > 0, divergence, 0)


def adaptive_map(teacher: Tensor | Mixed, size: Sequence[int], policy: Adaptive, options: FPLOptions) -> Tensor:
    """`adaptive_threshold` at the stride of the logits; a pixel of `size` = (H,W) takes its nearest cell's: (B,H,W).

    Of `Mixed` logits each image chooses for itself and the choices are mixed, so that no window looks across a seam.
    (The authors' code chooses at full resolution.)
    """
    if isinstance(teacher, Mixed):
        a, b = (adaptive_map(side, size, policy, options) for side in (teacher.a, teacher.b))
        return torch.where(teacher.mask, b, a)
    chosen = adaptive_threshold(
        teacher, **policy._asdict(), k_cap=options.k_cap, rule=options.rule, variant=options.variant
    )
    for axis, wide in enumerate(size, start=1):
        narrow = chosen.shape[axis]
        if wide != narrow:  # corners on corners, as logits are resized
            cells = torch.arange(wide, device=chosen.device) * ((narrow - 1) / max(wide - 1, 1))
            chosen = chosen.index_select(axis, cells.round().long())
    return chosen
