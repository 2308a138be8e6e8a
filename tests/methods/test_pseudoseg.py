"""PseudoSeg against its specification: the designed label, gradients, and the hidden square.

Activation maps are tested in test_pseudoseg_cam.py.
"""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fuzzyseg.data.transforms.geometry import Geometry, make_sample
from fuzzyseg.losses import PIXEL_LOSSES, PixelLossModule, SupervisedLoss
from fuzzyseg.methods import Facts, Progress
from fuzzyseg.methods.pseudoseg import PseudoSeg
from fuzzyseg.methods.pseudoseg.cam import activation_maps, attended
from fuzzyseg.networks import build_network
from fuzzyseg.ops.module_mode import evaluating
from fuzzyseg.ops.resize import resize_logits
from support.tiny_network import TinyNetwork, make_batch

module = importlib.import_module("fuzzyseg.methods.pseudoseg")
START = Progress(0, 10)


def make(loss="soft", norm="group", network=None, options=None, background=None, **config):
    torch.manual_seed(0)
    pixel = PixelLossModule(PIXEL_LOSSES[loss], options or {}, 0.9)
    config = {"attention_channels": 6, "cutout": 0.2, **config}
    network = network or (lambda: TinyNetwork(norm=norm))
    facts = Facts(5, background=background)
    method = PseudoSeg(network, SupervisedLoss("ce"), pixel, PseudoSeg.Config(**config), facts)
    if norm == "group":  # frozen statistics, so that calls can be compared
        method.calibrate[1].momentum = 0.0
    return method


def batches(method, size=(12, 14), count=3):
    return {
        name: make_batch(count, size, masks=stream.source == "labelled", seed=number, view=stream.view)
        for number, (name, stream) in enumerate(method.streams.items())
    }


def nearest(valid, size):
    return F.interpolate(valid[:, None].float(), size=size)[:, 0].bool()


def designed(method, batch):
    """The label of the weak view, step by step: probabilities (B,C,h,w)."""
    weak = batch["unlabelled"]
    z_w = method.student(weak.image)
    with evaluating(method.student):
        _, fine, coarse = method.student.encode(weak.image)
        s = coarse.mean((2, 3)) @ method.classifier.weight.flatten(1).T + method.classifier.bias
        maps = activation_maps(coarse, method.classifier.weight.flatten(1), s.sigmoid() >= 0.5)
        seen = torch.cat([resize_logits(fine, coarse.shape[-2:]), coarse], 1)
        a = attended(maps, method.query(seen), method.key(seen), nearest(weak.valid, coarse.shape[-2:]))
        at = method.facts.background
        if at is not None:
            a = torch.cat([a[:, :at], 2 - a.max(1, keepdim=True).values, a[:, at:]], 1)
        z_m = resize_logits(method.calibrate(a), z_w.shape[-2:])
    scale = (torch.stack([z_w, z_m]) ** 2).mean((0, 2, 3, 4)).sqrt()[:, None, None, None]
    share = method.config.fusion
    return share * torch.softmax(z_w / scale, 1) + (1 - share) * torch.softmax(z_m / scale, 1)


def strong_view(method, batch):
    unlabelled = batch["unlabelled"]
    hidden = module.square_masks(unlabelled.seed, unlabelled.size, round(0.2 * 12))
    z_s = method.student(unlabelled.strong[0] * ~hidden[:, None])
    return z_s, nearest(unlabelled.valid & ~hidden, z_s.shape[-2:])


def test_brightness_is_added_as_published():
    """A number in [-0.5, 0.5] for an image of one grey, which contrast, saturation and hue do not change."""
    view = make().streams["unlabelled"].view
    geometry = Geometry((8, 8), (1.0, 1.0))
    changes = []
    for level, seed in ((level, seed) for level in (0, 64, 128, 255) for seed in range(400)):
        image = torch.full((3, 8, 8), level, dtype=torch.uint8)
        strong = make_sample(view, image, None, geometry=geometry, mean=[0.5] * 3, std=[0.2] * 3, seed=seed)["strong"]
        assert strong.max() - strong.min() <= 1
        changes.append((level, (strong[0, 0, 0, 0].item() - level) / 255))
    grey, dark = ([change for at, change in changes if at == level] for level in (128, 64))
    assert (sum(change**2 for change in grey) / len(grey)) ** 0.5 == pytest.approx(12**-0.5, abs=0.02)
    assert -0.505 <= min(grey) < -0.48 < 0.48 < max(grey) <= 0.505
    assert 0.48 < max(dark) <= 0.505  # the number does not depend on the grey level, except near black and white
    assert min(dark) == -64 / 255
    assert max(change for level, change in changes if level == 0) > 0.48
    assert min(change for level, change in changes if level == 255) < -0.48


