"""Per-pixel thresholds chosen from each pixel's neighbourhood: the T-value adaption of A-FPL.

P. Qiao, Y. Wang, C. Liu, L. Shang, B. Sun, Z. Wang, X. Zheng, R. Ji, J. Chen, "Adaptive Fuzzy Positive Learning for
Annotation-Scarce Semantic Segmentation", IJCV 2025. Each pixel uses the candidate threshold whose fuzzy set best
matches the classes in a window around it: a large T at object boundaries and in noisy regions, a small T in homogeneous
ones. The authors' code is for source-free domain adaptation; this is our adaptation to semi-supervised segmentation
(see `adaptive_threshold`).
"""

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
    """Settings of the adaptive threshold.

    candidates: ascending thresholds in (0, 1]; ties go to the first. window: side of the square window around the
    pixel; odd, at least 3. epsilon: added to every density; a neighbour whose class is not in the pixel's set adds
    about -log epsilon to the divergence, so a smaller epsilon makes a small T rarer.
    """

    candidates: tuple[float, ...] = (0.85, 0.9, 0.95)
    window: int = 5
    epsilon: float = 1e-6

    def check(self) -> None:
        """Raise ValueError for an invalid option, naming it, its value and the allowed values."""
        rising = all(low <= high for low, high in zip(self.candidates, self.candidates[1:], strict=False))
        if not self.candidates or not rising or not all(0 < value <= 1 for value in self.candidates):
            raise ValueError(f"candidates: found {list(self.candidates)}, expected ascending thresholds in (0, 1]")
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
    """Select one of `candidates` as the threshold of each pixel: (B,H,W) from (B,C,H,W), without gradient.

    Uses the candidate whose fuzzy set (k_cap, rule, variant: see `fuzzy_membership`) has the smallest
    `neighbourhood_divergence`; ties go to the first. Pass logits at the network's stride: after upsampling, a
    window contains little but copies of its centre. Windows include padding and are cropped at the image border. Raises
    ValueError for invalid shapes or options.
    """
    Adaptive(tuple(candidates), window, epsilon).check()
    options = FPLOptions(k_cap=k_cap, rule=rule, variant=variant)
    check_logits("teacher_logits", teacher_logits)
    if teacher_logits.dim() != 4:
        raise ValueError(f"teacher_logits: found shape {tuple(teacher_logits.shape)}, expected (B,C,H,W)")
    with torch.no_grad(), full_precision(teacher_logits.device):
        teacher = at_least_fp32(teacher_logits)
        best, smallest = (torch.full_like(teacher[:, 0], value) for value in (candidates[0], torch.inf))
        for candidate in candidates:
            sets = assign(teacher, candidate, options)
            divergence = neighbourhood_divergence(sets.membership().to(teacher.dtype), window=window, epsilon=epsilon)
            better = divergence < smallest
            best = torch.where(better, candidate, best)
            smallest = torch.where(better, divergence, smallest)
        return best


def neighbourhood_divergence(membership: Tensor, *, window: int, epsilon: float) -> Tensor:
    """Return KL(neighbours || pixel) of class densities: (B,H,W) from memberships (B,C,H,W) in [0, 1].

    The pixel's density is epsilon plus its memberships divided by their sum; the neighbours' density is computed
    likewise from the memberships summed over the window, excluding the pixel itself. As in the authors' code, neither
    is renormalised after adding epsilon, so values are only comparable with each other. The divergence is 0 for a
    pixel without neighbours.
    """
    centre = membership / membership.sum(1, keepdim=True) + epsilon
    boxes = F.avg_pool2d(membership, window, stride=1, padding=window // 2, divisor_override=1)
    around = (boxes - membership).clamp(min=0)
    total = around.sum(1, keepdim=True)
    neighbours = around / torch.where(total > 0, total, 1) + epsilon
    divergence = (neighbours * (neighbours.log() - centre.log())).sum(1)
    return torch.where(total.squeeze(1) > 0, divergence, 0)


def adaptive_map(teacher: Tensor | Mixed, size: Sequence[int], policy: Adaptive, options: FPLOptions) -> Tensor:
    """Compute `adaptive_threshold` at the logits' stride and resize it to `size` by nearest neighbour: (B,H,W).

    For `Mixed` logits, thresholds are computed per image and then mixed, so that no window crosses the border between
    the images. (The authors' code computes thresholds at full resolution.)
    """
    if isinstance(teacher, Mixed):
        a, b = (adaptive_map(side, size, policy, options) for side in (teacher.a, teacher.b))
        return torch.where(teacher.mask, b, a)
    chosen = adaptive_threshold(
        teacher, **policy._asdict(), k_cap=options.k_cap, rule=options.rule, variant=options.variant
    )
    for axis, wide in enumerate(size, start=1):
        narrow = chosen.shape[axis]
        if wide != narrow:  # align_corners, as for logits
            cells = torch.arange(wide, device=chosen.device) * ((narrow - 1) / max(wide - 1, 1))
            chosen = chosen.index_select(axis, cells.round().long())
    return chosen
