"""Reference implementation of Fuzzy Positive Learning, against which the kernels are tested.

P. Qiao, Z. Wei, Y. Wang, Z. Wang, G. Song, F. Xu, X. Ji, C. Liu, J. Chen, "Fuzzy Positive Learning for Semi-supervised
Semantic Segmentation", CVPR 2023: assignment (Alg. 1), regularisation (Eq. 7) and weight (Eq. 11, 16).

Where the teacher is uncertain, a pixel gets the set Y of the K most probable classes instead of one pseudo label, and
the student learns to rank all of Y above all other classes. Notation: z, the student's logits; p, the teacher's
probabilities in descending order; S_n, the sum of the first n; T, the threshold. Logits are (N,C), (B,C,H,W) or
(B,C,D,H,W); maps have no class axis. Everything is computed in fp32 (fp64 stays fp64), regardless of autocast.
`variant="official"` follows the published code: K is at most 3, a class is kept while S < T (paper: S <= T), and the
mean in the weight includes the first negative. `rule="continuous"` is our extension: the class at which the sum exceeds
T has a fractional membership (`fuzzy_membership`).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.losses.base import histogram, local_mean
from fuzzyseg.losses.fpl.assignment import assign
from fuzzyseg.losses.fpl.options import FPLOptions
from fuzzyseg.losses.fpl.regularisation import fuzzy_positive_regularisation
from fuzzyseg.losses.fpl.weight import assignment_weight


class FuzzyMap(NamedTuple):
    """Maps (B,*spatial), of which only `loss`, the weighted loss, has a gradient.

    weight: Eq. 11 or 16. k: number of positives, including a class with a fractional membership. confidence, label: the
    teacher's largest probability and its class.
    """

    loss: Tensor
    weight: Tensor
    k: Tensor
    confidence: Tensor
    label: Tensor


def fuzzy_positive_map(
    student: Tensor,
    teacher: Tensor,
    threshold: float | Tensor,
    options: FPLOptions | None,
    function: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> FuzzyMap:
    """Apply Alg. 1, Eq. 7 and Eq. 11 to logits (B,C,*spatial) of equal size, in fp32 or fp64, without checks.

    function(student logits, membership) replaces Eq. 7. options=None computes cross entropy on the pseudo label.
    """
    if options is None:
        confidence, label = torch.softmax(teacher, 1).max(1)
        return one_label_map(F.cross_entropy(student, label, reduction="none"), confidence, label)
    with torch.no_grad():
        assignment = assign(teacher, threshold, options)
        w = assignment_weight(assignment, options).squeeze(1)
    loss = w * (function or fuzzy_positive_regularisation)(student, assignment.membership())
    return FuzzyMap(loss, w, assignment.positives().squeeze(1), assignment.p[:, 0], assignment.order[:, 0])


def one_label_map(loss: Tensor, confidence: Tensor, label: Tensor) -> FuzzyMap:
    """Return the maps of a loss with one target per pixel; a NaN in the teacher's confidence propagates to it."""
    return FuzzyMap(loss + (confidence - confidence), torch.ones_like(loss), torch.ones_like(label), confidence, label)


def balance_factor(loss: Tensor, student: Tensor, label: Tensor, valid: Tensor | None) -> Tensor:
    """Return the factor that scales the mean of `loss` to the mean cross entropy on the pseudo label: 0-dim, detached.

    Each process computes its own factor, as in the published code. It is 1 if the mean of `loss` is 0 or too small to
    divide by.
    """
    with torch.no_grad():
        hard = local_mean(F.cross_entropy(student, label, reduction="none"), valid)
        fuzzy = local_mean(loss, valid)
        return torch.where(fuzzy > 1e-30, hard / fuzzy, torch.ones_like(fuzzy))


def statistics(maps: FuzzyMap, valid: Tensor | None, classes: int) -> dict[str, Tensor]:
    """Return the valid pixels' k_histogram (C-1,), label_histogram (C,), mean_weight and mean_confidence, detached."""
    return {
        "k_histogram": histogram(maps.k - 1, valid, classes - 1),
        "label_histogram": histogram(maps.label, valid, classes),
        "mean_weight": local_mean(maps.weight, valid),
        "mean_confidence": local_mean(maps.confidence, valid),
    }
