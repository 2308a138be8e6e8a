"""The note on losses over sets under a confidence mask describes what the loss does."""

from __future__ import annotations

import pytest
import torch

from fuzzyseg.losses import PIXEL_LOSSES, Adaptive, PixelLossModule, Schedule, under_mask

CONFIDENCE = 0.95


def module(name="fuzzy", threshold=0.9, **options):
    return PixelLossModule(PIXEL_LOSSES[name], options, threshold)


def confident_logits():
    """400 pixels whose largest teacher probability is at least 0.95: (1,5,20,20)."""
    generator = torch.Generator().manual_seed(0)
    rest = torch.rand(1, 4, 20, 20, generator=generator, dtype=torch.float64)
    first = CONFIDENCE + 0.05 * torch.rand(1, 1, 20, 20, generator=generator, dtype=torch.float64)
    return torch.cat([first, (1 - first) * rest / rest.sum(1, keepdim=True)], 1).log()


@pytest.mark.parametrize("options", [{}, {"rule": "n"}, {"rule": "continuous"}, {"weight": "linear"}])
@pytest.mark.parametrize(("name", "threshold"), [("fuzzy", 0.5), ("fuzzy", 0.95), ("partial", 0.9)])
def test_where_it_speaks_the_loss_is_cross_entropy_but_for_the_weight_that_it_names(name, threshold, options):
    (sentence,) = under_mask(module(name, threshold, **options), CONFIDENCE)
    least = float(sentence.split("weight of ")[1].split(" to")[0])
    student = torch.randn(1, 5, 20, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    teacher, valid = confident_logits(), torch.ones(1, 20, 20, dtype=torch.bool)
    call = {"size": (20, 20), "valid": valid, "progress": (0, 1)}
    result = module(name, threshold, **options)(student, teacher, **call).loss
    ratio = result / torch.nn.functional.cross_entropy(student, teacher.argmax(1), reduction="none")
    assert ratio.min() >= least - 5e-4  # the note gives three decimals
    assert ratio.max() <= 1 + 1e-6
    assert ratio.min() < least + 0.02  # the bound is tight


def test_without_a_weight_none_is_named():
    (sentence,) = under_mask(module(weight="none"), CONFIDENCE)
    assert "is cross entropy; " in sentence


@pytest.mark.parametrize(
    "loss",
    [
        None,
        module(threshold=0.99),
        module(rule=2),
        module("negative"),
        module("hard"),
        module(threshold=Schedule(0.99, 0.8)),
        module(threshold=Schedule(0.8, 0.99)),
        module(threshold=Adaptive((0.85, 0.99))),
    ],
)
def test_it_is_silent_where_sets_can_have_more_than_one_class_or_none_matters(loss):
    assert under_mask(loss, CONFIDENCE) == []


def test_a_policy_counts_with_its_largest_threshold():
    assert "T = 0.95 " in under_mask(module(threshold=Schedule(0.85, 0.95)), CONFIDENCE)[0]
    assert "T = 0.9 " in under_mask(module(threshold=Adaptive((0.85, 0.9))), CONFIDENCE)[0]
