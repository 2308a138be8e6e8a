"""PC2Seg's draws of negatives: probabilities, images, and exclusions."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from methods.test_pc2seg import LATE, batches, make, watched

IMAGE = torch.arange(4).repeat_interleave(5)
SHOWN = torch.arange(20) % 5 != 2


@pytest.mark.parametrize("other_image", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_draws_are_by_the_weak_views_mean_probability_in_a_cell_and_by_its_image(count, other_image):
    method, batch = make(other_image=other_image), batches(count)
    draws = watched(method)
    method(batch, LATE)
    (((p, shown, image), (index, _)),) = draws
    samples = batch["unlabelled"]
    weak = torch.softmax(method.student(samples.image), 1)  # (B,5,6,8): two by two for each of the 3x4 cells
    number = torch.arange(12 * count)
    for n in number.tolist():
        b, y, x = n // 12, n % 12 // 4, n % 4
        expected = sum(weak[b, :, 2 * y + i, 2 * x + j] for i in (0, 1) for j in (0, 1)) / 4
        torch.testing.assert_close(p[n], expected)
        assert shown[n] == (b > 0 or y == 2)
    if other_image and count > 1:
        assert torch.equal(image, number // 12)
        assert not (index[shown] // 12 == number[shown, None] // 12).any()
    else:
        assert image is None


@pytest.mark.parametrize("debias", ["none", "probability", "fuzzy"])
def test_negatives_are_of_other_images_and_never_padding(debias):
    method = make(debias=debias, fuzzy_threshold=0.3, negatives=500)
    torch.manual_seed(0)
    index, able = method._negatives(torch.softmax(torch.randn(20, 5), 1), SHOWN, IMAGE)
    assert able.all()
    assert not (IMAGE[index] == IMAGE.unsqueeze(1)).any()
    assert SHOWN[index].all()
    if debias == "none":
        counts = torch.stack([row.bincount(minlength=20) for row in index])
        assert torch.equal(counts > 0, (IMAGE.unsqueeze(1) != IMAGE) & SHOWN)


def test_one_hot_predictions_draw_evenly_from_other_classes():
    method = make(negatives=30_000)
    label = torch.arange(20) % 3
    torch.manual_seed(0)
    index, able = method._negatives(F.one_hot(label, 5).float(), SHOWN, IMAGE)
    allowed = (label != label.unsqueeze(1)) & (IMAGE.unsqueeze(1) != IMAGE) & SHOWN
    assert able.all()
    for row, may in zip(index, allowed, strict=True):
        counts = row.bincount(minlength=20)
        assert torch.equal(counts > 0, may)
        expected = 30_000 / int(may.sum())
        chi_square = ((counts[may] - expected) ** 2 / expected).sum()
        assert chi_square < 35  # chi-squared, at most 12 degrees of freedom, p < 0.001


def test_uniform_predictions_draw_evenly_from_all():
    method = make(negatives=100_000)
    torch.manual_seed(0)
    index, able = method._negatives(torch.full((20, 5), 0.2), SHOWN, IMAGE)
    assert able.all()
    counts = index[0].bincount(minlength=20)
    allowed = (IMAGE != 0) & SHOWN
    assert torch.equal(counts > 0, allowed)
    expected = 100_000 / int(allowed.sum())
    assert ((counts[allowed] - expected) ** 2 / expected).sum() < 31.3  # chi-squared, 11 degrees of freedom, p = 0.001


def test_probabilities_weigh_the_draws():
    method = make(negatives=100_000)
    p = torch.tensor([[0.6, 0.4, 0.0], [0.1, 0.2, 0.7], [0.9, 0.1, 0.0]])
    torch.manual_seed(0)
    index, _ = method._negatives(p, torch.ones(3, dtype=torch.bool), torch.arange(3))
    others = 1 - p[0] @ p[1], 1 - p[0] @ p[2]
    share = float((index[0] == 1).float().mean())
    assert share == pytest.approx(float(others[0] / (others[0] + others[1])), abs=0.01)


def test_fuzzy_sets_must_be_apart():
    method = make(debias="fuzzy", fuzzy_threshold=0.9, negatives=200)
    p = torch.tensor([[0.5, 0.35, 0.1, 0.05], [0.05, 0.5, 0.35, 0.1], [0.02, 0.03, 0.5, 0.45], [0.98, 0.01, 0.01, 0.0]])
    # sets: {0,1}, {1,2}, {2} ({2,3} would exceed 0.9), {0}
    index, able = method._negatives(p, torch.ones(4, dtype=torch.bool), torch.arange(4))
    assert [sorted(set(row.tolist())) for row in index] == [[2], [3], [0, 3], [1, 2]]
    assert able.all()


def test_an_anchor_without_a_possible_negative_does_not_count():
    method = make()
    p = F.one_hot(torch.tensor([1, 1, 1, 2]), 5).float()
    image = torch.tensor([0, 0, 1, 1])
    _, able = method._negatives(p, torch.ones(4, dtype=torch.bool), image)
    assert able.tolist() == [True, True, False, True]


def test_in_a_batch_of_one_the_other_cells_of_the_image_are_drawn():
    method = make(negatives=300, contrast_weight=1.0)
    index, able = method._negatives(torch.softmax(torch.randn(9, 5), 1), torch.ones(9, dtype=torch.bool), None)
    assert able.all()
    assert not (index == torch.arange(9).unsqueeze(1)).any()
    assert method(batches(count=1), LATE).losses["contrast"] > 0


def test_a_seed_says_which_negatives_and_parts_of_the_rows_are_drawn_alike():
    method = make(debias="none")
    p, image = torch.softmax(torch.randn(20, 5), 1), IMAGE
    draws = []
    for _ in range(2):
        torch.manual_seed(3)
        draws.append(method._negatives(p, SHOWN, image)[0])
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], method._negatives(p, SHOWN, image)[0])
    parts, able = method._negatives(p, SHOWN, image, limit=45)  # two rows at a time
    assert parts.shape == draws[0].shape
    assert able.all()
    assert not (IMAGE[parts] == IMAGE.unsqueeze(1)).any()
    assert SHOWN[parts].all()
