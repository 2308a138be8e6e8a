import math

import pytest
import torch

from fuzzyseg.methods.cct.annealed import annealed_mask, annealed_threshold
from fuzzyseg.ops.resize import resize_logits


def test_the_threshold_grows_from_one_over_c_to_its_end():
    assert annealed_threshold(0, 100, 5) == pytest.approx(0.2)
    assert annealed_threshold(20, 100, 5) == pytest.approx(0.2 + 0.7 * (1 - math.exp(-2.5)))
    assert annealed_threshold(40, 100, 5, end=0.99) == pytest.approx(0.99, abs=0.79 * 0.007)
    values = [annealed_threshold(step, 100, 5) for step in range(100)]
    assert values == sorted(values) and values[-1] < 0.9


def test_pixels_whose_true_class_is_known_become_void():
    logits = 3 * torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mask = torch.randint(0, 4, (2, 6, 5))
    mask[0, 0] = 255
    p = resize_logits(logits, (6, 5)).softmax(1)
    result = annealed_mask(logits, mask, 0.4)
    for b in range(2):
        for y in range(6):
            for x in range(5):
                true = int(mask[b, y, x])
                expected = 255 if true == 255 or p[b, true, y, x] >= 0.4 else true
                assert result[b, y, x] == expected
    assert set(result.unique().tolist()) == {0, 1, 2, 3, 255}
