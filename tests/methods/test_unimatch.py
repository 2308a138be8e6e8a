"""UniMatch against its specification: three weighted terms, their labels, and dropped channels.

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
from fuzzyseg.methods.unimatch import UniMatch, channel_masks
from fuzzyseg.networks import build_network
from fuzzyseg.ops.resize import resize_logits
from support.tiny_network import TinyNetwork, make_batch

module = importlib.import_module("fuzzyseg.methods.unimatch")
START = Progress(0, 10)
TERMS = ("strong_1", "strong_2", "features")


def make(loss="hard", norm="group", network=None, options=None, **config):
    torch.manual_seed(0)
    pixel = PixelLossModule(PIXEL_LOSSES[loss], options or {}, 0.9)
    network = network or (lambda: TinyNetwork(norm=norm))
    return UniMatch(network, SupervisedLoss("ce"), pixel, UniMatch.Config(**config), Facts(5))


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


def dropped(method, image, seeds):
    """Logits of the image's features with channels dropped by the samples' seeds."""
    maps = method.student.encode(image)
    masks = channel_masks(seeds, [each.shape[1] for each in maps], method.config.channel_dropout)
    return method.student.classify(
        method.student.decode([each * mask[:, :, None, None] for each, mask in zip(maps, masks, strict=True)])
    )


@pytest.mark.parametrize("threshold", [0.0, 0.35])
def test_losses_are_the_cards_formula(threshold):
    method = make(threshold=threshold)
    batch = batches(method)
    result = method(batch, START).losses
    a, b, labelled = batch["unlabelled"], batch["partner"], batch["labelled"]
    weak, pasted = (resize_logits(method.student(each.image), a.size) for each in (a, b))
    for number, mask in enumerate(module.rectangle_masks(a.seed, a.size, views=2)):
        inside = mask.unsqueeze(1)
        z = method.student(torch.where(inside, b.strong[number], a.strong[number]))
        term = ce(z, torch.where(inside, pasted, weak), torch.where(mask, b.valid, a.valid), threshold)
        assert term > 0
        torch.testing.assert_close(result[TERMS[number]], term / 4 / 2)
    term = ce(dropped(method, a.image, a.seed), weak, a.valid, threshold)
    assert term > 0
    torch.testing.assert_close(result["features"], term / 2 / 2)
    logits = resize_logits(method.student(labelled.image), labelled.size)
    supervised = F.cross_entropy(logits, labelled.mask, ignore_index=255)
    torch.testing.assert_close(result["supervised"], supervised / 2)


def test_without_dropped_channels_the_perturbed_logits_are_the_plain_ones():
    batch = batches(make())
    image, seeds = batch["unlabelled"].image, batch["unlabelled"].seed
    method = make(channel_dropout=0.0)
    plain, perturbed = method._perturbed(image, seeds)
    torch.testing.assert_close(plain, method.student(image))
    torch.testing.assert_close(perturbed, plain)
    method = make()
    plain, perturbed = method._perturbed(image, seeds)
    torch.testing.assert_close(plain, method.student(image))
    torch.testing.assert_close(perturbed, dropped(method, image, seeds))
    assert not torch.allclose(perturbed, plain)


def test_rectangles_reach_their_own_term_alone(monkeypatch):
    method = make(confidence="drop")
    batch = batches(method)

    def losses(*values):
        masks = tuple(torch.full((3, *batch["unlabelled"].size), value) for value in values)
        monkeypatch.setattr(module, "rectangle_masks", lambda *_, **__: masks)
        return method(batch, START).losses

    none, one, two = losses(False, False), losses(True, False), losses(False, True)
    changed = [[bool(none[term] != each[term]) for term in TERMS] for each in (one, two)]
    assert changed == [[True, False, False], [False, True, False]]


def test_swapping_the_strong_views_with_their_rectangles_swaps_their_terms(monkeypatch):
    method = make(confidence="drop")
    batch = batches(method)
    drawn = module.rectangle_masks(batch["unlabelled"].seed, batch["unlabelled"].size, views=2)
    before = method(batch, START).losses
    for name in ("unlabelled", "partner"):
        batch[name].strong = batch[name].strong[::-1]
    monkeypatch.setattr(module, "rectangle_masks", lambda *_, **__: drawn[::-1])
    after = method(batch, START).losses
    assert not torch.isclose(before["strong_1"], before["strong_2"])
    torch.testing.assert_close(after["strong_1"], before["strong_2"])
    torch.testing.assert_close(after["strong_2"], before["strong_1"])
    torch.testing.assert_close(after["features"], before["features"])


def test_the_weak_logits_get_no_gradient_but_the_encoder_gets_one_through_the_dropped_features():
    method = make(confidence="drop")
    teachers, original = [], method.pixel_loss.forward

    def listening(student, teacher, **kwargs):
        teachers.append(teacher)
        return original(student, teacher, **kwargs)

    method.pixel_loss.forward = listening
    losses = method(batches(method), START).losses
    assert len(teachers) == 3
    for teacher in teachers:
        assert not any(t.requires_grad for t in ([teacher] if torch.is_tensor(teacher) else [teacher.a, teacher.b]))
    losses["features"].backward()
    assert all(p.grad.any() for p in method.student.encoder.parameters())


def test_a_threshold_above_1_trains_on_labelled_images_alone():
    method = make(threshold=1.1)
    batch = batches(method)
    losses = method(batch, START).losses
    assert all(float(losses[term].detach()) == 0 for term in TERMS)
    torch.stack(list(losses.values())).sum().backward()
    result = [p.grad.clone() for p in method.student.parameters()]
    method.zero_grad()
    labelled = batch["labelled"]
    (method.supervised_loss(method.student(labelled.image), labelled.mask) / 2).backward()
    for one, other in zip(result, [p.grad for p in method.student.parameters()], strict=True):
        torch.testing.assert_close(one, other)


def test_batch_norm_sees_two_batches_and_not_the_partner():
    method = make(norm="batch")
    sizes = []
    for norm in (method.student.encoder["fine"][1], method.student.decoder[1]):
        norm.register_forward_hook(lambda module, given, _: sizes.append((module.training, len(given[0]))))
    batch = batches(method)  # three images each
    method(batch, START)
    # the partner in evaluation mode; labelled with weak, clean and dropped in one decoder batch; the two strong views
    assert sizes == [(False, 3), (False, 3), (True, 6), (True, 12), (True, 6), (True, 6)]
    assert int(method.student.encoder["fine"][1].num_batches_tracked) == 2
    before = method.student.encoder["fine"][1].running_mean.clone()
    method(batch, START)
    assert not torch.equal(method.student.encoder["fine"][1].running_mean, before)


def test_padding_teaches_nothing_whatever_stands_there():
    method = make(network=PerPixel, confidence="drop", cutmix_probability=1.0)
    batch = batches(method)
    for each in batch.values():
        each.image = torch.randn(len(each.image), 5, *each.size)
        each.strong = tuple(torch.randn_like(each.image) for _ in each.strong)
    before = method(batch, START).losses
    for name in ("unlabelled", "partner"):
        each, padding = batch[name], ~batch[name].valid.unsqueeze(1)
        assert padding.any()
        noise = 100 * torch.randn_like(each.image)
        each.image = torch.where(padding, noise, each.image)
        each.strong = tuple(torch.where(padding, -noise, view) for view in each.strong)
    after = method(batch, START).losses
    for name in before:
        torch.testing.assert_close(after[name], before[name])


class PerPixel(nn.Module):
    """A network without context: logits are the image's five channels times a factor."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Identity()
        self.factor = nn.Parameter(torch.ones(()))

    def encode(self, image):
        return [image]

    def decode(self, features):
        return features[0] * self.factor

    def classify(self, decoded):
        return decoded

    def forward(self, image):
        return self.classify(self.decode(self.encode(image)))


