"""AdvSemSeg against its specification; test 2 is in test_adv_semseg_discriminator.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fuzzyseg.engine.optim import build_optimisers
from fuzzyseg.losses import PIXEL_LOSSES, PixelLossModule, SupervisedLoss
from fuzzyseg.methods import Facts, Progress
from fuzzyseg.methods.adv_semseg import AdvSemSeg, one_hot
from fuzzyseg.ops.resize import resize_logits
from support.tiny_network import TinyNetwork, make_batch

EARLY, LATE = Progress(4999, 20000), Progress(5000, 20000)
SIZE = (12, 14)


class Answers(nn.Module):
    """Replacement of the discriminator: given logits, one map a call, plus a function of the prediction."""

    def __init__(self, *maps, follows=0.0):
        super().__init__()
        self.maps, self.follows, self.seen = list(maps), follows, []
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, prediction):
        self.seen.append(prediction)
        chosen = self.maps[min(len(self.seen), len(self.maps)) - 1]
        return chosen * self.scale + self.follows * prediction[:, :1]


def make(loss="hard", options=None, **config):
    torch.manual_seed(0)
    pixel = PixelLossModule(PIXEL_LOSSES[loss], options or {}, 0.9)
    network = lambda: TinyNetwork(norm="group")  # noqa: E731
    config = {"discriminator_width": 4, **config}
    return AdvSemSeg(network, SupervisedLoss("ce"), pixel, AdvSemSeg.Config(**config), Facts(5))


def batches():
    streams = ("labelled", "unlabelled", "real")
    return {name: make_batch(masks=name != "unlabelled", seed=1 + n) for n, name in enumerate(streams)}


def probabilities(method, samples):
    return resize_logits(method.student(samples.image), samples.size).softmax(1)


def bce(logits, target, valid):
    """Mean over valid pixels, by a loop."""
    total = 0.0
    for b, y, x in valid.nonzero().tolist():
        p = torch.sigmoid(logits[b, 0, y, x])
        total = total - (p.log() if target else (1 - p).log())
    return total / valid.sum()


def drawn(count=3, seed=5):
    return torch.randn(count, 1, *SIZE, generator=torch.Generator().manual_seed(seed))


def nothing(parameters):
    return not any(p.grad is not None and p.grad.any() for p in parameters)


def test_label_maps_for_the_discriminator_are_drawn_apart():
    streams = make().streams
    assert streams["real"].source == streams["labelled"].source == "labelled"
    assert streams["real"].partner is None


def test_one_hot_is_zero_on_void():
    mask = torch.tensor([[[0, 2], [255, 1]]])
    result = one_hot(mask, 3)
    assert result[0, :, 0, 1].tolist() == [0, 0, 1]
    assert not result[0, :, 1, 0].any()
    assert torch.equal(result.sum(1)[0], torch.tensor([[1.0, 1.0], [0.0, 1.0]]))


def test_all_terms_are_the_cards_formulae():
    """Means are over pixels that are not void; zeros in their place would add log 2."""
    method, batch = make(labelled_weight=0.7, unlabelled_weight=0.3), batches()
    d, d_free, d_fake, d_real = drawn(seed=1), drawn(seed=2), drawn(6, seed=3), drawn(seed=4)
    method.discriminator = Answers(d, d_free, d_fake, d_real)
    result = method(batch, LATE).losses
    labelled, free, real = batch["labelled"], batch["unlabelled"], batch["real"]
    known, known_real = labelled.mask != 255, real.mask != 255
    z = resize_logits(method.student(labelled.image), SIZE)
    torch.testing.assert_close(result["supervised"], F.cross_entropy(z, labelled.mask, ignore_index=255))
    torch.testing.assert_close(result["adversarial"], 0.7 * bce(d, True, known))
    torch.testing.assert_close(result["adversarial_unlabelled"], 0.3 * bce(d_free, True, free.valid))
    expected = (bce(d_fake, False, torch.cat([known, free.valid])) + bce(d_real, True, known_real)) / 2
    torch.testing.assert_close(result["discriminator"], expected)
    z = resize_logits(method.student(free.image), SIZE)
    selected = free.valid & (torch.sigmoid(d_free[:, 0]) >= 0.2)
    assert 0 < selected.sum() < free.valid.sum()
    cross_entropy = F.cross_entropy(z, z.argmax(1), reduction="none")
    torch.testing.assert_close(result["self_taught"], 0.1 * (cross_entropy * selected).sum() / selected.sum())
    p, p_free, both, maps = method.discriminator.seen
    torch.testing.assert_close(p, probabilities(method, labelled))
    torch.testing.assert_close(p_free, probabilities(method, free))
    torch.testing.assert_close(both, torch.cat([p, p_free]))
    assert torch.equal(maps, one_hot(real.mask, 5))


def test_logits_of_the_discriminator_on_void_count_nowhere():
    method, batch = make(), batches()
    maps = [drawn(seed=1), drawn(seed=2), drawn(6, seed=3), drawn(seed=4)]
    method.discriminator = Answers(*maps)
    before = method(batch, LATE).losses
    labelled, free, real = (batch[name] for name in ("labelled", "unlabelled", "real"))
    valid = [labelled.mask != 255, free.valid, torch.cat([labelled.mask != 255, free.valid]), real.mask != 255]
    method.discriminator = Answers(*(torch.where(v.unsqueeze(1), m, 50) for m, v in zip(maps, valid, strict=True)))
    for name, value in method(batch, LATE).losses.items():
        torch.testing.assert_close(value, before[name])


@pytest.mark.parametrize("name", ["adversarial", "adversarial_unlabelled"])
def test_adversarial_terms_train_the_network_and_not_the_discriminator(name):
    method = make()
    method(batches(), LATE).losses[name].backward()
    assert nothing(method.discriminator.parameters())
    assert all(p.grad is not None and p.grad.any() for p in method.student.parameters())
    assert all(p.requires_grad for p in method.discriminator.parameters())


def test_the_discriminators_loss_trains_it_and_not_the_network():
    method = make()
    method(batches(), LATE).losses["discriminator"].backward()
    assert nothing(method.student.parameters())
    assert all(p.grad is not None and p.grad.any() for p in method.discriminator.parameters())


def test_the_self_taught_term_starts_at_a_quarter_and_the_adversarial_one_at_once():
    method, batch = make(threshold=0), batches()
    early, late = method(batch, EARLY).losses, method(batch, LATE).losses
    assert float(early["self_taught"].detach()) == 0
    assert float(late["self_taught"].detach()) > 0
    torch.testing.assert_close(early["adversarial_unlabelled"], late["adversarial_unlabelled"])
    early["self_taught"].backward()
    assert nothing(method.parameters())


def test_where_no_pixel_passes_the_other_terms_train_as_if_it_was_not_there():
    method, batch = make(), batches()
    method.discriminator = Answers(torch.full((1, 1, *SIZE), -9.0), follows=1)
    grads = []
    for progress in (EARLY, LATE):
        losses = method(batch, progress).losses
        method.discriminator.seen.clear()
        assert float(losses["self_taught"].detach()) == 0
        method.zero_grad()
        (losses["self_taught"] + losses["adversarial_unlabelled"]).backward()
        grads.append([p.grad.clone() for p in method.student.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    assert any(g.any() for g in grads[0])


def test_a_pixel_at_the_threshold_is_kept():
    method, batch = make(threshold=0.5), batches()
    logits = torch.full((3, 1, *SIZE), -1e-3)
    logits[:, :, 3:5] = 0.0  # sigmoid exactly 0.5
    method.discriminator = Answers(torch.zeros(3, 1, *SIZE), logits, torch.zeros(6, 1, *SIZE), logits)
    result = method(batch, LATE)
    free = batch["unlabelled"]
    selected = torch.zeros_like(free.valid)
    selected[:, 3:5] = free.valid[:, 3:5]
    torch.testing.assert_close(result.metrics["selected"], selected.sum() / free.valid.sum())


def test_the_mask_carries_no_gradient():
    """The self-taught term's gradient is that of cross entropy on a constant set of pixels."""
    method, batch = make(), batches()
    method.discriminator = Answers(drawn(seed=1), drawn(seed=2), drawn(6, seed=3), drawn(seed=4), follows=3)
    method(batch, LATE).losses["self_taught"].backward()
    assert nothing(method.discriminator.parameters())
    result = [p.grad.clone() for p in method.student.parameters()]
    method.zero_grad()
    free = batch["unlabelled"]
    z = resize_logits(method.student(free.image), SIZE)
    look = drawn(seed=2) + 3 * z.softmax(1)[:, :1].detach()
    selected = free.valid & (torch.sigmoid(look[:, 0]) >= 0.2)
    loss = F.cross_entropy(z, z.argmax(1), reduction="none")
    (0.1 * (loss * selected).sum() / selected.sum()).backward()
    for got, expected in zip(result, [p.grad for p in method.student.parameters()], strict=True):
        torch.testing.assert_close(got, expected)