@pytest.mark.parametrize(("background", "fusion"), [(None, 0.5), (0, 0.8), (2, 0.5)])
def test_the_strong_view_learns_the_sharpened_label(background, fusion):
    method = make(background=background, fusion=fusion)
    batch = batches(method)
    result = method(batch, START).losses["unsupervised"]
    p = designed(method, batch) ** 2
    p = p / p.sum(1, keepdim=True)
    z_s, valid = strong_view(method, batch)
    expected = (-(p * z_s.log_softmax(1)).sum(1) * valid).sum() / valid.sum()
    torch.testing.assert_close(result, expected)
    assert method.classifier.out_channels == (5 if background is None else 4)


@pytest.mark.parametrize(("loss", "temperature"), [("hard", 0.5), ("soft", 0.5), ("fuzzy", 0.5), ("fuzzy", 1.0)])
def test_a_pixel_loss_gets_the_label_as_logits(loss, temperature):
    method = make(loss, **({} if temperature == 0.5 else {"temperature": temperature}))
    batch = batches(method)
    given, original = {}, method.pixel_loss.forward

    def listening(student, teacher, **kwargs):
        given.update(teacher=teacher, **kwargs)
        return original(student, teacher, **kwargs)

    method.pixel_loss.forward = listening
    method(batch, START)
    p = designed(method, batch) ** (1 / temperature)
    torch.testing.assert_close(given["teacher"].softmax(1), p / p.sum(1, keepdim=True))
    assert not given["teacher"].requires_grad
    assert torch.equal(given["valid"], strong_view(method, batch)[1])
    assert given["size"] == (6, 7)


def test_a_label_that_is_sure_makes_all_losses_cross_entropy(monkeypatch):
    label = torch.randint(0, 5, (3, 6, 7))
    sure = F.one_hot(label, 5).movedim(-1, 1).float()
    result = {}
    for loss in ("hard", "soft", "fuzzy"):
        method = make(loss)
        monkeypatch.setattr(module, "fused", lambda *_, **__: sure)
        result[loss] = method(batches(method), START).losses["unsupervised"]
    z_s, valid = strong_view(method, batches(method))
    expected = (F.cross_entropy(z_s, label, reduction="none") * valid).sum() / valid.sum()
    for value in result.values():
        torch.testing.assert_close(value, expected)


def test_the_threshold_silences_pixels_but_not_the_denominator(monkeypatch):
    label = torch.randint(0, 5, (3, 6, 7))
    p = torch.full((3, 5, 6, 7), 0.1).scatter(1, label[:, None], 0.6)
    p[:, :, :3] = 0.2
    monkeypatch.setattr(module, "fused", lambda *_, **__: p)
    method = make("hard", threshold=0.5, temperature=1.0)
    batch = batches(method)
    result = method(batch, START).losses["unsupervised"]
    z_s, valid = strong_view(method, batch)
    kept = F.cross_entropy(z_s, label, reduction="none")[:, 3:] * valid[:, 3:]
    torch.testing.assert_close(result, kept.sum() / valid.sum())


def test_labelled_images_teach_classifier_and_attention_by_the_cards_formula():
    method = make(background=1)
    batch = batches(method)
    labelled = batch["labelled"]
    labelled.mask[0][labelled.mask[0] == 3] = 4
    labelled.mask[2] = 255
    result = method(batch, START).losses
    _, fine, coarse = method.student.encode(labelled.image)
    shown = torch.tensor([[bool((m == c).any()) for c in (0, 2, 3, 4)] for m in labelled.mask])
    assert shown.any()
    assert not shown.all()
    s = coarse.mean((2, 3)) @ method.classifier.weight.flatten(1).T + method.classifier.bias
    expected = F.binary_cross_entropy_with_logits(s[:2], shown[:2].float())  # the third image has no labelled pixel
    torch.testing.assert_close(result["images"], expected)
    maps = activation_maps(coarse, method.classifier.weight.flatten(1), shown)
    seen = torch.cat([resize_logits(fine, coarse.shape[-2:]), coarse], 1)
    a = attended(maps, method.query(seen), method.key(seen), nearest(labelled.valid, coarse.shape[-2:]))
    a = torch.cat([a[:, :1], 2 - a.max(1, keepdim=True).values, a[:, 1:]], 1)
    z = resize_logits(method.calibrate(a), labelled.size)
    torch.testing.assert_close(result["attention"], F.cross_entropy(z, labelled.mask, ignore_index=255))
    z = resize_logits(method.student(labelled.image), labelled.size)
    torch.testing.assert_close(result["supervised"], F.cross_entropy(z, labelled.mask, ignore_index=255))


def learners(method, loss):
    """The modules that get a gradient from a loss."""
    method.zero_grad()
    loss.backward(retain_graph=True)
    return {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}


