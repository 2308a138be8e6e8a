"""GCT against its specification. Elsewhere: flaw maps in test_gct_flaw_map.py, the detector in test_gct_detector.py and
test_gct_blur.py.
"""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fuzzyseg.engine.optim import build_optimisers
from fuzzyseg.losses import PIXEL_LOSSES, PixelLossModule, SupervisedLoss
from fuzzyseg.methods import Facts, Progress
from fuzzyseg.methods.gct import GCT
from fuzzyseg.methods.gct.flaw_map import flaw_target
from fuzzyseg.ops.resize import resize_logits
from methods.test_contract import cut
from support.tiny_network import TinyNetwork, make_batch

LATE = Progress(9, 10)
SIZE = (12, 14)


class Flaws(nn.Module):
    """Replacement of the detector: given maps, plus a weighted function of the prediction."""

    def __init__(self, first, second, follows=0.0):
        super().__init__()
        self.maps, self.follows, self.calls = (first, second), follows, 0
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, image, probabilities):
        chosen = self.maps[self.calls % 2]
        self.calls += 1
        return chosen * self.scale + self.follows * probabilities[:, :1]


def make(loss=None, options=None, norm="group", dropout=0.0, **config):
    torch.manual_seed(0)
    pixel = None if loss is None else PixelLossModule(PIXEL_LOSSES[loss], options or {}, 0.9)
    network = lambda: TinyNetwork(norm=norm, dropout=dropout)  # noqa: E731
    return GCT(network, SupervisedLoss("ce"), pixel, GCT.Config(**config), Facts(5))


def batches(size=SIZE):
    streams = ("labelled", "unlabelled")
    return {name: make_batch(size=size, masks=name == "labelled", seed=1 + n) for n, name in enumerate(streams)}


def both(batch):
    return (
        torch.cat([batch["labelled"].image, batch["unlabelled"].image]),
        torch.cat([batch["labelled"].valid, batch["unlabelled"].valid]),
    )


def halves(left, right, count=6):
    """A map (B,1,H,W) with one value in each half, and a 0 and a 1 that fix its scale."""
    maps = torch.full((count, 1, *SIZE), float(right))
    maps[..., :7] = left
    maps[..., 0, 0], maps[..., 0, 1] = 0.0, 1.0
    return maps


def predictions(method, batch):
    image, _ = both(batch)
    z = [method.first(image), method.second(image)]
    return z, [resize_logits(one, SIZE).softmax(1) for one in z]


def where_each_learns():
    """The first is better in the left half, both are bad in the right half; the corner with the scale is excluded."""
    where = torch.zeros(SIZE, dtype=torch.bool)
    where[:, :7] = True
    where[0, :2] = False
    bad = torch.zeros(SIZE, dtype=torch.bool)
    bad[:, 7:] = True
    bad[0, 1] = True  # the scale's 1 in both maps
    return where, bad


def chosen():
    return halves(0.2, 0.7), halves(0.5, 0.9)


def test_equal_networks_are_refused():
    network = TinyNetwork()
    with pytest.raises(ValueError, match="different seeds"):
        GCT(lambda: network, SupervisedLoss("ce"), None, GCT.Config(), Facts(5))


def test_consistency_is_the_mean_square_where_the_other_is_better():
    method, batch = make(), batches()
    method.detector = Flaws(*chosen())
    result = method(batch, LATE)
    _, (q1, q2) = predictions(method, batch)
    where, _ = where_each_learns()
    _, valid = both(batch)
    total = 0.0
    for b in range(6):
        for c in range(5):
            total = total + ((q1[b, c] - q2[b, c]) ** 2 * where * valid[b]).sum()
    torch.testing.assert_close(result.losses["consistency"], 100 * total / (5 * valid.sum()))
    torch.testing.assert_close(result.metrics["second_learns"], (where & valid).sum() / valid.sum())
    assert float(result.metrics["first_learns"]) == 0


