"""AEL against its specification: teacher, pixel weights, and effects of the banks.

Other tests of AEL are in test_ael_class_banks.py, tests/ops/test_mix.py and tests/ops/test_ema.py.
"""

from __future__ import annotations

import importlib

import pytest
import torch
from torch.nn import functional as F

from fuzzyseg.data.loading.sampler import PUBLISH_DELAY, Sampler
from fuzzyseg.losses import PIXEL_LOSSES, PixelLossModule, SupervisedLoss
from fuzzyseg.methods import Facts, Progress
from fuzzyseg.methods.ael import AEL
from fuzzyseg.ops.resize import resize_logits
from fuzzyseg.ops.sample_rng import uniform
from support.tiny_network import TinyNetwork, make_batch

module = importlib.import_module("fuzzyseg.methods.ael")
START = Progress(0, 10)
PLAIN = {"gamma": 0, "beta": 0, "normalise": "batch"}
STILL = {"copy_paste": False, "adaptive_mix": False}


def make(loss="hard", norm="group", options=None, images=6, **config):
    torch.manual_seed(0)
    pixel = PixelLossModule(PIXEL_LOSSES[loss], options or {}, 0.9)
    facts = Facts(5, images={"unlabelled": images})
    method = AEL(lambda: TinyNetwork(norm=norm), SupervisedLoss("ce"), pixel, AEL.Config(**config), facts)
    for p in method.teacher.parameters():  # the teacher differs from the student
        p.add_(0.1 * torch.randn(p.shape))
    return method


def batches(method, size=(12, 14), count=3):
    return {
        name: make_batch(count, size, masks=stream.source == "labelled", seed=number, view=stream.view)
        for number, (name, stream) in enumerate(method.streams.items())
    }


def consistency(z, t, valid, *, bank=None, seeds=None, gamma=2.0, beta=1.0, threshold=0.0, image=True):
    """The consistency term by a loop over pixels."""
    z, t = (resize_logits(each, valid.shape[-2:]).detach() for each in (z, t))
    terms, weights = torch.zeros(valid.shape), torch.zeros(valid.shape)
    drawn = None if seeds is None else uniform(seeds, valid.shape[-2:], purpose=3)
    for b, y, x in valid.nonzero().tolist():
        p = t[b, :, y, x].softmax(0)
        own = int(z[b, :, y, x].argmax())
        if bank is not None and not drawn[b, y, x] < ((1 - bank[own]) / (1 - bank).max()) ** beta:
            continue
        weights[b, y, x] = p.max() ** gamma
        if p.max() >= threshold:
            terms[b, y, x] = -z[b, :, y, x].log_softmax(0)[p.argmax()]
    if image:
        sums = [float((t * w).sum() / w.sum()) for t, w in zip(terms, weights, strict=True)]
        return torch.tensor(sum(sums) / len(sums))
    return (terms * weights).sum() / weights.sum()


@pytest.mark.parametrize("image", [True, False])
@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_losses_are_the_cards_formula(image, threshold):
    method = make(**STILL, normalise="image" if image else "batch", threshold=threshold, unsupervised_weight=0.5)
    method.class_confidence.copy_(torch.tensor([0.1, 0.9, 0.5, 0.3, 0.2]))
    batch = batches(method)
    result = method(batch, START).losses
    labelled, a, b = batch["labelled"], batch["unlabelled"], batch["partner"]
    options = {"bank": method.class_confidence, "image": image, "threshold": threshold}
    z = method.student(labelled.image)
    supervised = F.cross_entropy(resize_logits(z, labelled.size), labelled.mask, ignore_index=255)
    torch.testing.assert_close(result["supervised"], supervised)
    expected = consistency(z, method.teacher(labelled.image), labelled.valid, seeds=labelled.seed, **options)
    torch.testing.assert_close(result["labelled_consistency"].detach(), 0.5 * expected)
    mask = module.box_masks(a.seed, a.size, boxes=1, area=(0.5, 0.5))
    inside = mask.unsqueeze(1)
    t = [resize_logits(method.teacher(each.image), a.size) for each in (a, b)]
    z = method.student(torch.where(inside, b.image, a.image))
    valid = torch.where(mask, b.valid, a.valid)
    expected = consistency(z, torch.where(inside, t[1], t[0]), valid, seeds=a.seed, **options)
    torch.testing.assert_close(result["unsupervised"].detach(), 0.5 * expected)


