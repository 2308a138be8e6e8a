"""U2PL against its specification. Elsewhere: the rule for negatives in test_u2pl_reliability.py, the banks in
test_banks.py, InfoNCE in tests/losses/test_contrast.py, and the sources of filter and contrast in
test_u2pl_contrast.py.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fuzzyseg.losses import PIXEL_LOSSES, PixelLossModule, SupervisedLoss, masked_mean
from fuzzyseg.methods import Facts, Progress
from fuzzyseg.methods.u2pl import U2PL
from fuzzyseg.networks.heads import Stages
from fuzzyseg.ops.mix import box_masks
from fuzzyseg.ops.resize import resize_logits
from support.tiny_network import TinyNetwork, make_batch

SMALL = {"bank": (20, 30), "width": 8, "anchors": 6, "negatives": 5, "anchor_confidence": 0.1, "start": 0.0}


class Recorder(nn.Module):
    """A pixel loss that records its arguments and results."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.calls = inner, []

    def forward(self, student, teacher, **options):
        result = self.inner(student, teacher, **options)
        self.calls.append({"student": student, "teacher": teacher, "loss": result.loss, **options})
        return result


def make(loss="hard", *, classes=5, norm="group", background=None, options=None, **config):
    torch.manual_seed(0)
    pixel = Recorder(PixelLossModule(PIXEL_LOSSES[loss], options or {}, 0.9))
    network = lambda: TinyNetwork(classes=classes, norm=norm)  # noqa: E731
    facts = Facts(classes, background=background)
    return U2PL(network, SupervisedLoss("ce"), pixel, U2PL.Config(**SMALL | config), facts)


def batches(count=3):
    return {"labelled": make_batch(count, masks=True, seed=1), "unlabelled": make_batch(count, masks=False, seed=2)}


def test_the_most_uncertain_pixels_are_left_out_fewer_and_fewer():
    method, batch = make(mix=0.0), batches()
    for step, share in ((0, 0.2), (5, 0.1), (9, 0.02)):
        result = method(batch, Progress(step, 10)).losses["unsupervised"]
        call, valid = method.pixel_loss.calls[-1], batch["unlabelled"].valid
        kept = call["valid"]
        assert not (kept & ~valid).any()
        assert float(kept.sum() / valid.sum()) == pytest.approx(1 - share, abs=0.005)
        p = torch.softmax(resize_logits(method.teacher(batch["unlabelled"].image), (12, 14)), 1)
        entropy = -(p * p.log()).sum(1)
        assert entropy[kept].max() < entropy[valid & ~kept].min()
        expected = call["loss"][kept].sum() * valid.sum() / kept.sum() ** 2
        torch.testing.assert_close(result, expected)


def test_without_the_filter_every_valid_pixel_is_trained():
    method, batch = make("fuzzy", mix=0.0, confidence="drop"), batches()
    result = method(batch, Progress(0, 10)).losses["unsupervised"]
    call = method.pixel_loss.calls[-1]
    assert torch.equal(call["valid"], batch["unlabelled"].valid)
    torch.testing.assert_close(result, masked_mean(call["loss"], call["valid"]))


def test_labels_come_from_the_teacher_at_rest_and_entropy_from_the_one_in_training():
    """One forward of the student; the teacher's only forward in training mode has the student's input."""
    method, batch = make(norm="batch"), batches()
    seen = []
    encode = method.teacher.encode
    method.teacher.encode = lambda image: (
        seen.append((image, method.teacher.encoder["fine"][1].training)) or encode(image)
    )
    method(batch, Progress(0, 10))
    assert [training for _, training in seen] == [False, True]
    assert torch.equal(seen[0][0], batch["unlabelled"].image)
    assert torch.equal(seen[1][0][:3], batch["labelled"].image)
    assert int(method.student.encoder["fine"][1].num_batches_tracked) == 1
    assert int(method.teacher.encoder["fine"][1].num_batches_tracked) == 1
    assert int(method.teacher_head[1].num_batches_tracked) == 1
    assert all(part.training for part in method.modules())


def test_frozen_batch_norm_stays_frozen():
    method = make(norm="batch")
    for part in method.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()
    method(batches(), Progress(0, 10))
    assert not any(part.training for part in method.modules() if isinstance(part, nn.BatchNorm2d))
    assert int(method.teacher.encoder["fine"][1].num_batches_tracked) == 0