def test_only_the_worse_one_learns():
    method, batch = make(), batches()
    method.detector = Flaws(*chosen())
    method(batch, LATE).losses["consistency"].backward()
    assert not any(p.grad is not None and p.grad.any() for p in method.first.parameters())
    assert all(p.grad.any() for p in method.second.parameters())
    assert not any(p.grad is not None and p.grad.any() for p in method.detector.parameters())


def test_correction_is_the_mean_square_of_the_detector_where_both_are_bad():
    method, batch = make(correction_weight=3), batches()
    maps = chosen()
    method.detector = Flaws(*maps)
    _, bad = where_each_learns()
    _, valid = both(batch)
    expected = sum((m[:, 0] ** 2 * bad * valid).sum() for m in maps) / valid.sum()
    torch.testing.assert_close(method(batch, LATE).losses["correction"], 3 * expected)
    method.detector = Flaws(halves(0.2, 0.2), halves(0.5, 0.5))
    method.detector.maps[0][..., 0, 1] = 0.9  # its scale; that of the other map is elsewhere
    method.detector.maps[1][..., 0, 1], method.detector.maps[1][..., 0, 2] = 0.0, 1.0
    assert float(method(batch, LATE).losses["correction"].detach()) == 0


def test_correction_reaches_the_networks_through_a_detector_that_stays():
    method, batch = make(), batches()
    method.detector = Flaws(halves(0.7, 0.7), halves(0.9, 0.9), follows=1e-3)
    method(batch, LATE).losses["correction"].backward()
    for network in (method.first, method.second):
        assert all(p.grad is not None and p.grad.any() for p in network.parameters())
    assert method.detector.scale.grad is None


def test_the_detectors_own_loss_reaches_it_alone_and_sees_labelled_images_alone():
    method, batch = make(), batches((64, 96))
    result = method(batch, LATE).losses["detector"]
    result.backward()
    assert all(p.grad is not None and p.grad.any() for p in method.detector.parameters())
    assert not any(p.grad is not None and p.grad.any() for n in (method.first, method.second) for p in n.parameters())


@pytest.mark.parametrize("nu", [0, 1])
def test_the_detectors_loss_is_the_formula(nu):
    method, batch = make(nu=nu), batches()
    maps = chosen()
    method.detector = Flaws(*maps)
    _, q = predictions(method, batch)
    mask = batch["labelled"].mask
    known = mask != 255
    expected = 0.0
    for one, flaw in zip(q, maps, strict=True):
        error = (flaw[:3] - flaw_target(one[:3], mask, nu=nu)).square().squeeze(1)
        expected = expected + 10 * 0.5 * (error * known).sum() / known.sum()
    torch.testing.assert_close(method(batch, LATE).losses["detector"], expected)


@pytest.mark.parametrize(("side", "teach"), [(91, False), (92, True)])
def test_up_to_91_pixels_the_detectors_map_is_one_number_and_nobody_teaches(side, teach):
    """The detector's smallest useful crop, as documented."""
    method, batch = make("fuzzy", detector_width=4), batches((side, side))
    with torch.no_grad():
        method.detector.body[-1].weight.mul_(30)
    assert bool(method(batch, LATE).losses["consistency"] > 0) == teach
    assert "91 pixels" in " ".join(sys.modules[GCT.__module__].__doc__.split())


def test_supervised_is_that_of_both_networks_on_labelled_images():
    method, batch = make(), batches()
    z, _ = predictions(method, batch)
    mask = batch["labelled"].mask
    expected = sum(F.cross_entropy(resize_logits(one[:3], SIZE), mask, ignore_index=255) for one in z)
    torch.testing.assert_close(method(batch, LATE).losses["supervised"], expected)


def test_equal_networks_have_no_consistency():
    method, batch = make(), batches()
    method.second.load_state_dict(method.first.state_dict())
    method.detector = Flaws(*chosen())
    loss = method(batch, LATE).losses["consistency"]
    loss.backward()
    assert float(loss.detach()) == 0
    assert not any(p.grad is not None and p.grad.any() for p in method.second.parameters())