def test_each_loss_teaches_its_own_parts():
    method = make(background=0)
    losses = method(batches(method), START).losses
    assert learners(method, losses["unsupervised"]) == {"student"}
    assert learners(method, losses["supervised"]) == {"student"}
    assert learners(method, losses["attention"]) == {"query", "key", "calibrate"}
    assert learners(method, losses["images"]) == {"student", "classifier"}
    assert all(p.grad is None or not p.grad.any() for p in method.student.decoder.parameters())


def test_the_weak_view_is_neither_hidden_nor_taught(monkeypatch):
    method = make()
    batch = batches(method)
    before = method(batch, START).losses
    assert not torch.equal(before["unsupervised"], make(cutout=0.0)(batch, START).losses["unsupervised"])
    seen, original = [], method.student.forward
    method.student.forward = lambda image: seen.append((image, torch.is_grad_enabled())) or original(image)
    method(batch, START)
    unlabelled = batch["unlabelled"]
    (weak, taught), (strong, _) = seen
    assert torch.equal(weak, unlabelled.image)
    assert not taught
    hidden = module.square_masks(unlabelled.seed, unlabelled.size, round(0.2 * 12))
    assert hidden.any()
    assert torch.equal(strong, unlabelled.strong[0] * ~hidden[:, None])
    del method.student.forward
    # pixels under the square have no influence
    unlabelled.strong = (torch.where(hidden[:, None], 9.0, unlabelled.strong[0]),)
    torch.testing.assert_close(method(batch, START).losses["unsupervised"], before["unsupervised"])


def test_the_maps_come_from_a_pass_in_evaluation_mode_and_the_labels_from_training_mode():
    method = make(norm="batch")
    method(batches(method), START)
    # weak, strong, labelled; the decoder sees the same three
    assert int(method.student.encoder["fine"][1].num_batches_tracked) == 3
    assert int(method.student.decoder[1].num_batches_tracked) == 3
    assert int(method.calibrate[1].num_batches_tracked) == 2  # weak and labelled: it is in training mode in both
    assert method.training
    assert method.calibrate.training


def test_micro_batches_are_one_batch_but_for_the_calibrating_layer():
    method = make()
    method.calibrate.eval()
    whole = batches(method, count=4)
    for each in whole.values():
        each.valid[:] = True
        if each.mask is not None:
            each.mask[each.mask == 255] = 0
    expected = method(whole, START).losses
    sums = dict.fromkeys(expected, 0.0)
    hidden = module.square_masks(whole["unlabelled"].seed, (12, 14), 2)
    for half in (slice(0, 2), slice(2, 4)):
        part = {}
        for name, b in whole.items():
            mask = None if b.mask is None else b.mask[half]
            part[name] = type(b)(b.image[half], b.valid[half], mask, b.index[half], b.name[half], b.seed[half],
                                 b.drawn_for[half], tuple(s[half] for s in b.strong))  # fmt: skip
        share = float(nearest(~hidden[half], (6, 7)).sum() / nearest(~hidden, (6, 7)).sum())
        for name, value in method(part, START).losses.items():
            sums[name] = sums[name] + value * (share if name == "unsupervised" else 0.5)
    for name, value in expected.items():
        torch.testing.assert_close(sums[name], value)


def test_the_batch_of_another_image_changes_a_label_only_if_asked_for():
    for over, meets in (("image", False), ("batch", True)):
        method = make(normalise=over)
        method.calibrate.eval()  # in training mode its batch norm sees all images
        given = []
        method.pixel_loss.forward = lambda s, t, given=given, **kwargs: (
            given.append(t) or PIXEL_LOSSES["soft"](s, t, size=kwargs["size"], valid=kwargs["valid"], maps=True)
        )
        batch = batches(method)
        method(batch, START)
        batch["unlabelled"].image[1:] *= 5
        method(batch, START)
        assert torch.allclose(given[0][0], given[1][0], atol=1e-5) != meets


def test_networks_without_what_it_needs_are_refused():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Conv2d(3, 5, 1)

    with pytest.raises(ValueError, match="Plain has no encode, decode, classify"):
        make(network=Plain)

    class Silent(TinyNetwork):
        encoder_channels = None

    with pytest.raises(ValueError, match="encoder_channels"):
        make(network=Silent)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "encoder", "options"),
    [("FPN", "mobilenet_v2", {}), ("DPT", "tu-vit_tiny_patch16_224", {"embed_dim": 24, "num_heads": 2})],
)
def test_networks_of_all_kinds(arch, encoder, options):
    network = build_network(arch, encoder, weights="none", channels=3, classes=5, options=options)
    method = make(network=lambda: network, background=0)
    losses = method(batches(method, (64, 96)), START).losses
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad.any() for name in ("query", "key", "classifier") for p in getattr(method, name).parameters())