@pytest.mark.parametrize("loss", ["soft", "fuzzy"])
def test_a_pixel_loss_takes_all_three_places_without_the_confidence_mask(loss):
    method = make(loss, image_weight=1, feature_weight=3)
    batch = batches(method)
    result = method(batch, START)
    a, b = batch["unlabelled"], batch["partner"]
    weak, pasted = (resize_logits(method.student(each.image), a.size) for each in (a, b))

    def mean(z, t, valid):
        maps = PIXEL_LOSSES[loss](z, t, size=a.size, valid=valid, threshold=0.9).loss
        return maps.sum() / valid.sum()

    for number, mask in enumerate(module.rectangle_masks(a.seed, a.size, views=2)):
        inside = mask.unsqueeze(1)
        z = method.student(torch.where(inside, b.strong[number], a.strong[number]))
        expected = mean(z, torch.where(inside, pasted, weak), torch.where(mask, b.valid, a.valid))
        torch.testing.assert_close(result.losses[TERMS[number]], expected / 2)
    expected = mean(dropped(method, a.image, a.seed), weak, a.valid)
    torch.testing.assert_close(result.losses["features"], 3 / 2 * expected)
    assert "confident" not in result.metrics
    assert make(loss, confidence="keep").confident.mode == "keep"


def test_a_network_without_stages_is_refused():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Conv2d(3, 5, 1)

        def forward(self, image):
            return self.encoder(image)

    with pytest.raises(ValueError, match="UniMatch works on features, but Plain has no encode, decode, classify"):
        make(network=Plain)


@pytest.mark.parametrize(
    ("arch", "encoder"),
    [
        ("Unet", "mobilenet_v2"),
        ("Segformer", "mit_b0"),  # with a map of no channels
        ("DPT", "tu-vit_tiny_patch16_224"),  # with prefix tokens
    ],
)
def test_channels_are_dropped_in_networks_of_all_kinds(arch, encoder):
    network = build_network(arch, encoder, weights="none", channels=3, classes=5)
    method = make(network=lambda: network)
    method.student.eval()
    image, seeds = torch.randn(2, 3, 64, 64), torch.tensor([1, 2])
    plain, perturbed = method._perturbed(image, seeds)
    torch.testing.assert_close(plain, method.student(image), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(perturbed, plain, rtol=1e-3, atol=1e-3)
