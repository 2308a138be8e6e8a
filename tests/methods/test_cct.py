"""CCT against its specification. Elsewhere: perturbations in test_cct_perturb.py and test_cct_regions.py, the direction
of I-VAT in tests/ops/test_gradient.py.
"""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from fuzzyseg.losses import PIXEL_LOSSES, PixelLossModule, SupervisedLoss
from fuzzyseg.methods import Facts, Progress
from fuzzyseg.methods.cct import CCT
from fuzzyseg.methods.cct.annealed import annealed_mask, annealed_threshold
from fuzzyseg.ops.gradient import adversarial_direction
from fuzzyseg.ops.resize import resize_logits
from support.tiny_network import TinyNetwork, make_batch

LATE = Progress(9, 10)
KINDS = ["adversarial", "dropout", "cutout", "context", "objects", "drop", "noise"]


def only(**counts):
    """`decoders` with the counts of the named kinds."""
    return tuple(counts.get(kind, 0) for kind in KINDS)


def make(loss=None, options=None, network=TinyNetwork, background=0, **config):
    torch.manual_seed(0)
    pixel = None if loss is None else PixelLossModule(PIXEL_LOSSES[loss], options or {}, 0.9)
    facts = Facts(5, background=background)
    return CCT(lambda: network(norm="group"), SupervisedLoss("ce"), pixel, CCT.Config(**config), facts)


def batches(size=(12, 14)):
    return {
        "labelled": make_batch(size=size, masks=True, seed=1),
        "unlabelled": make_batch(size=size, masks=False, seed=2),
    }


def unsupervised(method, batch, progress=LATE):
    torch.manual_seed(4)
    return method(batch, progress).losses["unsupervised"]


def features_and_target(method, batch):
    features = method.student.decode(method.student.encode(batch["unlabelled"].image))
    return features, method.student.classify(features)


def test_there_are_thirty_decoders_and_lambda_is_thirty():
    assert len(make().auxiliary) == 30
    assert (make().weight, make("fuzzy").weight, make(unsupervised_weight=2).weight) == (30, 1, 2)


def test_no_decoder_and_a_wrong_range_are_errors():
    with pytest.raises(ValidationError, match="decoders"):
        make(decoders=only())
    with pytest.raises(ValidationError, match="drop_range"):
        make(drop_range=(0.9, 0.7))


def test_a_network_without_stages_is_refused():
    with pytest.raises(ValueError, match="has no encode"):
        CCT(lambda: nn.Conv2d(3, 5, 1), SupervisedLoss("ce"), None, CCT.Config(), Facts(5))


@pytest.mark.parametrize("loss", [None, "hard", "fuzzy"])
def test_the_main_decoder_learns_from_labels_alone(loss):
    method = make(loss)
    unsupervised(method, batches()).backward()
    assert all(p.grad is None for p in method.student.head.parameters())
    for part in (method.student.encoder, method.student.decoder, *method.auxiliary):
        assert all(p.grad is not None and p.grad.any() for p in part.parameters())


class Linear(TinyNetwork):
    """A network whose head has the form of an auxiliary decoder."""

    def __init__(self, **options):
        super().__init__(**options)
        self.head = nn.Conv2d(8, 5, 1)


def test_decoders_equal_to_the_main_one_on_features_left_alone_agree_with_it():
    method = make(network=Linear, decoders=only(dropout=2, noise=1), dropout=0, noise=1e-9)
    for decoder in method.auxiliary:
        decoder.load_state_dict(method.student.head.state_dict())
    assert float(unsupervised(method, batches()).detach()) < 1e-10
    method.config = method.config.model_copy(update={"dropout": 0.5})
    assert float(unsupervised(method, batches()).detach()) > 1e-3


def test_the_loss_is_the_mean_square_over_pixels_and_classes_of_each_decoder():
    method, batch = make(decoders=only(context=1, objects=2)), batches()
    result, free = unsupervised(method, batch), batch["unlabelled"]
    features, z = features_and_target(method, batch)
    front = (z.argmax(1) != 0).unsqueeze(1)
    p = resize_logits(z, free.size).softmax(1)
    expected = 0.0
    for decoder, seen in zip(method.auxiliary, (front, ~front, ~front), strict=True):
        q = resize_logits(decoder(features * seen), free.size).softmax(1)
        for b in range(3):
            for c in range(5):
                expected = expected + ((q[b, c] - p[b, c]) ** 2 * free.valid[b]).sum()
    torch.testing.assert_close(result, 30 * expected / (3 * 5 * free.valid.sum()))
    labelled = batch["labelled"]
    z = resize_logits(method.student(labelled.image), labelled.size)
    supervised = method(batch, LATE).losses["supervised"]
    torch.testing.assert_close(supervised, F.cross_entropy(z, labelled.mask, ignore_index=255))


def test_twice_as_many_equal_decoders_change_nothing():
    one, two = make(decoders=only(context=1)), make(decoders=only(context=2))
    for decoder in two.auxiliary:
        decoder.load_state_dict(one.auxiliary[0].state_dict())
    two.student.load_state_dict(one.student.state_dict())
    torch.testing.assert_close(unsupervised(one, batches()), unsupervised(two, batches()))


