"""CAC against its specification. Elsewhere: geometry in test_feature_cells.py and data/transforms/test_geometry.py,
chunks in tests/losses/test_contrast.py, the bank in test_banks.py, the loss by cell in test_cac_contrast.py.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from fuzzyseg.data.views import CropPair
from fuzzyseg.losses import PIXEL_LOSSES, SupervisedLoss
from fuzzyseg.methods import Facts, Progress
from fuzzyseg.methods.cac import CAC, _Cells
from support.processes import run_in_processes
from support.tiny_network import TinyNetwork, make_batch

NOW = Progress(5, 10)


def make(**config):
    torch.manual_seed(0)
    config = {"cell": 2, "confidence": 0.0, "start": 0.0} | config
    network = lambda: TinyNetwork(norm="group")  # noqa: E731
    return CAC(network, SupervisedLoss("ce"), None, CAC.Config(**config), Facts(5))


def batches(count=3, size=(12, 14)):
    return {
        "labelled": make_batch(count, size, masks=True, seed=1),
        "unlabelled": make_batch(count, size, masks=False, seed=2, view=CropPair()),
    }


def test_fuzzy_negatives_change_the_loss_only_where_a_cell_has_several_positives():
    batch = batches()
    plain, one, several = (
        make(**options)(batch, NOW).losses["contrast"]
        for options in (
            {},
            {"fuzzy_negatives": True, "fuzzy_threshold": 1e-6},  # K = 1 everywhere
            {"fuzzy_negatives": True, "fuzzy_threshold": 0.45},
        )
    )
    assert torch.equal(plain, one)
    assert several < plain


def cells(confidence, features=None, label=0, shown=True):
    """One image of one cell."""
    features = torch.tensor([[[1.0] + [0.0] * 127]]) if features is None else features
    return _Cells(features, torch.tensor([[label]]), torch.tensor([[confidence]]), torch.tensor([[shown]]))


def pull(method, ours, theirs):
    meets = torch.ones(1, 1, dtype=torch.bool)
    return method._pull(ours, theirs, torch.zeros(1, 1, dtype=torch.long), meets)


@pytest.mark.parametrize(
    ("ours", "theirs", "pulled"),
    [(0.5, 0.9, True), (0.9, 0.5, False), (0.8, 0.8, False), (0.1, 0.75, False), (0.74, 0.7501, True)],
)
def test_only_the_less_sure_cell_is_pulled_and_only_to_a_sure_one(ours, theirs, pulled):
    method = make(confidence=0.75)
    method.bank.push(torch.eye(128)[1:4], torch.tensor([1, 2, 3]), torch.ones(3, dtype=torch.bool))
    mine, yours = (F.normalize(torch.randn(1, 1, 128), dim=2).requires_grad_() for _ in range(2))
    loss, chosen = pull(method, cells(ours, mine), cells(theirs, yours))
    loss.backward()
    assert chosen.item() == pulled
    assert bool(mine.grad.any()) == pulled
    assert yours.grad is None or not yours.grad.any()
    assert (loss.detach() > 0) == pulled


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("theirs", [True, False])
def test_a_cell_is_pulled_only_where_neither_it_nor_the_other_is_padding(ours, theirs):
    method = make()
    method.bank.push(torch.eye(128)[1:2], torch.tensor([1]), torch.ones(1, dtype=torch.bool))
    loss, chosen = pull(method, cells(0.1, shown=ours), cells(0.9, shown=theirs))
    assert chosen.item() == (loss > 0) == (ours and theirs)


def test_negatives_of_the_anchors_own_class_and_of_padding_do_not_count():
    method = make()
    axis = torch.eye(128)[:1]
    valid = torch.tensor([True, False])
    method.bank.push(axis.expand(2, -1), torch.tensor([4, 3]), valid)
    assert pull(method, cells(0.1, label=4), cells(0.9))[0] == 0
    # one negative as similar as the positive: log 2
    torch.testing.assert_close(pull(method, cells(0.1, label=2), cells(0.9))[0], torch.tensor(2.0).log())


def test_before_the_start_there_is_only_the_supervised_loss():
    method = make(start=0.5)
    losses = method(batches(), Progress(4, 10)).losses
    assert losses.keys() == {"supervised"}
    losses["supervised"].backward()
    assert all(p.grad is None for p in method.projector.parameters())
    assert len(method.bank.features) == 0
    assert method(batches(), Progress(5, 10)).losses.keys() == {"supervised", "contrast"}


def test_features_have_length_one_whatever_the_projector_scales_them_by():
    method, batch = make(), batches()
    before = method(batch, NOW).losses["contrast"]
    torch.testing.assert_close(method.bank.features.norm(dim=1), torch.ones(len(method.bank.features)))
    again = make()
    with torch.no_grad():
        again.projector[2].weight *= 7
        again.projector[2].bias *= 7
    torch.testing.assert_close(again(batch, NOW).losses["contrast"], before)


def test_the_bank_holds_the_cells_of_the_last_steps():
    method = make(bank_steps=2)
    for step in range(4):
        method(batches(), NOW)
        assert len(method.bank.features) == min(step + 1, 2) * 2 * 3 * 42  # two crops of three images of 6x7 cells
        assert not method.bank.features.requires_grad


def test_cells_of_a_crop_can_be_drawn_by_the_samples_own_seeds():
    batch = batches()
    method, one = make(negatives=5), make(negatives=5)
    method(batch, NOW)
    assert len(method.bank.features) == 2 * 3 * 5
    torch.manual_seed(9)
    single = {key: make_batch(1, masks=key == "labelled", view=CropPair()) for key in batch}
    for name in ("image", "valid", "seed", "boxes", "flips"):
        setattr(single["unlabelled"], name, getattr(batch["unlabelled"], name)[2:])
    single["unlabelled"].pair = tuple(part[2:] for part in batch["unlabelled"].pair)
    one(single, NOW)
    rows = torch.cat([method.bank.features[10:15], method.bank.features[25:30]])
    torch.testing.assert_close(one.bank.features, rows)


@pytest.mark.parametrize(("stride", "cell", "pool"), [(2, 8, 4), (4, 8, 2), (8, 8, 1), (16, 8, 1)])
def test_cells_are_of_eight_pixels_and_crops_lie_a_multiple_of_them_apart(stride, cell, pool, monkeypatch):
    monkeypatch.setattr(TinyNetwork, "stride", stride)
    method = make(cell=cell)
    view = method.streams["unlabelled"].view
    assert method.pool == pool
    assert view.stride == pool * stride
    assert view.iou == (0.1, 1.0)
    assert (view.colours.brightness, view.colours.hue, view.colours.jitter_probability) == (0.4, 0.1, 0.8)


def test_a_cell_that_is_no_multiple_of_the_stride_is_refused(monkeypatch):
    monkeypatch.setattr(TinyNetwork, "stride", 4)
    with pytest.raises(ValueError, match=r"method\.cell: found 10, expected a multiple of 4, .*; set it to 8 or 12"):
        make(cell=10)


def test_every_pixel_loss_is_refused():
    assert CAC.paper_loss is None
    assert CAC.refuses.keys() == PIXEL_LOSSES.keys()
    assert "fuzzy_negatives" in CAC.refuses["fuzzy"]


def test_half_precision_leaves_the_losses_in_fp32():
    method = make()
    with torch.autocast("cpu", torch.bfloat16):
        losses = method(batches(), NOW).losses
    assert losses["contrast"].dtype == torch.float32
    assert losses["contrast"] > 0
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad.isfinite().all() for p in method.parameters())


def test_a_network_without_stages_is_refused():
    with pytest.raises(ValueError, match="cac works on features, but Conv2d has no encode"):
        CAC(lambda: nn.Conv2d(3, 5, 1), SupervisedLoss("ce"), None, CAC.Config(), Facts(5))


def train(part, wrap=lambda method: method, **options):
    """Three steps on some of the images of each batch; weights and bank."""
    method = make(negatives=20, **options)
    runner = wrap(method)
    optimiser = torch.optim.SGD(method.parameters(), lr=0.1)
    for step in range(3):
        batch = {}
        for key, whole in batches(4).items():
            whole.image = whole.image + 0.1 * step
            for name in ("image", "valid", "mask", "seed", "boxes", "flips"):
                value = getattr(whole, name)
                setattr(whole, name, None if value is None else value[part])
            whole.pair = whole.pair and tuple(each[part] for each in whole.pair)
            batch[key] = whole
        torch.stack(list(runner(batch, Progress(step, 3)).losses.values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    return method.state_dict()


KINDS = ({}, {"fuzzy_negatives": True, "fuzzy_threshold": 0.4})


def train_part(rank):
    def wrap(method):
        return DistributedDataParallel(method, broadcast_buffers=False, find_unused_parameters=True)

    return [train(slice(2 * rank, 2 * rank + 2), wrap, **kind) for kind in KINDS]


@pytest.mark.slow
def test_two_processes_equal_one_and_have_one_bank(tmp_path):
    first, second = run_in_processes(train_part, tmp_path)
    for kind, ours, theirs in zip(KINDS, first, second, strict=True):
        for name, value in train(slice(0, 4), **kind).items():
            assert torch.equal(ours[name], theirs[name]), name
            if name.startswith("bank"):
                assert ours[name].shape == value.shape
            else:
                torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5)
