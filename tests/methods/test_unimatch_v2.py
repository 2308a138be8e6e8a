"""UniMatch V2 against its specification: two terms, their labels, and dropped channels.

Elsewhere: masks in test_unimatch_v2_dropout.py, average in ops/test_ema.py, DPT in networks/test_dpt.py.
"""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fuzzyseg.losses import PIXEL_LOSSES, PixelLossModule, SupervisedLoss
from fuzzyseg.methods import Facts, Progress
from fuzzyseg.methods.unimatch_v2 import UniMatchV2, complementary_masks
from fuzzyseg.networks import build_network
from fuzzyseg.ops.resize import resize_logits
from support.tiny_network import TinyNetwork, make_batch

module = importlib.import_module("fuzzyseg.methods.unimatch_v2")
START = Progress(0, 10)


def make(loss="hard", norm="group", network=None, options=None, **config):
    torch.manual_seed(0)
    pixel = PixelLossModule(PIXEL_LOSSES[loss], options or {}, 0.9)
    network = network or (lambda: TinyNetwork(norm=norm))
    method = UniMatchV2(network, SupervisedLoss("ce"), pixel, UniMatchV2.Config(**config), Facts(5))
    for p in method.teacher.parameters():  # the teacher differs from the student
        p.add_(0.1 * torch.randn(p.shape))
    return method


def batches(method, size=(12, 14)):
    return {
        name: make_batch(size=size, masks=stream.source == "labelled", seed=number, view=stream.view)
        for number, (name, stream) in enumerate(method.streams.items())
    }


def ce(z, t, valid, threshold):
    """Masked cross entropy: sum over confident pixels divided by the number of valid ones."""
    z, t = (resize_logits(each, valid.shape[-2:]) for each in (z, t))
    confidence, label = t.softmax(1).max(1)
    return (F.cross_entropy(z, label, reduction="none") * (confidence >= threshold) * valid).sum() / valid.sum()


def dropped(method, image, masks):
    """Logits of the image's features times the masks of a view."""
    maps = method.student.encode(image)
    maps = [each * mask[:, :, None, None] for each, mask in zip(maps, masks, strict=True)]
    return method.student.classify(method.student.decode(maps))


def expected_terms(method, batch, mean):
    """The terms of both views, computed separately; mean(z, t, valid) gives one term."""
    a, b = batch["unlabelled"], batch["partner"]
    weak, pasted = (resize_logits(method.teacher(each.image), a.size) for each in (a, b))
    views = complementary_masks(a.seed, [3, 8, 8], undropped=method.config.undropped)
    terms = []
    for number, mask in enumerate(module.rectangle_masks(a.seed, a.size, views=2)):
        inside = mask.unsqueeze(1)
        z = dropped(method, torch.where(inside, b.strong[number], a.strong[number]), views[number])
        terms.append(mean(z, torch.where(inside, pasted, weak), torch.where(mask, b.valid, a.valid)))
    return terms


@pytest.mark.parametrize("threshold", [0.0, 0.35])
def test_losses_are_the_cards_formula(threshold):
    method = make(threshold=threshold, unsupervised_weight=0.5)
    batch = batches(method)
    result = method(batch, START).losses
    terms = expected_terms(method, batch, lambda z, t, valid: ce(z, t, valid, threshold))
    assert terms[0] > 0
    assert not torch.isclose(terms[0], terms[1])
    torch.testing.assert_close(result["unsupervised"], 0.5 * (terms[0] + terms[1]) / 2 / 2)
    labelled = batch["labelled"]
    logits = resize_logits(method.student(labelled.image), labelled.size)
    supervised = F.cross_entropy(logits, labelled.mask, ignore_index=255)
    torch.testing.assert_close(result["supervised"], supervised / 2)


def test_undropped_images_have_the_plain_forward():
    method = make(undropped=1.0)
    image = torch.randn(6, 3, 12, 14)
    torch.testing.assert_close(method._dropped(image, torch.arange(3)), method.student(image))
    method = make()
    seeds = torch.arange(40)
    views = complementary_masks(seeds, [3, 8, 8])
    whole = (views[0][1] == 1).all(1).repeat(2)
    image = torch.randn(80, 3, 12, 14)
    result, plain = method._dropped(image, seeds), method.student(image)
    torch.testing.assert_close(result[whole], plain[whole])
    assert (result - plain).flatten(1).abs().amax(1)[~whole].min() > 1e-4


def test_equal_views_without_dropping_have_equal_terms(monkeypatch):
    method = make(undropped=1.0, cutmix_probability=0.0, confidence="drop")
    batch = batches(method)
    batch["unlabelled"].strong = (batch["unlabelled"].strong[0],) * 2
    terms, original = [], method.confident.forward

    def listening(*args):
        terms.append(original(*args)[0].detach())
        return original(*args)

    monkeypatch.setattr(method.confident, "forward", listening)
    result = method(batch, START).losses["unsupervised"].detach()
    torch.testing.assert_close(terms[0], terms[1])
    torch.testing.assert_close(result, terms[0] / 2)