def test_fuzzy_with_one_positive_and_no_weight_is_the_hard_loss():
    losses, grads = [], []
    for method in (make("hard"), make("fuzzy", {"k_cap": 1, "weight": "none"})):
        loss = method(batches(), LATE).losses["self_taught"]
        loss.backward()
        losses.append(loss)
        grads.append([p.grad for p in method.student.parameters()])
    assert float(losses[0].detach()) > 0
    torch.testing.assert_close(*losses)
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_fuzzy_weights_stand_in_the_mean_and_not_in_its_denominator():
    method, batch = make("fuzzy"), batches()
    method.discriminator = Answers(drawn(seed=1), drawn(seed=2), drawn(6, seed=3), drawn(seed=4))
    found = method(batch, LATE).losses["self_taught"]
    free = batch["unlabelled"]
    z = method.student(free.image)
    result = method.pixel_loss(z, z.detach(), size=SIZE, valid=free.valid, progress=LATE, maps=True)
    assert (result.k > 1).any() and result.weight.min() < 0.9
    selected = free.valid & (torch.sigmoid(drawn(seed=2)[:, 0]) >= 0.2)
    torch.testing.assert_close(found, 0.1 * (result.loss * selected).sum() / selected.sum())


def test_the_discriminator_is_trained_by_adam_at_its_own_rate():
    method = make()
    optimisers = build_optimisers(method.roles(), method, name="sgd", lr=0.1, weight_decay=0.1)
    (adam,) = [o for o in optimisers if isinstance(o, torch.optim.Adam)]
    assert {id(p) for g in adam.param_groups for p in g["params"]} == {id(p) for p in method.discriminator.parameters()}
    assert all(g["lr"] == 1e-4 and g["betas"] == (0.9, 0.99) and g["weight_decay"] == 0 for g in adam.param_groups)
    assert method.predictor() is method.student


def test_bf16_trains_all_that_fp32_does():
    method = make()
    with torch.autocast("cpu", torch.bfloat16):
        losses = method(batches(), LATE).losses
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in method.parameters())