def test_without_weights_and_sampling_the_term_is_mean_cross_entropy():
    method = make(**STILL, **PLAIN)
    method.class_confidence.copy_(torch.tensor([0.1, 0.9, 0.5, 0.3, 0.2]))
    batch = batches(method)
    labelled = batch["labelled"]
    z, t = (resize_logits(n(labelled.image), labelled.size) for n in (method.student, method.teacher))
    loss = F.cross_entropy(z, t.argmax(1), reduction="none")
    expected = (loss * labelled.valid).sum() / labelled.valid.sum()
    torch.testing.assert_close(method(batch, START).losses["labelled_consistency"], expected)


def test_padding_has_label_0_and_teaches_only_where_the_published_behaviour_is_asked_for():
    method = make(padding="zero", copy_paste_probability=1.0)
    batch = batches(method)
    result = method(batch, START).losses
    bank = method.seen
    assert (batch["labelled"].mask[~batch["labelled"].valid] == 255).all()  # the caller's batch is unchanged
    for samples in batch.values():
        if samples.mask is not None:
            samples.mask = torch.where(samples.valid, samples.mask, 0)  # void pixels of the image stay void
        samples.valid = torch.ones_like(samples.valid)
    plain = make(copy_paste_probability=1.0)
    expected = plain(batch, START).losses
    assert result.keys() == expected.keys()
    assert all(torch.equal(result[name], expected[name]) for name in result)
    assert torch.equal(bank, plain.seen)
    usual = make(copy_paste_probability=1.0)
    ignored = usual(batches(usual), START).losses
    assert all(not torch.equal(result[name], ignored[name]) for name in result)


def test_sampling_follows_the_students_class_and_its_rate():
    """The least confident class is kept as a whole, a class with confidence 1 never, others at their rate."""
    method = make(beta=2.0)
    method.class_confidence.copy_(torch.tensor([0.2, 1.0, 0.6, 0.6, 0.2]))
    student = torch.zeros(8, 5, 60, 60)
    label = torch.randint(0, 3, (8, 60, 60), generator=torch.Generator().manual_seed(0))
    student.scatter_(1, label.unsqueeze(1), 5.0)
    kept = method._sampled(student, (60, 60), torch.arange(8))
    assert kept[label == 0].all()
    assert not kept[label == 1].any()
    assert abs(float(kept[label == 2].float().mean()) - (0.4 / 0.8) ** 2) < 0.02
    assert torch.equal(
        kept[3:4], method._sampled(student[3:4], (60, 60), torch.tensor([3]))
    )  # independent of the batch


def test_nothing_sampled_is_no_loss():
    method = make(**STILL)
    method.class_confidence.fill_(1.0)
    losses = method(batches(method), START).losses
    assert float(losses["unsupervised"].detach()) == float(losses["labelled_consistency"].detach()) == 0
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad.isfinite().all() for p in method.student.parameters())


def test_weights_sum_to_one_over_the_batch_or_over_each_image(monkeypatch):
    for normalise, shape in (("batch", ()), ("image", (3,))):
        method = make(**STILL, normalise=normalise)
        batch = batches(method)
        batch["labelled"].valid[1, :6] = False
        labelled = batch["labelled"]
        given = []
        monkeypatch.setattr(module, "masked_mean", lambda loss, weight, given=given: given.append(weight) or loss.sum())
        z, t = method.student(labelled.image), method.teacher(labelled.image)
        method._term(z, t, labelled.valid, labelled.seed, START)
        p = resize_logits(t, labelled.size).softmax(1).amax(1) ** 2 * labelled.valid
        p = p * method._sampled(z, labelled.size, labelled.seed)
        total = p.sum() if shape == () else p.sum((1, 2), keepdim=True)
        torch.testing.assert_close(given[0] / given[0].sum(), p / total / (1 if shape == () else 3))


