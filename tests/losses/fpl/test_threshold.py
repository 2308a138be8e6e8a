"""Policies of the threshold, and their state in checkpoints."""

from __future__ import annotations

import pytest
import torch

from fuzzyseg import assign_fuzzy_positives
from fuzzyseg.losses import PIXEL_LOSSES, Adaptive, Calibrated, PixelLossModule, Schedule

Z = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(0))
T = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(1))
VALID = torch.ones(2, 4, 4, dtype=torch.bool)


def k_of(module: PixelLossModule, step: int, total: int = 100) -> torch.Tensor:
    result = module(Z, T, size=(4, 4), valid=VALID, progress=(step, total), maps=True)
    assert result.k is not None
    return result.k


def test_a_schedule_moves_evenly_and_then_stays() -> None:
    plan = Schedule(0.95, 0.55, share=0.5)
    assert [plan.at(step, 100) for step in (0, 25, 50, 75, 100)] == pytest.approx([0.95, 0.75, 0.55, 0.55, 0.55])
    module = PixelLossModule(PIXEL_LOSSES["fuzzy"], {}, plan)
    for step, threshold in ((0, 0.95), (25, 0.75), (90, 0.55), (5, 0.91)):
        assert torch.equal(k_of(module, step), assign_fuzzy_positives(T, threshold=threshold).sum(1))
        assert float(module.threshold) == pytest.approx(threshold)
        stats = module(Z, T, size=(4, 4), valid=VALID, progress=(step, 100)).stats
        assert float(stats["threshold"]) == pytest.approx(threshold)


def test_a_calibrated_threshold_is_kept_with_the_state() -> None:
    module = PixelLossModule(PIXEL_LOSSES["fuzzy"], {"rule": "continuous"}, Calibrated(0.8))
    assert torch.equal(k_of(module, 0), assign_fuzzy_positives(T, threshold=0.8, rule="continuous").sum(1))
    module.threshold.fill_(0.6)
    assert torch.equal(k_of(module, 50), assign_fuzzy_positives(T, threshold=0.6, rule="continuous").sum(1))
    resumed = PixelLossModule(PIXEL_LOSSES["fuzzy"], {"rule": "continuous"}, Calibrated(0.8))
    resumed.load_state_dict(module.state_dict())
    assert torch.equal(k_of(resumed, 50), k_of(module, 50))
    before = module(Z, T, size=(4, 4), valid=VALID, progress=(0, 1)).stats["threshold"]
    module.threshold.fill_(0.7)  # logged values do not change
    assert float(before) == pytest.approx(0.6)


def test_a_number_is_no_policy() -> None:
    module = PixelLossModule(PIXEL_LOSSES["fuzzy"], {}, 0.75)
    assert "threshold" not in module(Z, T, size=(4, 4), valid=VALID, progress=(0, 1)).stats
    assert torch.equal(module.thresholds(T, (4, 4)), torch.tensor(0.75))


@pytest.mark.parametrize("policy", [0.8, Schedule(), Calibrated(), Adaptive()])
@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_every_loss_takes_every_policy(name: str, policy: object) -> None:
    module = PixelLossModule(PIXEL_LOSSES[name], {}, policy)
    result = module(Z.requires_grad_(), T, size=(7, 9), valid=torch.ones(2, 7, 9), progress=(3, 10))
    assert result.loss.isfinite().all()
    assert torch.autograd.grad(result.loss.sum(), Z)[0].isfinite().all()
    on_meta = module.to("meta")(Z.to("meta"), T.to("meta"), size=(4, 4), valid=VALID.to("meta"), progress=(3, 10))
    assert on_meta.loss.shape == (2, 4, 4)
    assert type(policy).__name__ in repr(module) or policy == 0.8


def test_a_wrong_number_is_named() -> None:
    with pytest.raises(ValueError, match=r"threshold: found 2\.0"):
        PixelLossModule(PIXEL_LOSSES["fuzzy"], {}, 2.0)