def test_what_each_decoder_sees():
    """In the order of the setting; Con-Msk and Obj-Msk are complementary."""
    method = make(background=3, decoders=(1, 2, 2, 1, 1, 1, 1))
    features, z = features_and_target(method, batches((40, 48)))
    front = (z.argmax(1) != 3).unsqueeze(1)
    assert 0 < front.float().mean() < 1
    torch.manual_seed(0)
    seen = list(method.perturbed(features, z))
    assert len(seen) == 9
    offset = seen[0] - features
    torch.testing.assert_close(
        torch.linalg.vector_norm(offset, dim=(1, 2, 3)), torch.full((3,), 2.0), rtol=0.01, atol=0
    )
    for dropped in seen[1:3]:  # whole channels; the others are doubled
        share = dropped / torch.where(features == 0, 1, features)
        kept = share.amax((2, 3))
        assert set(kept.detach().round(decimals=3).unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(seen[1], seen[2])
    for cut in seen[3:5]:
        kept = (cut != 0) | (features == 0)
        assert (kept.all(1) | (cut == 0).all(1)).all()
    assert not torch.equal(seen[3], seen[4])  # boxes differ between decoders
    assert torch.equal(seen[5], features * front)
    assert torch.equal(seen[5] + seen[6], features)
    assert ((seen[7] == features) | (seen[7] == 0)).all()
    assert ((seen[8] - features).abs() <= 0.3 * features.abs() + 1e-6).all()


def test_adversarial_offset_moves_its_own_decoder_and_touches_nothing():
    method = make()
    features, _ = features_and_target(method, batches())
    features = features.detach()
    decoder = method.auxiliary[0]
    offset = method.adversarial(decoder, features)
    assert all(p.grad is None for p in method.parameters())
    assert not offset.requires_grad

    def change(by):
        p, q = decoder(features).softmax(1), decoder(features + by).softmax(1)
        return (p * (p / q).log()).sum((1, 2, 3))

    noise = torch.randn(20, *features.shape)
    noise = 2 * noise / torch.linalg.vector_norm(noise, dim=(2, 3, 4), keepdim=True)
    assert (change(offset) > torch.stack([change(n) for n in noise]).max(0).values).all()


def test_each_decoder_has_an_adversarial_offset_of_its_own():
    method, batch = make(decoders=only(adversarial=3)), batches()
    asked = []
    method.adversarial = lambda decoder, features: asked.append(decoder) or torch.zeros_like(features)
    unsupervised(method, batch)
    assert asked == list(method.auxiliary)


def test_the_probe_is_one_that_fp32_resolves_in_feature_space():
    """With features of the authors' size, 512 x 40 x 40, and a norm of about 640, their probe of 1e-6 is lost."""
    torch.manual_seed(0)
    features, decoder = torch.randn(1, 512, 40, 40).relu(), nn.Conv2d(512, 21, 1)
    noise = torch.rand_like(features) - 0.5

    def direction(kind, probe):
        net, f = decoder.to(kind), features.to(kind)
        p = net(f).detach().log_softmax(1)
        return adversarial_direction(
            lambda r: F.kl_div(net(f + r).log_softmax(1), p, reduction="none", log_target=True),
            noise.to(kind),
            probe=probe,
        ).double()

    def cosine(probe):
        return float((direction(torch.float32, probe) * direction(torch.float64, probe)).sum())

    assert cosine(CCT.Config().probe) > 0.99
    assert cosine(1e-6) < 0.5


def test_ramp():
    method, batch = make(decoders=only(context=1)), batches()
    full = unsupervised(method, batch, Progress(100, 1000))
    torch.testing.assert_close(unsupervised(method, batch, Progress(999, 1000)), full)
    torch.testing.assert_close(unsupervised(method, batch, Progress(0, 1000)), full * math.exp(-5))
    torch.testing.assert_close(unsupervised(method, batch, Progress(50, 1000)), full * math.exp(-5 / 4))


def test_annealed_leaves_out_what_is_known():
    plain, annealed = make(), make(annealed=0.99)
    for method in (plain, annealed):
        method.student.head.weight.data *= 30  # a network that is confident at some pixels
    batch = batches()
    labelled = batch["labelled"]
    z = plain.student(labelled.image)
    mask = annealed_mask(z, labelled.mask, annealed_threshold(3, 10, 5, end=0.99))
    known = labelled.mask != 255
    assert 0.02 < float(((mask == 255) & known).sum() / known.sum()) < 0.5
    result = annealed(batch, Progress(3, 10)).losses["supervised"]
    torch.testing.assert_close(result, SupervisedLoss("ce")(z, mask))


@pytest.mark.parametrize("loss", ["hard", "fuzzy"])
def test_a_pixel_loss_takes_the_place_of_the_square(loss):
    method, batch = make(loss, decoders=only(context=1, objects=1)), batches()
    free = batch["unlabelled"]
    features, z = features_and_target(method, batch)
    front = (z.argmax(1) != 0).unsqueeze(1)
    expected = 0.0
    for decoder, seen in zip(method.auxiliary, (front, ~front), strict=True):
        result = method.pixel_loss(decoder(features * seen), z, size=free.size, valid=free.valid, progress=LATE)
        expected = expected + (result.loss * free.valid).sum() / free.valid.sum() / 2
    torch.testing.assert_close(unsupervised(method, batch), expected)


def test_fuzzy_with_one_positive_and_no_weight_is_the_hard_loss():
    hard, fuzzy = make("hard"), make("fuzzy", {"k_cap": 1, "weight": "none"})
    torch.testing.assert_close(unsupervised(hard, batches()), unsupervised(fuzzy, batches()))


def test_bf16_trains_all_that_fp32_does():
    method = make(decoders=(1, 1, 1, 1, 1, 1, 1))
    torch.manual_seed(4)
    with torch.autocast("cpu", torch.bfloat16):
        losses = method(batches(), LATE).losses
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in method.parameters())
