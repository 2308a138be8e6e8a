"""Class banks against literal loops, and two processes against one."""

from __future__ import annotations

import pytest
import torch

from fuzzyseg.methods.ael.class_banks import area_of_classes, class_confidence, moved, noted
from fuzzyseg.ops import distributed


def test_sums_are_those_of_a_loop_over_pixels():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 5, 6, generator=generator)
    mask = torch.randint(0, 3, (2, 5, 6), generator=generator)  # class 3 is absent
    mask[0, :2] = 255
    result = class_confidence(logits, mask)
    expected = torch.zeros(2, 4)
    for b in range(2):
        for y in range(5):
            for x in range(6):
                if mask[b, y, x] != 255:
                    expected[0, mask[b, y, x]] += logits[b, :, y, x].softmax(0)[mask[b, y, x]]
                    expected[1, mask[b, y, x]] += 1
    torch.testing.assert_close(result, expected)
    assert expected[1, 3] == 0


@pytest.mark.parametrize(("absent", "stays"), [(True, 0.8 * 0.999), (False, 0.8)])
def test_the_bank_takes_in_a_thousandth_of_what_was_seen(absent, stays):
    bank = torch.tensor([0.5, 0.8])
    result = moved(bank, torch.tensor([[3.0, 0.0], [4.0, 0.0]]), 0.999, absent=absent)
    torch.testing.assert_close(result, torch.tensor([0.999 * 0.5 + 0.001 * 0.75, stays]))
    assert bank[0] == 0.5


def test_areas_count_pixels_of_classes_alone():
    labels = torch.tensor([[[0, 1], [1, -1]], [[2, 255], [2, 2]]])
    assert area_of_classes(labels, 3).tolist() == [[1, 2, 0], [0, 0, 3]]


def test_an_image_shows_what_it_showed_when_last_seen():
    bank = torch.tensor([[True, True, False], [False, False, True]])
    result = noted(bank, torch.tensor([0, 2]), torch.tensor([[False, True], [True, False]]))
    assert result.tolist() == [[False, True, True], [True, False, False]]
    twice = noted(bank, torch.tensor([1, 1]), torch.tensor([[True, False], [False, True]]))
    assert twice.tolist() == [[True, True, False], [False, True, True]]


def test_two_processes_have_the_banks_of_one(monkeypatch):
    """Collectives replaced by ones that see the tensors of both halves of a batch."""
    index, shows = torch.tensor([0, 3, 1, 3]), torch.rand(4, 3, generator=torch.Generator().manual_seed(1)) > 0.5
    sums = torch.tensor([[[1.0, 0, 0.5], [2, 0, 1]], [[0.2, 0, 3], [1, 0, 6]]])  # (process, 2, C)
    bank, shown = torch.rand(3), torch.rand(3, 5) > 0.5
    one = moved(bank, sums.sum(0), 0.9, absent=False), noted(shown, index, shows)
    whole = {2: index, 6: shows.float()}
    monkeypatch.setattr(distributed, "mean", lambda value: sums.mean(0))
    monkeypatch.setattr(distributed, "gather", lambda value: whole[value.numel()])
    for half in (slice(0, 2), slice(2, 4)):
        torch.testing.assert_close(moved(bank, sums[half.start // 2], 0.9, absent=False), one[0])
        assert torch.equal(noted(shown, index[half], shows[half]), one[1])
