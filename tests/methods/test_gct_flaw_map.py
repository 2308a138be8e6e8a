import pytest
import torch
from torch.nn import functional as F

from fuzzyseg.methods.gct.flaw_map import comparable, compare_flaws, flaw_target, gaussian_blur, odd_kernel


def drawn(size=(7, 6)):
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(2, 4, *size, generator=generator).softmax(1)
    mask = torch.randint(0, 4, (2, *size), generator=generator)
    mask[0, 2, 1:4] = 255
    return p, mask


def test_target_without_blur_is_one_minus_the_true_probability_stretched():
    """H = 7: every kernel has length 1; nu = 0: no dilation. Void is 0."""
    p, mask = drawn()
    result = flaw_target(p, mask, nu=0)
    for b in range(2):
        flaw = torch.zeros(7, 6)
        for y in range(7):
            for x in range(6):
                if mask[b, y, x] != 255:
                    hot = F.one_hot(mask[b, y, x], 4)
                    flaw[y, x] = 0.5 * (hot - p[b, :, y, x]).abs().sum()
                    torch.testing.assert_close(flaw[y, x], 1 - p[b, mask[b, y, x], y, x])
        torch.testing.assert_close(result[b, 0], (flaw - flaw.min()) / (flaw.max() - flaw.min()))


def test_target_is_blurred_dilated_and_blurred():
    p, mask = drawn((40, 36))
    flaw = torch.where(mask == 255, 0, 1 - p.gather(1, mask.clamp(max=3).unsqueeze(1)).squeeze(1)).unsqueeze(1)
    flaw = gaussian_blur(flaw, 5)
    for _ in range(2):
        flaw = gaussian_blur(F.max_pool2d(flaw, 3, 1, 1), 11)
    low, high = flaw.amin((2, 3), True), flaw.amax((2, 3), True)
    torch.testing.assert_close(flaw_target(p, mask, nu=2), (flaw - low) / (high - low))
    assert odd_kernel(40, 8) == 5 and odd_kernel(40, 4) == 11


def test_target_is_mus_scale_before_it_is_stretched():
    p, mask = drawn()
    torch.testing.assert_close(flaw_target(p, mask, mu=0.5, nu=0), flaw_target(p, mask, mu=0.1, nu=0))


def test_handling_leaves_its_input_and_stretches_each_image():
    raw = torch.randn(3, 1, 20, 18)
    before = raw.clone()
    result = comparable(raw)
    assert torch.equal(raw, before)  # the published code clamps the detector's target, too
    assert not result.requires_grad
    for one, value in zip(result, raw.clamp(min=0), strict=True):
        torch.testing.assert_close(one, (value - value.min()) / (value.max() - value.min()))


def test_an_image_without_flaws_is_zero():
    raw = torch.rand(2, 1, 20, 18) * 0.05 + 0.05
    raw[1, 0, 3, 3] = 5
    result = comparable(raw)
    assert not result[0].any()  # the published code: -min / (max - min), about -1
    assert result[1].max() == pytest.approx(1)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (0.2, 0.5, (False, True, False)),
        (0.7, 0.9, (False, False, True)),
        (0.4, 0.4, (False, False, False)),
        (0.65, 0.5, (True, False, False)),
        (0.6, 0.5, (True, False, False)),
        (0.0, 0.0, (False, False, False)),
    ],
)
def test_who_teaches_whom(first, second, expected):
    maps = [torch.full((1, 1, 1, 1), value) for value in (first, second)]
    assert tuple(bool(where) for where in compare_flaws(*maps)) == expected
