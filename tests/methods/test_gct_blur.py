import math

import pytest
import torch
from torch.nn import functional as F

from fuzzyseg.methods.gct.flaw_map import gaussian_blur, odd_kernel


@pytest.mark.parametrize(("length", "part", "expected"), [(321, 16, 21), (321, 4, 81), (512, 8, 65), (12, 16, 1)])
def test_kernels_are_odd(length, part, expected):
    assert odd_kernel(length, part) == expected


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_blur_is_the_convolution_with_the_two_dimensional_gaussian(kernel):
    maps = torch.randn(2, 3, 11, 13, dtype=torch.float64)
    sigma, half = 0.3 * ((kernel - 1) / 2 - 1) + 0.8, kernel // 2
    weight = torch.tensor(
        [[math.exp(-(y * y + x * x) / (2 * sigma**2)) for x in range(-half, half + 1)] for y in range(-half, half + 1)],
        dtype=torch.float64,
    )
    weight = (weight / weight.sum()).expand(3, 1, kernel, kernel)
    expected = F.conv2d(F.pad(maps, [half] * 4, mode="reflect"), weight, groups=3)
    torch.testing.assert_close(gaussian_blur(maps, kernel), expected)


def test_a_constant_stays_and_short_axes_do_no_harm():
    torch.testing.assert_close(gaussian_blur(torch.full((1, 1, 40, 2), 3.0), 9), torch.full((1, 1, 40, 2), 3.0))
    assert gaussian_blur(torch.randn(1, 1, 1, 5), 5).isfinite().all()