def test_a_threshold_above_1_trains_on_labelled_images_alone():
    method = make(threshold=1.1)
    batch = batches(method)
    losses = method(batch, START).losses
    assert float(losses["unsupervised"].detach()) == 0
    torch.stack(list(losses.values())).sum().backward()
    result = [p.grad.clone() for p in method.student.parameters()]
    method.zero_grad()
    labelled = batch["labelled"]
    (method.supervised_loss(method.student(labelled.image), labelled.mask) / 2).backward()
    for one, other in zip(result, [p.grad for p in method.student.parameters()], strict=True):
        torch.testing.assert_close(one, other)


def test_the_teacher_is_in_evaluation_mode_and_follows_with_its_buffers():
    method = make(norm="batch")
    batch = batches(method)
    own, students = (network.encoder["fine"][1] for network in (method.teacher, method.student))
    method(batch, START)
    assert int(own.num_batches_tracked) == 0
    assert int(students.num_batches_tracked) == 2  # labelled, both views
    assert not own.running_mean.any()  # labels use the statistics of the previous step
    assert own.training
    method.after_step(START)
    for name, value in method.student.state_dict().items():
        torch.testing.assert_close(method.teacher.state_dict()[name], value)
    weight, mean = own.weight.clone(), own.running_mean.clone()
    with torch.no_grad():
        students.weight.add_(1)
        students.running_mean.add_(1)
    method.after_step(Progress(9, 2000))
    torch.testing.assert_close(own.weight, weight + 0.1)
    torch.testing.assert_close(own.running_mean, mean + 0.1)
    for step, left in ((248, 248 / 249), (249, 0.996), (1000, 0.996)):
        before = own.weight.clone()
        method.after_step(Progress(step, 2000))
        torch.testing.assert_close(own.weight, left * before + (1 - left) * students.weight)
    assert method.predictor() is method.teacher


def test_no_gradient_reaches_the_teacher():
    method = make(confidence="drop")
    method(batches(method), START).losses["unsupervised"].backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    assert all(p.grad.any() for p in method.student.parameters())


def test_scoring_draws_no_mask(monkeypatch):
    method = make().eval()
    monkeypatch.setattr(module, "complementary_masks", lambda *_, **__: pytest.fail("a mask was drawn"))
    image = torch.randn(2, 3, 12, 14)
    torch.testing.assert_close(method.predictor()(image), method.teacher(image))


@pytest.mark.parametrize("loss", ["soft", "fuzzy"])
def test_a_pixel_loss_takes_both_places_without_the_confidence_mask(loss):
    method = make(loss)
    batch = batches(method)
    result = method(batch, START)

    def mean(z, t, valid):
        return PIXEL_LOSSES[loss](z, t, size=valid.shape[1:], valid=valid, threshold=0.9).loss.sum() / valid.sum()

    terms = expected_terms(method, batch, mean)
    torch.testing.assert_close(result.losses["unsupervised"], (terms[0] + terms[1]) / 2 / 2)
    assert "confident" not in result.metrics
    assert make(loss, confidence="keep").confident.mode == "keep"


def test_a_network_without_stages_is_refused():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Conv2d(3, 5, 1)

    with pytest.raises(ValueError, match="UniMatch V2 works on features, but Plain has no encode, decode, classify"):
        make(network=Plain)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "encoder", "size", "options"),
    [
        ("Unet", "mobilenet_v2", 64, {}),
        ("Segformer", "mit_b0", 64, {}),  # with a map of no channels
        ("DPT", "tu-vit_small_patch14_dinov2", 42, {"embed_dim": 24, "num_heads": 2}),  # with a prefix token
        ("DPT", "tu-vit_small_patch14_reg4_dinov2", 42, {"embed_dim": 24, "num_heads": 2}),  # with five
    ],
)
def test_networks_of_all_kinds_learn_from_what_is_left(arch, encoder, size, options):
    network = build_network(arch, encoder, weights="none", channels=3, classes=5, options=options)
    method = make(network=lambda: network, undropped=0.0, confidence="drop")
    method.student.eval()
    image, seeds = torch.randn(4, 3, size, size), torch.tensor([1, 2])
    given, original = [], method.student.decode

    def listening(features):
        given.append(features)
        return original(features)

    method.student.decode = listening
    assert not torch.allclose(method._dropped(image, seeds), method.student(image), rtol=1e-3, atol=1e-3)
    (left, plain) = given
    if arch == "DPT":  # one mask for every level, and for the tokens beside the map
        masks = complementary_masks(seeds, [24], undropped=0.0)
        mask = torch.cat([masks[0][0], masks[1][0]])
        for result, whole in zip(left[0], plain[0], strict=True):
            torch.testing.assert_close(result, whole * mask[:, :, None, None])
        for result, whole in zip(left[1], plain[1], strict=True):
            torch.testing.assert_close(result, whole * mask[:, None, :])
    del method.student.decode
    method.student.train()
    losses = method(batches(method, (size, size)), START).losses
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad.isfinite().all() for p in method.student.parameters() if p.grad is not None)
