"""Reference coverage of fuzzy sets, counted directly from the sets, for tests of calibrated thresholds."""

from typing import NamedTuple

import torch
from torch import Tensor

from fuzzyseg.losses import assign_fuzzy_positives


class Coverage(NamedTuple):
    """Counts of labelled pixels: all, with the true class in the set, with the right top class, and by K."""

    pixels: Tensor
    coverage: Tensor
    top1: Tensor
    k_histogram: Tensor

    def plus(self, other):
        return Coverage(*(a + b for a, b in zip(self, other, strict=True)))

    def shares(self):
        return {
            name: (count / self.pixels.double()).tolist()
            for name, count in zip(self._fields[1:], self[1:], strict=True)
        }


def fuzzy_coverage(logits, target, *, threshold, ignore_index=255, **options):
    members = assign_fuzzy_positives(logits, threshold=threshold, **options)
    known = target != ignore_index
    truth = torch.where(known, target, 0).long().unsqueeze(1)
    covered = members.gather(1, truth).squeeze(1) & known
    top1 = (logits.argmax(1, keepdim=True) == truth).squeeze(1) & known
    k = torch.bincount(members.sum(1)[known], minlength=logits.shape[1] + 1)[1:]
    return Coverage(known.sum(), covered.sum(), top1.sum(), k)
