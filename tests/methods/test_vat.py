"""VAT against its specification; the direction is tested in tests/ops/test_gradient.py."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fuzzyseg.losses import PIXEL_LOSSES, PixelLossModule, SupervisedLoss
from fuzzyseg.methods import Facts, Progress
from fuzzyseg.methods.vat import VAT
from fuzzyseg.ops.resize import resize_logits
from support.tiny_network import TinyNetwork, make_batch

START = Progress(0, 10)


def make(loss=None, norm="group", options=None, dropout=0.0, **config):
    torch.manual_seed(0)
    pixel = None if loss is None else PixelLossModule(PIXEL_LOSSES[loss], options or {}, 0.9)
    network = lambda: TinyNetwork(norm=norm, dropout=dropout)  # noqa: E731
    return VAT(network, SupervisedLoss("ce"), pixel, VAT.Config(**config), Facts(5))


def batches(method):
    return {
        name: make_batch(masks=stream.source == "labelled", seed=number, view=stream.view)
        for number, (name, stream) in enumerate(method.streams.items(), start=1)
    }


def unsupervised(method, batch):
    torch.manual_seed(3)
    return method(batch, START).losses["unsupervised"]


def offset_of(method, batch):
    """The offset that `forward` adds for `unsupervised`."""
    free = batch["unlabelled"]
    source = method.teacher or method.student
    seen = free.strong[0] if free.strong else free.image
    torch.manual_seed(3)
    return method.perturbation(source, seen, source(free.image).detach(), free.valid)


@pytest.mark.parametrize("epsilon", [0.1, 2.0, 10.0])
@pytest.mark.parametrize("radius", ["adaptive", "fixed"])
def test_offset_has_the_radius_of_each_image(radius, epsilon):
    method = make(radius=radius, epsilon=epsilon)
    batch = batches(method)
    offset, length = offset_of(method, batch)
    image = batch["unlabelled"].image
    down, across = image[:, :, 2:] - image[:, :, :-2], image[..., 2:] - image[..., :-2]
    varies = (down.square().sum((1, 2, 3)) + across.square().sum((1, 2, 3))).sqrt()
    expected = epsilon * (varies / 2 if radius == "adaptive" else torch.full((3,), (3 * 12 * 14) ** 0.5))
    torch.testing.assert_close(length, expected)
    torch.testing.assert_close(torch.linalg.vector_norm(offset, dim=(1, 2, 3)), expected, rtol=1e-3, atol=0)
    assert not offset.requires_grad


def test_defaults_are_the_cards():
    assert (make().weight, make("fuzzy").weight, make(unsupervised_weight=3).weight) == (0.1, 1.0, 3.0)
    assert (make().epsilon, make(radius="fixed").epsilon) == (1.0, 0.5)
    assert make().streams["unlabelled"].source == "all"


def test_the_loss_is_alpha_times_the_mean_divergence_at_the_offset():
    method = make()
    batch = batches(method)
    result, free = unsupervised(method, batch), batch["unlabelled"]
    offset, _ = offset_of(method, batch)
    p = resize_logits(method.student(free.image), free.size).softmax(1)
    q = resize_logits(method.student(free.image + offset), free.size).softmax(1)
    kl = (p * (p.log() - q.log())).sum(1)
    torch.testing.assert_close(result, 0.1 * (kl * free.valid).sum() / free.valid.sum())
    labelled = batch["labelled"]
    z = resize_logits(method.student(labelled.image), labelled.size)
    torch.testing.assert_close(
        method(batch, START).losses["supervised"], F.cross_entropy(z, labelled.mask, ignore_index=255)
    )


def test_the_gradient_flows_through_the_offset_image_alone():
    """The gradient equals that with constant target and offset."""
    method = make()
    batch = batches(method)
    free = batch["unlabelled"]
    unsupervised(method, batch).backward()
    result = [p.grad.clone() for p in method.student.parameters()]
    offset, _ = offset_of(method, batch)
    p = method.student(free.image).detach()
    method.zero_grad()
    p = resize_logits(p, free.size).softmax(1)
    kl = (p * (p.log() - resize_logits(method.student(free.image + offset), free.size).log_softmax(1))).sum(1)
    (0.1 * (kl * free.valid).sum() / free.valid.sum()).backward()
    for got, expected in zip(result, [p.grad for p in method.student.parameters()], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-6)


def test_a_constant_network_has_neither_loss_nor_gradient():
    method = make()
    with torch.no_grad():
        method.student.head.weight.zero_()
    loss = unsupervised(method, batches(method))
    loss.backward()
    assert abs(float(loss.detach())) < 1e-7
    assert all(p.grad is None or p.grad.abs().max() < 1e-7 for p in method.student.parameters())


def test_padding_counts_neither_in_loss_nor_in_direction():
    method = make(norm="batch").eval()
    batch = {"labelled": make_batch(masks=True), "unlabelled": make_batch(size=(32, 32), masks=False)}
    batch["unlabelled"].valid[:] = False
    batch["unlabelled"].valid[:, :6, :6] = True
    offset, _ = offset_of(method, batch)
    assert offset[:, :, :6, :6].any()
    assert not offset[:, :, 24:, 24:].any()  # no effect on valid pixels
    before = unsupervised(method, batch)
    batch["unlabelled"].image[:, :, 24:, 24:] = 0  # changes only the radius, which depends on the whole image
    method.config = method.config.model_copy(update={"radius": "fixed"})
    after = unsupervised(method, batch)
    batch["unlabelled"].image[:, :, 24:, 24:] = 1
    assert before != after
    torch.testing.assert_close(unsupervised(method, batch), after)


def test_weight_and_scalar_confidence_scale_the_loss():
    once, twice = make(unsupervised_weight=1), make(unsupervised_weight=2)
    batch = batches(once)
    torch.testing.assert_close(unsupervised(twice, batch), 2 * unsupervised(once, batch))
    free = batch["unlabelled"]
    top = resize_logits(once.student(free.image), free.size).softmax(1).amax(1)
    half = float(top[free.valid].median().detach())
    filtered = make(unsupervised_weight=1, confidence=half)
    share = ((top >= half) & free.valid).sum() / free.valid.sum()
    assert 0.4 < float(share) < 0.6
    torch.testing.assert_close(unsupervised(filtered, batch), share * unsupervised(once, batch))


def test_dropout_is_off_where_predictions_are_compared():
    """With a tiny offset the divergence is tiny, in spite of dropout."""
    method = make(dropout=0.5, epsilon=1e-6, radius="fixed")
    assert float(unsupervised(method, batches(method))) < 1e-6


def test_batch_norm_moves_with_the_labelled_and_the_clean_image_only():
    method = make(norm="batch")
    method(batches(method), START)
    assert int(method.student.encoder["fine"][1].num_batches_tracked) == 2
    assert all(module.training for module in method.modules())


def test_micro_batches_equal_one_batch_where_the_noise_does(monkeypatch):
    """Noise is drawn per micro-batch; with fixed noise per image, everything else is an average over images."""
    method = make()
    batch = batches(method)
    batch["unlabelled"].valid[:] = True
    noise = torch.randn_like(batch["unlabelled"].image)
    part = {"at": slice(0, 3)}
    monkeypatch.setattr(torch, "randn_like", lambda _: noise[part["at"]])
    whole = unsupervised(method, batch)
    values = []
    for i in range(3):
        part["at"] = slice(i, i + 1)
        free = batch["unlabelled"]
        one = make_batch(1, masks=False)
        one.image, one.valid = free.image[i : i + 1], free.valid[i : i + 1]
        values.append(unsupervised(method, {**batch, "unlabelled": one}))
    torch.testing.assert_close(torch.stack(values).mean(), whole)


def test_the_mean_teacher_gives_target_and_direction_and_follows():
    method = make(norm="batch", target="teacher", jitter=True)
    with torch.no_grad():
        for p in method.teacher.parameters():
            p.mul_(1.5)
    batch = batches(method.train())
    assert not any(module.training for module in method.teacher.modules())
    assert method.predictor() is method.teacher
    seen = []
    forward = method.student.forward
    method.student.forward = lambda image: (seen.append(image), forward(image))[1]
    unsupervised(method, batch)
    offset, _ = offset_of(method, batch)
    assert len(seen) == 2  # labelled, and strong plus offset: the direction is the teacher's
    torch.testing.assert_close(seen[1], batch["unlabelled"].strong[0] + offset)
    before = {k: v.clone() for k, v in method.teacher.state_dict().items()}
    method.after_step(START)
    student = method.student.state_dict()
    for key, value in method.teacher.state_dict().items():
        expected = 0.99 * before[key] + 0.01 * student[key] if value.is_floating_point() else student[key]
        torch.testing.assert_close(value, expected)
    assert not any(p.requires_grad for p in method.teacher.parameters())


@pytest.mark.parametrize("loss", ["hard", "fuzzy"])
def test_a_pixel_loss_takes_the_place_of_the_divergence(loss):
    method = make(loss)
    batch = batches(method)
    free = batch["unlabelled"]
    found = unsupervised(method, batch)
    offset, _ = offset_of(method, batch)  # still from the KL divergence
    result = method.pixel_loss(
        method.student(free.image + offset),
        method.student(free.image),
        size=free.size,
        valid=free.valid,
        progress=START,
    )
    torch.testing.assert_close(found, (result.loss * free.valid).sum() / free.valid.sum())


def test_fuzzy_with_one_positive_and_no_weight_is_the_hard_loss():
    hard, fuzzy = make("hard"), make("fuzzy", options={"k_cap": 1, "weight": "none"})
    batch = batches(hard)
    torch.testing.assert_close(unsupervised(hard, batch), unsupervised(fuzzy, batch))


@pytest.mark.parametrize("target", ["student", "teacher"])
def test_bf16_trains_all_that_fp32_does(target):
    method = make(target=target)
    batch = batches(method)
    exact, _ = offset_of(method, batch)
    result = []
    perturbation = method.perturbation
    method.perturbation = lambda *given: (result.append(perturbation(*given)), result[-1])[1]
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(3)
        losses = method(batch, START).losses
    assert all(value.dtype == torch.float32 for value in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in method.student.parameters())
    torch.testing.assert_close(result[0][0], exact)  # found in fp32