def test_the_bank_is_the_mean_so_far_and_then_moves_by_a_thousandth():
    method = make(**STILL)
    batch = batches(method)
    batch["labelled"].mask[batch["labelled"].mask == 4] = 3  # class 4 is absent
    before = method.class_confidence.clone()
    p = resize_logits(method.student(batch["labelled"].image), batch["labelled"].size).softmax(1)
    mask = batch["labelled"].mask
    mean = torch.stack([p[:, c][mask == c].mean() if (mask == c).any() else torch.tensor(0.0) for c in range(5)])
    method(batch, START)
    assert torch.equal(method.class_confidence, before)  # constant during a step
    method.after_step(START)
    torch.testing.assert_close(method.class_confidence, mean.detach())
    method(batch, Progress(1, 10))
    method.after_step(Progress(3, 10))
    assert not method.seen.any()
    late = make(**STILL)
    late.class_confidence.fill_(0.5)
    late(batch, Progress(5000, 9000))
    late.after_step(Progress(5000, 9000))
    torch.testing.assert_close(late.class_confidence, 0.999 * 0.5 + 0.001 * mean.detach())
    stays = make(**STILL, absent="stay")
    stays.class_confidence.fill_(0.5)
    stays(batch, Progress(5000, 9000))
    stays.after_step(Progress(5000, 9000))
    assert float(stays.class_confidence[4]) == 0.5


def test_micro_batches_give_the_bank_of_the_step():
    method, whole = make(**STILL), make(**STILL)
    batch = batches(method, count=4)
    whole(batch, START)
    whole.after_step(START)
    for half in (slice(0, 2), slice(2, 4)):
        part = {name: type(b)(b.image[half], b.valid[half], None if b.mask is None else b.mask[half], b.index[half],
                              b.name[half], b.seed[half], b.drawn_for[half]) for name, b in batch.items()}  # fmt: skip
        method(part, START)
    method.after_step(START)
    torch.testing.assert_close(method.class_confidence, whole.class_confidence)


def test_copy_paste_takes_classes_by_how_unsure_they_are():
    """Image, mask and validity change where the source has a drawn class, in about half of the images."""
    for config, allowed in (({}, {3, 4}), ({"copy_paste_exclude": (3,)}, {4})):
        method = make(copy_paste_classes=1, copy_paste_power=1.0, **config)
        # values outside [0, 1], so that softmax selects two classes
        method.class_confidence.copy_(torch.tensor([0.99, 0.99, 0.99, -30, -30.0]))
        labelled = make_batch(300, (6, 6), masks=True, seed=1)
        source = make_batch(300, (6, 6), masks=True, seed=2)
        image, mask, valid = method._copy_paste(labelled, source)
        pasted = 0
        classes = []
        for i in range(300):
            changed = (image[i] != labelled.image[i]).any(0) | (mask[i] != labelled.mask[i])
            if not changed.any():
                assert torch.equal(valid[i], labelled.valid[i])
                continue
            pasted += 1
            (drawn,) = source.mask[i][changed].unique().tolist()
            classes.append(drawn)
            over = source.mask[i] == drawn
            assert torch.equal(mask[i], torch.where(over, drawn, labelled.mask[i]))
            assert torch.equal(image[i], torch.where(over, source.image[i], labelled.image[i]))
            assert torch.equal(valid[i], labelled.valid[i] | over)
        assert set(classes) == allowed
        assert 110 < pasted < 190
        if len(allowed) == 2:
            assert 0.35 < classes.count(3) / len(classes) < 0.65


