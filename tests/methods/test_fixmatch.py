"""FixMatch against its specification: labels, denominator, padding, rectangles and the averaged teacher.

That the partner is never the image itself is tested in tests/data.
"""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fuzzyseg.losses import PIXEL_LOSSES, PixelLossModule, SupervisedLoss
from fuzzyseg.methods import Facts, Progress
from fuzzyseg.methods.fixmatch import FixMatch
from fuzzyseg.ops.resize import resize_logits
from support.tiny_network import TinyNetwork, make_batch

module = importlib.import_module("fuzzyseg.methods.fixmatch")
START = Progress(0, 10)


def make(loss="hard", norm="group", network=None, options=None, **config):
    torch.manual_seed(0)
    pixel = PixelLossModule(PIXEL_LOSSES[loss], options or {}, 0.9)
    network = network or (lambda: TinyNetwork(norm=norm))
    method = FixMatch(network, SupervisedLoss("ce"), pixel, FixMatch.Config(**config), Facts(5))
    if method.teacher is not None:
        with torch.no_grad():
            for p in method.teacher.parameters():
                p.add_(0.2 * torch.randn_like(p))
    return method


def batches(method):
    return {
        name: make_batch(masks=stream.source == "labelled", seed=number, view=stream.view)
        for number, (name, stream) in enumerate(method.streams.items())
    }


def constant(value):
    """Constant masks."""
    return lambda seeds, size, views=1, **_: tuple(
        torch.full((len(seeds), *size), value, dtype=torch.bool) for _ in range(views)
    )


def labels_of(method, batch, mask):
    """Teacher logits at image size and valid pixels, mixed by the mask."""
    a, b = batch["unlabelled"], batch["partner"]
    teacher = method.student if method.teacher is None else method.teacher
    t0, t1 = (resize_logits(teacher(each.image), a.size) for each in (a, b))
    return torch.where(mask.unsqueeze(1), t1, t0), torch.where(mask, b.valid, a.valid)


@pytest.mark.parametrize("teacher", ["self", "ema"])
@pytest.mark.parametrize("threshold", [0.0, 0.35])
def test_loss_is_the_cards_formula(teacher, threshold):
    method = make(teacher=teacher, threshold=threshold, unsupervised_weight=3)
    batch = batches(method)
    result = method(batch, START)
    a, b = batch["unlabelled"], batch["partner"]
    (mask,) = module.rectangle_masks(a.seed, a.size)
    assert mask.any()
    assert not mask.all()
    t, valid = labels_of(method, batch, mask)
    z = resize_logits(method.student(torch.where(mask.unsqueeze(1), b.strong[0], a.strong[0])), a.size)
    conf, label = t.softmax(1).max(1)
    sure = conf >= threshold
    assert sure.all() == (threshold == 0)
    expected = (F.cross_entropy(z, label, reduction="none") * sure * valid).sum() / valid.sum()
    torch.testing.assert_close(result.losses["unsupervised"], 3 / 2 * expected)
    torch.testing.assert_close(result.metrics["confident"], (sure * valid).sum() / valid.sum())
    labelled = batch["labelled"]
    logits = resize_logits(method.student(labelled.image), labelled.size)
    supervised = F.cross_entropy(logits, labelled.mask, ignore_index=255)
    torch.testing.assert_close(result.losses["supervised"], supervised / 2)


@pytest.mark.parametrize("teacher", ["self", "ema"])
def test_a_threshold_above_1_leaves_the_supervised_loss_alone(teacher):
    method = make(teacher=teacher, threshold=1.1)
    losses = method(batches(method), START).losses
    assert float(losses["unsupervised"].detach()) == 0
    losses["unsupervised"].backward()
    assert all(p.grad is None or not p.grad.any() for p in method.parameters())


