"""PC2Seg against its specification. Elsewhere: InfoNCE in tests/losses/test_contrast.py, draws in
test_pc2seg_negatives.py, the colour of padding in tests/data/transforms/test_geometry.py.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fuzzyseg.data.views import WeakStrong
from fuzzyseg.losses import PIXEL_LOSSES, PixelLossModule, SupervisedLoss, masked_mean
from fuzzyseg.methods import Facts, Progress
from fuzzyseg.methods.pc2seg import PC2Seg
from fuzzyseg.ops.resize import resize_logits
from support.tiny_network import TinyNetwork, make_batch

LATE = Progress(5, 10)


def make(loss=None, options=None, **config):
    torch.manual_seed(0)
    pixel = None if loss is None else PixelLossModule(PIXEL_LOSSES[loss], options or {}, 0.9)
    network = lambda: TinyNetwork(norm="group")  # noqa: E731
    return PC2Seg(network, SupervisedLoss("ce"), pixel, PC2Seg.Config(**{"negatives": 6} | config), Facts(5))


def batches(count=3, size=(12, 16)):
    batch = {
        "labelled": make_batch(count, size, masks=True, seed=1),
        "unlabelled": make_batch(count, size, masks=False, seed=2, view=WeakStrong()),
    }
    batch["unlabelled"].valid[:] = True
    batch["unlabelled"].valid[0, :5] = False  # padding above
    return batch


def predictions(method, batch):
    samples = batch["unlabelled"]
    return [
        torch.softmax(resize_logits(method.student(image), samples.size), 1)
        for image in (samples.strong[0], samples.image)
    ]


@pytest.mark.parametrize("kind", ["cosine", "l2"])
def test_the_consistency_is_the_cards_over_valid_pixels(kind):
    method, batch = make(consistency=kind, consistency_weight=2.0), batches()
    result = method(batch, LATE).losses["consistency"]
    p, q = predictions(method, batch)
    total, count = 0.0, 0
    for b, y, x in batch["unlabelled"].valid.nonzero().tolist():
        one, other = p[b, :, y, x], q[b, :, y, x].detach()
        if kind == "l2":
            total = total + ((one - other) ** 2).sum()
        else:
            total = total + ((one / one.norm() - other / other.norm()) ** 2).sum() / 2
        count += 1
    torch.testing.assert_close(result, 2 * total / count)
    ours = torch.autograd.grad(result, list(method.student.parameters()))
    theirs = torch.autograd.grad(2 * total / count, list(method.student.parameters()))
    for a, b in zip(ours, theirs, strict=True):  # no gradient through the weak view
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", ["cosine", "l2"])
def test_equal_views_are_consistent(kind):
    method, batch = make(consistency=kind), batches()
    batch["unlabelled"].strong = (batch["unlabelled"].image,)
    assert abs(float(method(batch, LATE).losses["consistency"].detach())) < 1e-6


@pytest.mark.parametrize("kind", ["cosine", "l2"])
def test_either_view_is_as_far_from_the_other(kind):
    method, samples = make(consistency=kind), batches()["unlabelled"]
    one, other = torch.randn(2, 3, 5, 6, 8)
    result = method._distance(one, other, size=samples.size, valid=samples.valid)
    assert result.min() > 0
    torch.testing.assert_close(result, method._distance(other, one, size=samples.size, valid=samples.valid))


@pytest.mark.parametrize("loss", ["hard", "fuzzy"])
def test_a_pixel_loss_takes_the_place_of_the_consistency_with_its_own_weight(loss):
    method, batch = make(loss, unsupervised_weight=3.0, consistency_weight=100.0), batches()
    torch.manual_seed(1)
    result = method(batch, LATE)
    samples = batch["unlabelled"]
    strong, weak = method.student(samples.strong[0]), method.student(samples.image)
    expected = method.pixel_loss(strong, weak.detach(), size=samples.size, valid=samples.valid, progress=LATE)
    torch.testing.assert_close(result.losses["consistency"], 3 * masked_mean(expected.loss, samples.valid))
    assert "confidence" in result.metrics
    plain = make()
    torch.manual_seed(1)
    assert torch.equal(result.losses["contrast"], plain(batch, LATE).losses["contrast"])


def test_the_ramp_grows_over_a_tenth_of_the_run_and_leaves_the_other_terms():
    method, batch = make(), batches()
    torch.manual_seed(1)
    early = method(batch, Progress(4, 100)).losses
    torch.manual_seed(1)
    late = method(batch, Progress(50, 100)).losses
    torch.testing.assert_close(early["consistency"], late["consistency"] / 2)
    assert torch.equal(early["contrast"], late["contrast"])
    assert torch.equal(early["supervised"], late["supervised"])


def watched(method):
    """Record of the arguments and results of each draw of negatives."""
    draws, draw = [], method._negatives

    def negatives(*given):
        draws.append((given, draw(*given)))
        return draws[-1][1]

    method._negatives = negatives
    return draws


def test_the_contrast_is_the_cards_for_the_negatives_that_were_drawn():
    method, batch = make(contrast_weight=1.0, temperature=0.3), batches()
    draws = watched(method)
    result = method(batch, LATE).losses["contrast"]
    ((_, (index, able)),) = draws
    samples = batch["unlabelled"]
    ours, theirs = (
        F.normalize(method.projector(method.student.encode(image)[-1]), dim=1).movedim(1, -1).flatten(0, 2)
        for image in (samples.strong[0], samples.image)
    )
    whole = samples.valid.view(3, 3, 4, 4, 4).all(4).all(2).flatten()
    assert int(whole.sum()) == 36 - 8
    losses = []
    for n in whole.nonzero().flatten().tolist():
        positive = torch.exp(ours[n] @ theirs[n].detach() / 0.3)
        negative = sum(torch.exp(ours[n] @ theirs[k].detach() / 0.3) for k in index[n].tolist())
        losses.append(-torch.log(positive / (positive + negative)))
    expected = torch.stack(losses).mean()
    assert able.all()
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-6)
    parameters = [*method.projector.parameters(), *method.student.encoder.parameters()]
    for a, b in zip(
        torch.autograd.grad(result, parameters, retain_graph=True),
        torch.autograd.grad(expected, parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    above = [*method.student.decoder.parameters(), *method.student.head.parameters()]
    assert all(g is None for g in torch.autograd.grad(result, above, allow_unused=True))


def test_the_loss_is_the_mean_over_anchors_that_have_a_negative():
    method, valid = make(contrast_weight=1.0, temperature=0.3), batches()["unlabelled"].valid
    label = torch.ones(3, 3, 4, dtype=torch.long)
    label[0, 2, 0] = 2  # the only negative of other images' cells, and the only anchor of this image with negatives
    weak = 1e4 * F.one_hot(label, 5).movedim(-1, 1).float()
    features = torch.randn(6, 8, 3, 4, requires_grad=True)
    draws = watched(method)
    result = method._contrast(features, weak, valid)
    ((_, (index, able)),) = draws
    anchors = [8, *range(12, 36)]
    assert able[12:].all() and able[:12].nonzero().flatten().tolist() == [8]
    assert (index[12:] == 8).all()
    projected = F.normalize(method.projector(features), dim=1).movedim(1, -1).flatten(0, 2)
    theirs, ours = projected[:36].detach(), projected[36:]
    losses = []
    for n in anchors:
        positive = torch.exp(ours[n] @ theirs[n] / 0.3)
        negative = sum(torch.exp(ours[n] @ theirs[k] / 0.3) for k in index[n].tolist())
        losses.append(-torch.log(positive / (positive + negative)))
    torch.testing.assert_close(result, torch.stack(losses).mean())
    (gradient,) = torch.autograd.grad(result, features)
    pulled = gradient.abs().sum(1).flatten().nonzero().flatten() - 36
    assert pulled.tolist() == anchors


def test_what_is_predicted_on_padding_changes_nothing():
    method, batch = make(contrast_weight=1.0), batches()
    result = []
    for change in (0.0, 5.0):
        torch.manual_seed(0)
        encode = TinyNetwork.encode.__get__(method.student)

        def altered(image, encode=encode, change=change):
            image_, fine, coarse = encode(image)
            coarse = coarse.clone()
            coarse[[3, 6], :, 0] += change  # the weak and the strong view of the first unlabelled image, rows 0 to 3
            return [image_, fine, coarse]

        method.student.encode = altered
        features = method.student.encode(torch.cat([batch["unlabelled"].image] * 3))[-1][3:]
        weak = torch.randn(3, 5, 6, 8, generator=torch.Generator().manual_seed(1))
        weak[0, :, :2] += change
        result.append(method._contrast(features, weak, batch["unlabelled"].valid))
    assert torch.equal(*result)


def test_without_weights_it_is_supervised_training():
    method, batch = make(consistency_weight=0.0, contrast_weight=0.0), batches()
    torch.stack(list(method(batch, LATE).losses.values())).sum().backward()
    other = make()
    labelled = batch["labelled"]
    other.supervised_loss(other.student(labelled.image), labelled.mask).backward()
    for ours, theirs in zip(method.student.parameters(), other.student.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    assert not any(p.grad.any() for p in method.projector.parameters())


def test_the_strong_view_is_colour_jitter_alone():
    view = make().streams["unlabelled"].view
    assert view == WeakStrong(1, 0.5, 0.5, 0.5, 0.25, 1.0, 0.0, 0.0, add_brightness=True)


@pytest.mark.parametrize("loss", [None, "fuzzy"])
def test_half_precision_leaves_the_losses_in_fp32(loss):
    method = make(loss)
    with torch.autocast("cpu", torch.bfloat16):
        losses = method(batches(), LATE).losses
    assert all(value.dtype == torch.float32 for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad.isfinite().all() for p in method.parameters())


def test_a_network_without_stages_is_refused():
    with pytest.raises(ValueError, match="pc2seg works on features, but Conv2d has no encode"):
        PC2Seg(lambda: nn.Conv2d(3, 5, 1), SupervisedLoss("ce"), None, PC2Seg.Config(), Facts(5))