def test_images_logits_and_validity_are_mixed_by_one_box_with_the_next_image():
    method, batch = make(mix=1.0), batches(4)
    a = batch["unlabelled"]
    given = []
    encode = method.student.encode
    method.student.encode = lambda image: given.append(image) or encode(image)
    method(batch, Progress(0, 10))
    mask = box_masks(a.seed, a.size, boxes=1, area=(0.5, 0.5))
    area = mask.flatten(1).float().mean(1)
    assert (area - 0.5).abs().max() < 0.08  # whole pixels of an image of 12x14
    call = method.pixel_loss.calls[-1]
    following = [1, 2, 3, 0]
    assert torch.equal(given[0][4:], torch.where(mask.unsqueeze(1), a.image[following], a.image))
    assert torch.equal(call["teacher"].mask, mask)
    assert torch.equal(call["teacher"].b, call["teacher"].a[following])
    torch.testing.assert_close(call["teacher"].a, method.teacher.eval()(a.image))
    assert not (call["valid"] & ~torch.where(mask, a.valid[following], a.valid)).any()


def test_half_of_the_images_are_mixed():
    method, batch = make(), batches(100)
    mixed = 0
    for part in torch.arange(400).split(100):
        batch["unlabelled"].seed = part
        method(batch, Progress(0, 10))
        mixed += int(method.pixel_loss.calls[-1]["teacher"].mask.flatten(1).any(1).sum())
    assert 160 < mixed < 240


def test_without_filter_and_contrast_it_is_a_mean_teacher_with_cutmix():
    method, batch = make(drop=0.0, confidence="drop", contrast_weight=0.0, mix=1.0), batches()
    a = batch["unlabelled"]
    losses = method(batch, Progress(0, 10)).losses
    assert losses["contrast"] == 0
    mask = box_masks(a.seed, a.size, boxes=1, area=(0.5, 0.5))
    clean = resize_logits(method.teacher(a.image), a.size)
    label = torch.where(mask.unsqueeze(1), clean.roll(-1, 0), clean).argmax(1)
    image = torch.where(mask.unsqueeze(1), a.image.roll(-1, 0), a.image)
    valid = torch.where(mask, a.valid.roll(-1, 0), a.valid)
    map_ = F.cross_entropy(resize_logits(method.student(image), a.size), label, reduction="none")
    torch.testing.assert_close(losses["unsupervised"], map_[valid].mean())
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is None for m in (method.teacher, method.teacher_head) for p in m.parameters())


def contrast_of(method, label, features, p, unlabelled):
    """`_contrast` of cells with given features and probabilities; the heads are identities."""
    method.head = method.teacher_head = nn.Identity()
    decoded = features.T[None, :, None]  # (1,D,1,N)
    ours, theirs = Stages(None, decoded, None), Stages(None, decoded, p.log().T[None, :, None])
    entropy = torch.zeros(1, 1, unlabelled)
    return method._contrast(ours, theirs, label[None, None], entropy, 0.2)


def test_each_class_meets_its_own_bank_and_prototype_where_others_are_absent():
    """Only classes 5 and 7, which the published index would confuse."""
    method = make(classes=9, anchor_confidence=0.1, negatives=4)
    angle = 1.1
    five = torch.eye(8)[0]
    seven = five * math.cos(angle) + torch.eye(8)[1] * math.sin(angle)
    label = torch.tensor([5, 5, 7, 7, 255, 255])
    features = torch.stack([2 * five, 3 * five, seven, 5 * seven, five, seven]).requires_grad_()
    p = torch.full((6, 9), 0.02)
    p[:, 5] = p[:, 7] = 0.43  # confused with each other
    for c in (0, 1):  # negatives under the published index
        method.bank.push(torch.stack([five, seven]), F.one_hot(torch.tensor([c, c]), 9).bool())
    loss = contrast_of(method, label, features, p, unlabelled=2)
    # bank 5 contains cells of class 7 and vice versa
    assert int(method.bank.filled[5]) == int(method.bank.filled[7]) == 2
    start = method.bank.start
    torch.testing.assert_close(method.bank.rows[start[5] : start[5] + 2], torch.stack([seven, seven]))
    expected = math.log(1 + 4 * math.exp((math.cos(angle) - 1) / 0.5))
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-5)
    loss.backward()
    assert features.grad[:4].any()
    assert not features.grad[4:].any()