def test_copy_paste_draws_by_the_softmax_of_one_minus_confidence():
    method = make(copy_paste_classes=1, copy_paste_probability=1.0)
    method.class_confidence.copy_(torch.tensor([0.0, 1.0, 1.0, 0.5, 0.0]))
    count = 4000
    labelled = make_batch(count, (1, 5), masks=True)
    labelled.mask[:], labelled.valid[:] = 255, False
    source = make_batch(count, (1, 5), masks=True)
    source.mask[:] = torch.arange(5)
    _, mask, _ = method._copy_paste(labelled, source)
    share = torch.stack([(mask == c).any(2).any(1).float().mean() for c in range(5)])
    torch.testing.assert_close(share, torch.softmax(1 - method.class_confidence, 0), atol=0.025, rtol=0)
    method = make(copy_paste_classes=40, copy_paste_probability=1.0)
    _, mask, _ = method._copy_paste(labelled, source)
    assert float((mask != 255).float().mean()) > 0.95  # every class is drawn


def test_the_partner_shows_the_class_it_was_drawn_for():
    """The pasted box is that of a part of the class in the teacher's view of the partner; else half of the image."""
    method = make()
    batch = batches(method)
    a, b = batch["unlabelled"], batch["partner"]
    b.drawn_for = torch.tensor([2, 4, -1])
    t_a = torch.zeros(3, 5, 12, 14)
    t_b = torch.zeros(3, 5, 12, 14)
    t_b[:, 0] = 1
    t_b[0, 2, 3:6, 4:9] = 9  # one component of class 2; class 4 is absent
    b.valid[0, 3:6, 8] = False  # padding belongs to no component
    mask = method._mix_mask(t_a, t_b, a, b)
    expected = torch.zeros(12, 14, dtype=torch.bool)
    expected[3:6, 4:8] = True
    assert torch.equal(mask[0], expected)
    fallback = module.box_masks(a.seed, a.size, boxes=1, area=(0.5, 0.5))
    assert torch.equal(mask[1:], fallback[1:])
    assert all(abs(float(each.float().mean()) - 0.5) < 0.06 for each in mask[1:])
    small = make(mix_area=0.2)
    assert torch.equal(small._mix_mask(t_a, t_b, a, b)[0], fallback[0])


def test_one_mask_mixes_image_logits_and_validity(monkeypatch):
    method = make(**PLAIN, labelled_too=False)
    batch = batches(method)
    mask = torch.zeros(3, 12, 14, dtype=torch.bool)
    mask[:, 2:7, 3:11] = True
    monkeypatch.setattr(method, "_mix_mask", lambda *_: mask)
    given = {}
    original = method.pixel_loss.forward

    def spy(student, teacher, **kwargs):
        given.update(student=student, teacher=teacher, **kwargs)
        return original(student, teacher, **kwargs)

    monkeypatch.setattr(method.pixel_loss, "forward", spy)
    method(batch, START)
    a, b = batch["unlabelled"], batch["partner"]
    assert torch.equal(given["teacher"].mask, mask)
    torch.testing.assert_close(given["teacher"].a, method.teacher(a.image))
    torch.testing.assert_close(given["teacher"].b, method.teacher(b.image))
    torch.testing.assert_close(given["student"], method.student(torch.where(mask.unsqueeze(1), b.image, a.image)))
    assert torch.equal(given["valid"], torch.where(mask, b.valid, a.valid))
    assert "labelled_consistency" not in method(batch, START).losses


def test_images_are_noted_by_what_the_teacher_sees_in_them():
    method = make(bank_area=0.1, images=6)
    method.shown[:, 5] = True
    batch = batches(method)
    a, b = batch["unlabelled"], batch["partner"]
    a.index, b.index = torch.tensor([0, 1, 2]), torch.tensor([3, 2, 4])
    a.valid[:], b.valid[:] = True, True
    t_a, t_b = torch.zeros(3, 5, 12, 14), torch.zeros(3, 5, 12, 14)
    t_a[:, 1] = t_b[:, 1] = 1
    t_a[0, 2, :2] = 9  # 28 of 168 pixels
    t_a[1, 3, :1] = 9  # 14: too few
    t_b[1, 4, :3] = 9  # the same image as a's third
    method._mix_mask(t_a, t_b, a, b)
    expected = torch.zeros(5, 6, dtype=torch.bool)
    expected[1, :5] = True
    expected[2, 0] = expected[4, 2] = True
    expected[:, 5] = True
    assert torch.equal(method.shown, expected)


