"""CPS against its specification: teachers, images used, and updated parameters."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch.nn import functional as F

from fuzzyseg.losses import PIXEL_LOSSES, PixelLossModule, SupervisedLoss
from fuzzyseg.methods import Facts, Progress
from fuzzyseg.methods.cps import CPS
from fuzzyseg.ops.resize import resize_logits
from support.published_boxes import published_mask
from support.tiny_network import TinyNetwork, make_batch

module = importlib.import_module("fuzzyseg.methods.cps")
START = Progress(0, 10)


def make(loss="hard", norm="batch", options=None, **config):
    torch.manual_seed(0)
    pixel = PixelLossModule(PIXEL_LOSSES[loss], options or {}, 0.9)
    return CPS(lambda: TinyNetwork(norm=norm), SupervisedLoss("ce"), pixel, CPS.Config(**config), Facts(5))


def batches(cutmix=True):
    result = {"labelled": make_batch(masks=True, seed=1), "unlabelled": make_batch(masks=False, seed=2)}
    if cutmix:
        result["partner"] = make_batch(masks=False, seed=3)
    return result


def grads(method, loss):
    method.zero_grad()
    loss.backward()
    return [None if p.grad is None else p.grad.clone() for p in method.parameters()]


def cross_entropy(student, teacher, valid):
    z = resize_logits(student, valid.shape[-2:])
    loss = F.cross_entropy(z, teacher.argmax(1), reduction="none")
    return (loss * valid).sum() / valid.sum()


def test_equal_networks_are_refused():
    network = TinyNetwork()
    with pytest.raises(ValueError, match="different seeds"):
        CPS(lambda: network, SupervisedLoss("ce"), None, CPS.Config(), Facts(5))


def test_streams_pair_different_images_only_with_cutmix():
    assert make().streams["partner"].partner == "unlabelled"
    assert "partner" not in make(cutmix=False).streams


def test_lambda_is_1_with_cutmix_and_one_and_a_half_without():
    assert make().weight == 1.0
    assert make(cutmix=False).weight == 1.5
    assert make(unsupervised_weight=5).weight == 5


def test_plain_cps_is_the_cards_formula_on_labelled_and_unlabelled_pixels():
    method, batch = make(cutmix=False, norm="group"), batches(cutmix=False)
    result = method(batch, START).losses
    image = torch.cat([batch["labelled"].image, batch["unlabelled"].image])
    valid = torch.cat([batch["labelled"].valid, batch["unlabelled"].valid])
    z1, z2 = method.first(image), method.second(image)
    t1, t2 = (resize_logits(z, valid.shape[-2:]) for z in (z1, z2))
    expected = 1.5 * (cross_entropy(z1, t2, valid) + cross_entropy(z2, t1, valid))
    torch.testing.assert_close(result["unsupervised"], expected)
    labelled = batch["labelled"]
    supervised = sum(
        F.cross_entropy(resize_logits(n(labelled.image), labelled.size), labelled.mask, ignore_index=255)
        for n in (method.first, method.second)
    )
    torch.testing.assert_close(result["supervised"], supervised)


def test_cutmix_cps_is_the_cards_formula_on_the_mixed_image():
    method, batch = make(norm="group"), batches()
    result = method(batch, START).losses["unsupervised"]
    a, b = batch["unlabelled"], batch["partner"]
    mask = module.box_masks(a.seed, a.size)
    image = torch.where(mask.unsqueeze(1), b.image, a.image)
    valid = torch.where(mask, b.valid, a.valid)
    teachers = [
        torch.where(mask.unsqueeze(1), resize_logits(n(b.image), a.size), resize_logits(n(a.image), a.size))
        for n in (method.first, method.second)
    ]
    expected = cross_entropy(method.first(image), teachers[1], valid)
    expected = expected + cross_entropy(method.second(image), teachers[0], valid)
    torch.testing.assert_close(result, expected)


def test_the_authors_step_from_the_same_numbers():
    """Loss and all gradients: three boxes, training mode with batch norm, no padding (theirs is trained on)."""
    method, batch = make(), batches()
    a, b, labelled = batch["unlabelled"], batch["partner"], batch["labelled"]
    for each in batch.values():
        each.valid = torch.ones_like(each.valid)
    losses = method(batch, START).losses
    result = grads(method, losses["supervised"] + losses["unsupervised"])

    network1, network2 = method.first, method.second
    size = a.image.shape[-2:]

    def full(logits):
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=True)

    masks = torch.stack([published_mask(seed, size, 3, (0.25, 0.5)) for seed in a.seed.tolist()]).unsqueeze(1)
    mixed = a.image * (1 - masks) + b.image * masks
    with torch.no_grad():
        teacher1 = full(network1(a.image)) * (1 - masks) + full(network1(b.image)) * masks
        teacher2 = full(network2(a.image)) * (1 - masks) + full(network2(b.image)) * masks
    label1, label2 = teacher1.argmax(1), teacher2.argmax(1)
    student1, student2 = full(network1(mixed)), full(network2(mixed))
    cps = F.cross_entropy(student1, label2) + F.cross_entropy(student2, label1)
    supervised = F.cross_entropy(full(network1(labelled.image)), labelled.mask, ignore_index=255)
    supervised = supervised + F.cross_entropy(full(network2(labelled.image)), labelled.mask, ignore_index=255)
    assert (label1 != label2).float().mean() > 0.2
    assert 0.05 < masks.mean() < 0.5
    torch.testing.assert_close(losses["unsupervised"], cps)
    torch.testing.assert_close(losses["supervised"], supervised)
    for ours, theirs in zip(result, grads(method, supervised + cps), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cutmix", [True, False])
def test_balance_is_one_factor_over_both_directions(cutmix):
    """As released: (hard12 + hard21) / (fuzzy12 + fuzzy21), so that the term equals the hard loss."""
    batch = batches(cutmix)
    gradients, values, factors = {}, {}, []
    for name, options in (("hard", {}), ("fuzzy", {}), ("balanced", {"balance": True})):
        method = make("hard" if name == "hard" else "fuzzy", norm="group", options=options, cutmix=cutmix)
        with torch.no_grad():
            method.second.head.weight.mul_(10)  # one network is confident, so that separate factors would differ
        step = method(batch, START)
        values[name] = step.losses["unsupervised"].detach()
        gradients[name] = grads(method, step.losses["unsupervised"])
        factors.append(step.metrics.get("balance"))
    torch.testing.assert_close(values["balanced"], values["hard"])
    factor = values["hard"] / values["fuzzy"]
    torch.testing.assert_close(factors[-1], factor)
    assert abs(factor - 1) > 0.05
    for plain, balanced in zip(gradients["fuzzy"], gradients["balanced"], strict=True):
        torch.testing.assert_close(balanced, factor * plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cutmix", [True, False])
def test_no_gradient_reaches_a_teacher(cutmix):
    method, batch = make(cutmix=cutmix, norm="group"), batches(cutmix)
    original = method.pixel_loss.forward

    def only_first(*args, **kwargs):
        result = original(*args, **kwargs)
        first, second = result.loss.chunk(2)
        result.loss = torch.cat([first, second.detach() * 0])
        return result

    method.pixel_loss.forward = only_first
    method.zero_grad()
    method(batch, START).losses["unsupervised"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.first.parameters())
    assert all(p.grad is None or not p.grad.any() for p in method.second.parameters())


@pytest.mark.parametrize(("cutmix", "takes_part"), [(True, False), (False, True)])
def test_labelled_images_take_part_only_without_cutmix(cutmix, takes_part):
    method, batch = make(cutmix=cutmix, norm="group"), batches(cutmix)
    before = method(batch, START).losses["unsupervised"]
    batch["labelled"].image = batch["labelled"].image + 1.0
    after = method(batch, START).losses["unsupervised"]
    assert (before != after) == takes_part


@pytest.mark.parametrize("value", [False, True])
def test_a_constant_mask_picks_one_image_for_input_target_and_validity(value, monkeypatch):
    method, batch = make(norm="group"), batches()
    monkeypatch.setattr(
        module, "box_masks", lambda seeds, size, **_: torch.full((len(seeds), *size), value, dtype=torch.bool)
    )
    result = method(batch, START).losses["unsupervised"]
    chosen = batch["partner" if value else "unlabelled"]
    z1, z2 = method.first(chosen.image), method.second(chosen.image)
    t1, t2 = (resize_logits(z, chosen.size) for z in (z1, z2))
    expected = cross_entropy(z1, t2, chosen.valid) + cross_entropy(z2, t1, chosen.valid)
    torch.testing.assert_close(result, expected)


def test_teacher_forwards_update_batch_norm_like_the_authors():
    method, batch = make(), batches()
    method(batch, START)
    # labelled, two clean images, the mixed one
    assert int(method.first.encoder["fine"][1].num_batches_tracked) == 4
    assert int(method.second.encoder["fine"][1].num_batches_tracked) == 4


def test_ramp_scales_the_unsupervised_term_alone():
    method, batch = make(norm="group", ramp_steps=4), batches()
    full = method(batch, Progress(7, 10)).losses
    part = method(batch, Progress(1, 10)).losses
    torch.testing.assert_close(part["unsupervised"], full["unsupervised"] / 2)
    torch.testing.assert_close(part["supervised"], full["supervised"])


@pytest.mark.parametrize("cutmix", [True, False])
def test_fuzzy_with_one_positive_and_no_weight_is_the_hard_loss(cutmix):
    batch = batches(cutmix)
    hard = make("hard", norm="group", cutmix=cutmix)
    fuzzy = make("fuzzy", norm="group", options={"k_cap": 1, "weight": "none"}, cutmix=cutmix)
    fuzzy.load_state_dict(hard.state_dict())
    losses = [m(batch, START).losses["unsupervised"] for m in (hard, fuzzy)]
    torch.testing.assert_close(losses[0], losses[1])
    for a, b in zip(grads(hard, losses[0]), grads(fuzzy, losses[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_identical_networks_would_teach_each_other_what_they_know():
    method, batch = make(norm="group", cutmix=False), batches(cutmix=False)
    method.second.load_state_dict(method.first.state_dict())
    gradient = grads(method, method(batch, START).losses["unsupervised"])
    half = len(gradient) // 2
    for a, b in zip(gradient[:half], gradient[half:], strict=True):
        torch.testing.assert_close(a, b)


def test_step_reports_what_the_teacher_believes():
    metrics = make("fuzzy", norm="group")(batches(), START).metrics
    assert {"k_histogram", "weight", "confidence", "label_histogram"} <= metrics.keys()
    assert not any(value.requires_grad for value in metrics.values())
    torch.testing.assert_close(metrics["label_histogram"].sum(), torch.tensor(1.0))


def test_predictor_is_the_first_network():
    method = make()
    assert method.predictor() is method.first