def test_one_class_alone_has_nothing_to_be_told_from():
    method = make(classes=9)
    p = torch.full((4, 9), 1 / 9)
    method.bank.push(torch.randn(9, 8), torch.eye(9, dtype=torch.bool))
    assert contrast_of(method, torch.tensor([5, 5, 5, 255]), torch.randn(4, 8), p, unlabelled=1) == 0


def test_the_background_has_the_larger_bank():
    assert make().bank.sizes == (30, 20, 20, 20, 20)
    assert make(background=3).bank.sizes == (20, 20, 20, 30, 20)
    assert U2PL.Config().bank == (30000, 50000)


def test_the_teacher_is_what_is_evaluated_with_statistics_of_its_own_forwards():
    """Before `start` it equals the student including buffers, so that an early checkpoint is no untrained network."""
    method = make(start=0.5, norm="batch")
    assert method.predictor() is method.teacher
    method(batches(), Progress(0, 10))
    with torch.no_grad():
        for p in method.student.parameters():
            p += 0.01
    method.after_step(Progress(0, 10))
    for name, value in method.student.state_dict().items():
        assert torch.equal(method.predictor().state_dict()[name], value), name


def test_the_teacher_is_the_student_at_first_then_follows():
    """10 of 80 steps without unsupervised losses, then 10 as a copy."""
    method = make(start=1 / 8, copy_share=1 / 8, norm="batch")
    pairs = [(method.teacher, method.student), (method.teacher_head, method.head)]

    def equal():
        return all(
            torch.equal(t, s)
            for teacher, student in pairs
            for t, s in zip(teacher.parameters(), student.parameters(), strict=True)
        )

    assert equal()
    for step in range(25):
        losses = method(batches(), Progress(step, 80)).losses
        assert losses.keys() == ({"supervised"} if step < 10 else {"supervised", "unsupervised", "contrast"})
        before = [t.clone() for teacher, _ in pairs for t in teacher.parameters()]
        with torch.no_grad():
            for p in (*method.student.parameters(), *method.head.parameters()):
                p += 0.01  # as an optimiser would
        after = [t for teacher, _ in pairs for t in teacher.parameters()]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))  # no memory is shared
        method.after_step(Progress(step, 80))
        assert equal() == (step < 19)  # equal at the start of steps up to 19
        if step >= 19:
            # 1 - 1/(t+1) with t from 10, below 0.99
            weight, old = next(method.teacher.parameters()), before[0]
            expected = old + (next(method.student.parameters()) - old) / (step - 10 + 1)
            torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6)


def test_an_auxiliary_classifier_learns_from_labels_alone():
    method, batch = make(auxiliary_weight=0.4), batches()
    method.auxiliary[3].p = 0.0  # no dropout
    result = method(batch, Progress(0, 10)).losses["auxiliary"]
    labelled = batch["labelled"]
    fine = method.student.encode(labelled.image)[-2]
    logits = resize_logits(method.auxiliary(fine), labelled.size)
    torch.testing.assert_close(result, 0.4 * F.cross_entropy(logits, labelled.mask, ignore_index=255))
    batch["unlabelled"].image = batch["unlabelled"].image + 1
    torch.testing.assert_close(method(batch, Progress(0, 10)).losses["auxiliary"], result)


def test_fuzzy_with_one_positive_and_no_weight_is_the_hard_loss():
    hard, fuzzy = make("hard"), make("fuzzy", options={"k_cap": 1, "weight": "none"})
    losses = [method(batches(), Progress(0, 10)).losses["unsupervised"] for method in (hard, fuzzy)]
    torch.testing.assert_close(losses[0], losses[1])


def test_half_precision_leaves_the_losses_in_fp32():
    method = make("fuzzy", norm="batch")
    with torch.autocast("cpu", torch.bfloat16):
        losses = method(batches(), Progress(0, 10)).losses
    assert losses["contrast"] > 0
    for value in losses.values():
        assert value.dtype == torch.float32
        assert value.isfinite()
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.requires_grad)


def test_a_network_without_stages_is_refused():
    with pytest.raises(ValueError, match="u2pl works on features, but Conv2d has no encode"):
        U2PL(lambda: nn.Conv2d(3, 5, 1), SupervisedLoss("ce"), None, U2PL.Config(**SMALL), Facts(5))