def test_a_pixel_that_keeps_its_own_prediction_has_no_consistency_even_with_dropout():
    """The target is that of the same forward."""
    method, batch = make(dropout=0.5), batches()
    method.detector = Flaws(halves(0.4, 0.4), halves(0.4, 0.4))
    assert float(method(batch, LATE).losses["consistency"].detach()) == 0


def test_the_detector_is_trained_by_adam_at_its_own_rate():
    method = make()
    optimisers = build_optimisers(method.roles(), method, name="sgd", lr=0.1, weight_decay=0.1)
    (adam,) = [o for o in optimisers if isinstance(o, torch.optim.Adam)]
    assert {id(p) for g in adam.param_groups for p in g["params"]} == {id(p) for p in method.detector.parameters()}
    assert all(g["lr"] == 1e-4 and g["betas"] == (0.9, 0.99) and g["weight_decay"] == 0 for g in adam.param_groups)


def test_the_detectors_statistics_move_by_what_trains_it():
    method = make()
    method(batches(), LATE)
    assert int(method.detector.body[1].batch.num_batches_tracked) == 2  # once for each network
    assert all(module.training for module in method.modules())
    assert all(p.requires_grad for p in method.detector.parameters())


def test_ramp_and_predictor():
    method, batch = make(), batches()

    def consistency(step):
        method.detector = Flaws(*chosen())
        return method(batch, Progress(step, 1000)).losses["consistency"]

    torch.testing.assert_close(consistency(0), consistency(100) * math.exp(-5))
    torch.testing.assert_close(consistency(100), consistency(999))
    assert method.predictor() is method.first


@pytest.mark.parametrize("loss", ["hard", "fuzzy"])
def test_a_pixel_loss_takes_the_place_of_the_square_where_the_other_wins(loss):
    method, batch = make(loss), batches()
    method.detector = Flaws(*chosen())
    found = method(batch, LATE).losses["consistency"]
    (z1, z2), _ = predictions(method, batch)
    _, valid = both(batch)
    where, _ = where_each_learns()
    result = method.pixel_loss(z2, z1.detach(), size=SIZE, valid=valid, progress=LATE)
    expected = (result.loss * where * valid).sum() / valid.sum()
    torch.testing.assert_close(found, expected)
    found.backward()
    assert not any(p.grad is not None and p.grad.any() for p in method.first.parameters())


def test_fuzzy_with_one_positive_and_no_weight_is_the_hard_loss():
    losses = []
    for method in (make("hard"), make("fuzzy", {"k_cap": 1, "weight": "none"})):
        method.detector = Flaws(*chosen())
        losses.append(method(batches(), LATE).losses["consistency"])
    assert float(losses[0].detach()) > 0
    torch.testing.assert_close(*losses)


def test_bf16_trains_all_that_fp32_does():
    method = make()
    with torch.autocast("cpu", torch.bfloat16):
        losses = method(batches((64, 96)), LATE).losses
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in method.parameters())


def test_micro_batches_equal_one_batch_where_the_detector_sees_more_than_one_cell():
    """The images of the contract test are too small. Batch norm is frozen, since its statistics are per micro-batch."""
    method, batch = make(detector_width=4), batches((64, 96))
    with torch.no_grad():
        method.detector.body[-1].weight.mul_(30)  # large flaws
    for module in method.detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    for samples in batch.values():
        samples.valid[:] = True
    batch["labelled"].mask[batch["labelled"].mask == 255] = 0
    whole = method(batch, LATE).losses
    assert all(float(value.detach()) > 0 for value in whole.values())
    parts = [
        method({name: cut(samples, slice(i, i + 1)) for name, samples in batch.items()}, LATE).losses for i in range(3)
    ]
    for name, value in whole.items():
        torch.testing.assert_close(sum(part[name] for part in parts) / 3, value)
