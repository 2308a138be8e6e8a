"""CutMix-Seg against its specification: mixing, distance, scale by confidence, and the teacher's update.

Not tested here: separate backward passes (the loop has one, of the sum) and the mask generator (tests/ops/test_mix.py).
"""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fuzzyseg.data.views import WeakStrong
from fuzzyseg.losses import PIXEL_LOSSES, PixelLossModule, SupervisedLoss
from fuzzyseg.methods import Facts, Progress
from fuzzyseg.methods.cutmix_seg import CutMixSeg
from fuzzyseg.ops.resize import resize_logits
from support.tiny_network import TinyNetwork, make_batch

module = importlib.import_module("fuzzyseg.methods.cutmix_seg")
START = Progress(0, 10)


class PerPixel(nn.Module):
    """A network without context: logits are the first five channels of the image times a factor."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Identity()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, image):
        return image * self.factor


def make(loss=None, norm="group", network=None, apart=True, **config):
    torch.manual_seed(0)
    pixel = None if loss is None else PixelLossModule(PIXEL_LOSSES[loss], {}, 0.9)
    network = network or (lambda: TinyNetwork(norm=norm))
    method = CutMixSeg(network, SupervisedLoss("ce"), pixel, CutMixSeg.Config(**config), Facts(5))
    if apart:
        with torch.no_grad():
            for p in method.teacher.parameters():
                p.add_(0.2 * torch.randn_like(p))
    return method


def batches(method, channels=3):
    result = {
        name: make_batch(masks=stream.source == "labelled", seed=number, view=stream.view)
        for number, (name, stream) in enumerate(method.streams.items())
    }
    if channels != 3:  # logits as images
        for number, each in enumerate(result.values()):
            generator = torch.Generator().manual_seed(10 + number)
            each.image = 3 * torch.randn(len(each.image), channels, *each.size, generator=generator)
    return result


def mixed(method, batch):
    """Mixed image, valid pixels and teacher logits at image size, by the formula."""
    a, b = batch["unlabelled"], batch["partner"]
    area = (method.config.box_area,) * 2
    m = module.box_masks(a.seed, a.size, boxes=1, area=area).unsqueeze(1).float()
    t0, t1 = (resize_logits(method.teacher(each.image), a.size) for each in (a, b))
    seen = [each.strong[0] if method.config.colour else each.image for each in (a, b)]
    valid = a.valid * (1 - m[:, 0]) + b.valid * m[:, 0]
    return seen[0] * (1 - m) + seen[1] * m, valid, t0 * (1 - m) + t1 * m


def squares(z, t):
    """Sum over the classes of the squared difference of probabilities, by a loop."""
    p, q = z.softmax(1), t.softmax(1)
    return sum((p[:, c] - q[:, c]) ** 2 for c in range(p.shape[1]))


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("per_pixel", [False, True])
def test_loss_is_the_cards_formula(colour, per_pixel):
    method = make(colour=colour, per_pixel=per_pixel, threshold=0.4, unsupervised_weight=3)
    batch = batches(method)
    result = method(batch, START)
    image, valid, t = mixed(method, batch)
    d = squares(resize_logits(method.student(image), t.shape[-2:]), t) * valid
    sure = (t.softmax(1).amax(1) >= 0.4).float()
    share = (sure * valid).sum() / valid.sum()
    assert 0.2 < share < 0.8
    # the mean is over all pixels, with padding as 0
    expected = 3 * (d * (sure if per_pixel else share)).sum() / d.numel()
    torch.testing.assert_close(result.losses["unsupervised"], expected)
    torch.testing.assert_close(result.metrics["sure"], share)
    labelled = batch["labelled"]
    logits = resize_logits(method.student(labelled.image), labelled.size)
    torch.testing.assert_close(result.losses["supervised"], F.cross_entropy(logits, labelled.mask, ignore_index=255))


@pytest.mark.parametrize("value", [False, True])
def test_a_constant_mask_picks_one_image_for_input_target_and_validity(value, monkeypatch):
    method = make(confidence="drop")
    batch = batches(method)
    monkeypatch.setattr(
        module, "box_masks", lambda seeds, size, **_: torch.full((len(seeds), *size), value, dtype=torch.bool)
    )
    chosen = batch["partner" if value else "unlabelled"]
    z, t = (resize_logits(n(chosen.image), chosen.size) for n in (method.student, method.teacher))
    expected = (squares(z, t) * chosen.valid).mean()
    torch.testing.assert_close(method(batch, START).losses["unsupervised"], expected)


def test_an_image_mixed_with_itself_is_the_plain_consistency():
    method = make(confidence="drop")
    batch = batches(method)
    batch["partner"].image, batch["partner"].valid = batch["unlabelled"].image, batch["unlabelled"].valid
    a = batch["unlabelled"]
    z, t = (resize_logits(n(a.image), a.size) for n in (method.student, method.teacher))
    torch.testing.assert_close(method(batch, START).losses["unsupervised"], (squares(z, t) * a.valid).mean())


def test_half_the_pixels_sure_halves_the_loss_or_drops_the_other_half():
    method = make(network=PerPixel, apart=False)
    with torch.no_grad():
        method.teacher.factor.fill_(-1)
    batch = batches(method, channels=5)
    for each in batch.values():
        each.valid[:] = True
        each.image[:] = 0
        each.image[:, 2, :, :7] = -50  # the teacher negates: confident of class 2 in the left half of 14 columns
    result = method(batch, START).losses["unsupervised"]
    plain = make(network=PerPixel, apart=False, confidence="drop")
    plain.load_state_dict(method.state_dict())
    torch.testing.assert_close(result, plain(batch, START).losses["unsupervised"] / 2)
    method = make(network=PerPixel, apart=False, per_pixel=True)
    method.student.factor.data.fill_(1)
    method.teacher.factor.data.fill_(-1)
    for each in batch.values():
        each.image[:, 1, :, 7:] = 0.5  # the predictions differ, but the teacher is not confident
        each.image.requires_grad_()
    method(batch, START).losses["unsupervised"].backward()
    grad = batch["unlabelled"].image.grad + batch["partner"].image.grad
    assert not grad[..., 7:].any()


def test_opposite_certainties_are_2_apart():
    method = make(network=PerPixel, apart=False)
    method.teacher.factor.data.fill_(-1)
    batch = batches(method, channels=5)
    for each in batch.values():
        each.valid[:] = True
        each.image[:] = 0
        each.image[:, 0], each.image[:, 1] = 50, -50
    torch.testing.assert_close(method(batch, START).losses["unsupervised"], torch.tensor(2.0))


def test_no_gradient_reaches_the_teacher_and_the_student_gets_one():
    method = make(confidence="drop")
    method(batches(method), START).losses["unsupervised"].backward()
    assert all(p.grad.any() for p in method.student.parameters())
    assert all(p.grad is None for p in method.teacher.parameters())


def test_the_teacher_starts_as_the_student_and_follows_with_its_buffers():
    method = make(norm="batch", apart=False)
    for key, value in method.student.state_dict().items():
        assert torch.equal(value, method.teacher.state_dict()[key])
    with torch.no_grad():
        method.student.encoder["fine"][1].running_mean.fill_(10)
        method.student.head.bias.fill_(10)
        method.teacher.head.bias.fill_(0)
    method.after_step(START)
    torch.testing.assert_close(method.teacher.encoder["fine"][1].running_mean, torch.full((8,), 0.1))
    torch.testing.assert_close(method.teacher.head.bias, torch.full((5,), 0.1))
    assert method.predictor() is method.teacher


def test_frozen_statistics_stay_in_both_networks():
    method = make(norm="batch")
    for each in method.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.eval()
            each.running_mean.normal_()
    method.teacher.load_state_dict(method.student.state_dict())
    before = {key: value.clone() for key, value in method.state_dict().items() if "running" in key}
    for step in range(3):
        method(batches(method), Progress(step, 10)).losses["unsupervised"].backward()
        method.after_step(Progress(step, 10))
    assert before
    assert all(torch.equal(value, method.state_dict()[key]) for key, value in before.items())


@pytest.mark.parametrize("loss", PIXEL_LOSSES)
@pytest.mark.parametrize("confidence", ["keep", "drop"])
def test_a_pixel_loss_takes_the_place_of_the_distance_with_the_same_confidence(loss, confidence):
    method = make(loss, confidence=confidence, threshold=0.4, pixel_weight=0.5, unsupervised_weight=7)
    batch = batches(method)
    result = method(batch, START).losses["unsupervised"]
    image, valid, t = mixed(method, batch)
    z = resize_logits(method.student(image), t.shape[-2:])
    alone = PIXEL_LOSSES[loss](z, t, size=t.shape[-2:], valid=valid, threshold=0.9).loss
    share = ((t.softmax(1).amax(1) >= 0.4) * valid).sum() / valid.sum() if confidence == "keep" else 1.0
    torch.testing.assert_close(result, 0.5 * share * alone.mean())


def test_kl_is_from_the_teacher_to_the_student():
    method = make(distance="kl", confidence="drop")
    batch = batches(method)
    image, valid, t = mixed(method, batch)
    z = resize_logits(method.student(image), t.shape[-2:])
    p = t.softmax(1)
    expected = ((p * (p.log() - z.log_softmax(1))).sum(1) * valid).mean()
    torch.testing.assert_close(method(batch, START).losses["unsupervised"], expected)


def test_streams_mix_all_images_and_colour_only_if_asked():
    streams = make().streams
    assert streams["unlabelled"].source == streams["partner"].source == "all"
    assert streams["partner"].partner == "unlabelled"
    assert not isinstance(streams["unlabelled"].view, WeakStrong)
    streams = make(images="unlabelled", colour=True).streams
    assert streams["unlabelled"].source == "unlabelled"
    assert streams["partner"].view.hue == 0.1