def test_unconfident_pixels_count_in_the_denominator():
    """With half of the pixels confident and a cross entropy of c each, the loss is c / 2, halved again."""
    method = make(network=PerPixel)
    batch = batches(method)
    for each in batch.values():
        each.valid[:] = True
        each.image = torch.zeros(len(each.image), 5, *each.size)
        each.image[:, 2, :, :7] = 50  # the left half of 14 columns
        each.strong = (torch.zeros_like(each.image),)
    result = method(batch, START).losses["unsupervised"]
    torch.testing.assert_close(result.detach(), torch.log(torch.tensor(5.0)) / 2 / 2)


class PerPixel(nn.Module):
    """A network without context: logits are the image's five channels times a factor."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Identity()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, image):
        return image * self.factor


def test_padding_teaches_nothing_whatever_stands_there():
    method = make(network=PerPixel, confidence="drop")
    batch = batches(method)
    for each in batch.values():
        each.image = torch.randn(len(each.image), 5, *each.size)
        each.strong = tuple(torch.randn_like(each.image) for _ in each.strong)
    before = method(batch, START).losses["unsupervised"]
    for name in ("unlabelled", "partner"):
        each = batch[name]
        assert not each.valid.all()
        noise = 100 * torch.randn_like(each.image)
        each.image = torch.where(each.valid.unsqueeze(1), each.image, noise)
        each.strong = (torch.where(each.valid.unsqueeze(1), each.strong[0], -noise),)
    torch.testing.assert_close(method(batch, START).losses["unsupervised"], before)


def test_pasted_labels_are_those_of_the_pasted_image():
    """For a network without context, and without colour jitter, labels are its prediction of the mixed image."""
    method = make(network=PerPixel, confidence="drop")
    batch = batches(method)
    for each in batch.values():
        each.image = torch.randn(len(each.image), 5, *each.size)
        each.strong = (each.image,)
    calls, original = [], method.pixel_loss.forward

    def listening(student, teacher, **kwargs):
        calls.append((student, torch.where(teacher.mask.unsqueeze(1), teacher.b, teacher.a)))
        return original(student, teacher, **kwargs)

    method.pixel_loss.forward = listening
    method(batch, START)
    ((student, teacher),) = calls
    assert torch.equal(student.argmax(1), teacher.argmax(1))


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("teacher", ["self", "ema"])
def test_a_constant_rectangle_picks_one_image(value, teacher, monkeypatch):
    method = make(teacher=teacher, confidence="drop")
    batch = batches(method)
    monkeypatch.setattr(module, "rectangle_masks", constant(value))
    result = method(batch, START).losses["unsupervised"]
    chosen = batch["partner" if value else "unlabelled"]
    z = resize_logits(method.student(chosen.strong[0]), chosen.size)
    t = resize_logits((method.teacher or method.student)(chosen.image), chosen.size)
    expected = (F.cross_entropy(z, t.argmax(1), reduction="none") * chosen.valid).sum() / chosen.valid.sum()
    torch.testing.assert_close(result, expected / 2)


def test_no_chance_means_no_rectangle():
    method = make(cutmix_probability=0.0, confidence="drop")
    batch = batches(method)
    before = method(batch, START).losses["unsupervised"]
    batch["partner"] = make_batch(masks=False, seed=77, view=method.streams["partner"].view)
    torch.testing.assert_close(method(batch, START).losses["unsupervised"], before)


def test_no_gradient_reaches_the_teachers_view_of_an_image():
    method = make(confidence="drop")
    batch = batches(method)
    for each in batch.values():
        each.image.requires_grad_()
        each.strong = tuple(view.detach().requires_grad_() for view in each.strong)
    method(batch, START).losses["unsupervised"].backward()
    assert batch["unlabelled"].strong[0].grad.any()
    assert batch["partner"].strong[0].grad.any()
    for name in ("unlabelled", "partner"):
        assert batch[name].image.grad is None or not batch[name].image.grad.any()
    method = make(teacher="ema", confidence="drop")
    method(batches(method), START).losses["unsupervised"].backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    assert all(p.grad.any() for p in method.student.parameters())


@pytest.mark.parametrize("loss", PIXEL_LOSSES)
def test_a_constant_on_all_of_the_teachers_logits_changes_nothing(loss):
    method = make(loss, teacher="ema", threshold=0.3)
    batch = batches(method)
    before = method(batch, START).losses["unsupervised"]
    with torch.no_grad():
        method.teacher.head.bias.add_(3)
    torch.testing.assert_close(method(batch, START).losses["unsupervised"], before)


def test_the_pass_over_the_partner_leaves_batch_norm_and_modes_as_they_are():
    method = make(norm="batch")
    method(batches(method), START)
    norm = method.student.encoder["fine"][1]
    assert int(norm.num_batches_tracked) == 2  # labelled with weak, strong; not the partner
    assert all(part.training for part in method.student.modules())
    norm.eval()  # frozen batch norm stays frozen
    method(batches(method), START)
    assert not norm.training


def test_the_average_is_always_in_evaluation_mode_and_its_buffers_follow_alone():
    method = make(norm="batch", teacher="ema")
    seen = []
    method.teacher.head.register_forward_hook(lambda *_: seen.append(method.teacher.encoder["fine"][1].training))
    before = {key: value.clone() for key, value in method.teacher.state_dict().items()}
    method(batches(method), START)
    assert seen == [False, False]
    assert all(torch.equal(value, before[key]) for key, value in method.teacher.state_dict().items())
    assert int(method.student.encoder["fine"][1].num_batches_tracked) == 1
    method.after_step(START)  # the first step copies the student
    for key, value in method.student.state_dict().items():
        assert torch.equal(value, method.teacher.state_dict()[key])
    for step, decay in ((9, 0.9), (248, 248 / 249), (249, 0.996), (1000, 0.996)):
        with torch.no_grad():
            method.teacher.head.bias.fill_(1)
            method.teacher.encoder["fine"][1].running_mean.fill_(1)
            method.student.head.bias.fill_(0)
            method.student.encoder["fine"][1].running_mean.fill_(0)
        method.after_step(Progress(step, 2000))
        torch.testing.assert_close(method.teacher.head.bias, torch.full((5,), decay))
        torch.testing.assert_close(method.teacher.encoder["fine"][1].running_mean, torch.full((8,), decay))
    assert method.predictor() is method.teacher
    method = make()
    assert method.predictor() is method.student


def test_under_the_confidence_mask_fuzzy_is_hard_and_without_it_is_not():
    """K is 1 where the largest probability exceeds T, so that with T at the mask's threshold FPL is cross entropy."""
    kept = {name: make(name, confidence="keep", threshold=0.9, network=sharp) for name in ("hard", "fuzzy")}
    kept["fuzzy"].pixel_loss.options["weight"] = "none"
    batch = batches(kept["hard"])
    hard, fuzzy = (method(batch, START) for method in kept.values())
    assert 0.1 < hard.metrics["confident"] < 0.9
    assert fuzzy.metrics["k_histogram"][0] < 1
    torch.testing.assert_close(hard.losses["unsupervised"], fuzzy.losses["unsupervised"])
    dropped = [make(name, options=options, confidence="drop", network=sharp) for name, options in
               (("hard", {}), ("fuzzy", {"weight": "none"}))]  # fmt: skip
    one, other = (method(batch, START).losses["unsupervised"] for method in dropped)
    assert not torch.isclose(one, other)


def sharp():
    """A tiny network that is confident at some pixels."""
    network = TinyNetwork(norm="group")
    with torch.no_grad():
        network.head.weight.mul_(12)
    return network


@pytest.mark.parametrize(
    ("loss", "confidence", "keeps"),
    [
        ("hard", None, True),
        ("fuzzy", None, False),
        ("soft", None, False),
        ("fuzzy", "keep", True),
        ("hard", "drop", False),
    ],
)
def test_the_mask_is_kept_with_the_hard_loss_unless_told_otherwise(loss, confidence, keeps):
    method = make(loss, confidence=confidence)
    assert (method.confident.mode == "keep") == keeps
    assert ("confident" in method(batches(method), START).metrics) == keeps


def test_rectangles_that_fit_nowhere_are_refused():
    with pytest.raises(ValueError, match="box_area"):
        FixMatch.Config(box_area=(0.1, 0.95))
