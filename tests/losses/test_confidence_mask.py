"""The confidence mask and its gate, and the temperature of the confidence."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fuzzyseg import assign_fuzzy_positives, fuzzy_positive_loss
from fuzzyseg.losses import PIXEL_LOSSES, ConfidentPixels, Conformal, PixelLossModule
from fuzzyseg.ops.mix import Mixed

Z = torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(0))
T = 2 * torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(1))
VALID = torch.rand(2, 6, 7, generator=torch.Generator().manual_seed(2)) > 0.2
CALL = {"size": (6, 7), "valid": VALID, "progress": (0, 1)}


def taught(which, loss="fuzzy", tau=0.7):
    pixel = PixelLossModule(PIXEL_LOSSES[loss], {}, 0.9)
    mask = ConfidentPixels(which, tau, pixel)
    return mask, lambda: mask(pixel, Z, T, VALID, (0, 1))


@pytest.mark.parametrize("loss", ["fuzzy", "hard"])
def test_a_gate_is_the_mask_while_it_is_reliable_and_none_else(loss):
    gate, apply = taught("gate", loss)
    keep, drop = taught("keep", loss)[1](), taught("drop", loss)[1]()
    assert not torch.equal(keep[0], drop[0])
    assert torch.equal(apply()[0], keep[0])  # until it is measured
    assert gate.decide(100, 69) is False
    assert torch.equal(apply()[0], drop[0])
    assert float(apply()[1]["reliable"]) == 0
    assert torch.equal(apply()[1]["confident"], keep[1]["confident"])  # the share does not depend on the gate
    assert gate.decide(100, 70) is True
    assert torch.equal(apply()[0], keep[0])
    assert gate.decide(0, 0) is False  # a mask without pixels


def test_the_state_of_a_gate_alone_is_saved():
    gate, _ = taught("gate")
    gate.decide(10, 1)
    other, apply = taught("gate")
    other.load_state_dict(gate.state_dict())
    assert torch.equal(apply()[0], taught("drop")[1]()[0])
    assert not taught("keep")[0].state_dict()
    assert not taught("drop")[0].state_dict()


def test_open_to_all_the_hard_loss_teaches_one_label_and_it_is_said():
    pixel = PixelLossModule(PIXEL_LOSSES["hard"], {}, 0.9)
    gate = ConfidentPixels("gate", 0.95, pixel)
    gate.decide(1, 0)
    mean, _ = gate(pixel, Z, T, VALID, (0, 1))
    expected = F.cross_entropy(Z, T.argmax(1), reduction="none")[VALID].mean()
    torch.testing.assert_close(mean, expected)
    assert "trained on one label" in gate.notes(pixel)[0]
    assert ConfidentPixels("gate", 0.95, None).notes(PixelLossModule(PIXEL_LOSSES["fuzzy"], {}, 0.9)) == []


@pytest.mark.parametrize("mixed", [False, True])
def test_a_temperature_divides_the_teachers_logits_alone(mixed):
    module = PixelLossModule(PIXEL_LOSSES["fuzzy"], {}, Conformal(0.8))
    plain = PixelLossModule(PIXEL_LOSSES["fuzzy"], {}, 0.8)
    box = torch.zeros(2, 6, 7, dtype=torch.bool)
    box[:, :3] = True
    teacher = Mixed(T, T.flip(0), box) if mixed else T
    at_one = module(Z, teacher, maps=True, **CALL)
    for name in ("loss", "k", "weight", "confidence", "label"):  # a temperature of 1 changes no bit
        assert torch.equal(getattr(at_one, name), getattr(plain(Z, teacher, maps=True, **CALL), name))
    module.temperature.fill_(2.5)
    result = module(Z, teacher, maps=True, **CALL)
    logits = torch.where(box[:, None], T.flip(0), T) if mixed else T
    expected = fuzzy_positive_loss(Z, logits / 2.5, threshold=0.8, reduction="none")
    torch.testing.assert_close(result.loss, torch.where(VALID, expected, 0))
    torch.testing.assert_close(result.confidence, torch.softmax(logits / 2.5, 1).amax(1))
    assert float(result.stats["temperature"]) == 2.5
    resumed = PixelLossModule(PIXEL_LOSSES["fuzzy"], {}, Conformal(0.8))
    resumed.load_state_dict(module.state_dict())
    assert torch.equal(resumed(Z, teacher, **CALL).loss, result.loss)


def test_no_other_policy_has_a_temperature_and_their_teacher_is_untouched():
    module = PixelLossModule(PIXEL_LOSSES["fuzzy"], {}, 0.9)
    assert module.tempered(T) is T
    assert set(module.state_dict()) == {"threshold"}


@pytest.mark.parametrize("mixed", [False, True])
def test_a_threshold_per_class_is_that_of_the_most_probable_class(mixed):
    module = PixelLossModule(PIXEL_LOSSES["fuzzy"], {}, Conformal(0.9, classes=5))
    t = torch.tensor([0.5, 0.6, 0.75, 0.9, 0.99])
    module.threshold.copy_(t)
    box = torch.zeros(2, 6, 7, dtype=torch.bool)
    box[:, :3] = True
    logits = torch.where(box[:, None], T.flip(0), T) if mixed else T
    result = module(Z, Mixed(T, T.flip(0), box) if mixed else T, maps=True, **CALL)
    each = torch.stack([assign_fuzzy_positives(logits, threshold=float(value)).sum(1) for value in t])
    assert torch.equal(result.k, each.gather(0, logits.argmax(1)[None])[0])
    torch.testing.assert_close(result.stats["threshold"], t[logits.argmax(1)][VALID].mean())