def test_partners_are_drawn_by_class_and_bank():
    method = make(images=6)
    method.class_confidence.copy_(torch.tensor([0.9, 0.1, 0.5, 0.0, 1.0]))
    method.shown[0, [1, 4]] = True
    method.shown[3, 5] = True
    weights = method.draw_weights("partner")
    torch.testing.assert_close(weights.sum(1), torch.softmax(1 - method.class_confidence, 0))
    assert weights[0].nonzero().flatten().tolist() == [1, 4]
    assert weights[3].nonzero().flatten().tolist() == [5]
    assert (weights[2] == weights[2, 0]).all()  # no known image shows it: any image
    assert method.draw_weights("unlabelled") is None
    assert make(adaptive_mix=False).draw_weights("partner") is None
    draws = Sampler(method.streams, {"labelled": 3, "unlabelled": 6}, 4, 0)
    draws.publish("partner", 0, weights)
    first = PUBLISH_DELAY * 4
    drawn = [draws.at("partner", number) for number in range(first, first + 1000)]
    share = sum(draw.drawn_for == 3 for draw in drawn) / 1000
    assert abs(share - float(weights[3].sum())) < 0.04
    others = [draws.at("unlabelled", number).index for number in range(first, first + 1000)]
    for draw, other in zip(drawn, others, strict=True):
        assert draw.index != other
        assert draw.drawn_for != 3 or draw.index == 5 or other == 5


def test_the_teacher_copies_then_follows_and_keeps_its_statistics():
    method = make(norm="batch")
    method(batches(method), START)
    statistics = method.teacher.encoder["fine"][1].running_mean.clone()
    assert int(method.teacher.encoder["fine"][1].num_batches_tracked) == 2  # unlabelled, labelled
    assert statistics.any()  # its forwards are in training mode
    method.after_step(START)
    for own, other in zip(method.teacher.parameters(), method.student.parameters(), strict=True):
        assert torch.equal(own, other)
    assert torch.equal(method.teacher.encoder["fine"][1].running_mean, statistics)
    old = next(method.teacher.parameters()).clone()
    with torch.no_grad():
        next(method.student.parameters()).add_(1)
    method.after_step(Progress(1, 10))
    torch.testing.assert_close(next(method.teacher.parameters()), old + 0.5)
    method.after_step(Progress(2000, 9000))
    torch.testing.assert_close(next(method.teacher.parameters()), old + 1 - 0.99 * 0.5)
    assert method.predictor() is method.teacher


def test_no_gradient_reaches_the_teacher():
    method = make()
    torch.stack(list(method(batches(method), START).losses.values())).sum().backward()
    assert all(p.grad is None for p in method.teacher.parameters())


@pytest.mark.parametrize("plain", [True, False])
def test_fuzzy_with_one_positive_and_no_weight_is_aels_term(plain):
    config = STILL if plain else {}
    hard, fuzzy = make("hard", **config), make("fuzzy", options={"k_cap": 1, "weight": "none"}, **config)
    batch = batches(hard)
    losses = [method(batch, START).losses for method in (hard, fuzzy)]
    for name in losses[0]:
        torch.testing.assert_close(losses[0][name], losses[1][name])


@pytest.mark.parametrize(("loss", "choice", "kept"), [
    ("hard", None, True), ("fuzzy", None, False), ("hard", "drop", False), ("fuzzy", "keep", True),
])  # fmt: skip
def test_the_threshold_is_dropped_with_the_fuzzy_loss_unless_kept(loss, choice, kept):
    low, high = (make(loss, threshold=t, confidence=choice, **STILL) for t in (0.0, 1.0))
    batch = batches(low)
    result = [float(method(batch, START).losses["unsupervised"].detach()) for method in (low, high)]
    assert result[0] > 0
    assert (result[1] == 0) == kept


def test_settings_that_leave_no_class_to_paste_are_refused():
    with pytest.raises(ValueError, match="found all 5 classes"):
        make(copy_paste_exclude=(0, 1, 2, 3, 4))
