import numpy as np
import pytest
import torch
from scipy import ndimage

from fuzzyseg.methods.cct.perturb import boxes_within, regions


def spiral(side):
    """A spiral line, one cell wide."""
    mask, y, x, dy, dx = torch.zeros(side, side, dtype=torch.bool), 0, 0, 0, 1
    mask[0, 0] = True
    turns = 0
    while turns < 2:
        two = (y + 2 * dy, x + 2 * dx)
        one = (y + dy, x + dx)
        inside = 0 <= one[0] < side and 0 <= one[1] < side
        free = not (0 <= two[0] < side and 0 <= two[1] < side) or not mask[two]
        if inside and free and not mask[one]:
            y, x = one
            mask[y, x] = True
            turns = 0
        else:
            dy, dx = dx, -dy
            turns += 1
    return mask


def agree(found, mask):
    """Components equal those of scipy, with the documented labels."""
    for numbers, one in zip(found.numpy(), mask.numpy(), strict=True):
        expected, count = ndimage.label(one, structure=np.ones((3, 3)))
        assert ((numbers > 0) == one).all()
        assert len(np.unique(numbers[one])) == count
        for region in range(1, count + 1):
            names = np.unique(numbers[expected == region])
            assert list(names) == [np.flatnonzero((expected == region).ravel()).max() + 1]


@pytest.mark.parametrize("share", [0.2, 0.35, 0.45, 0.6, 0.9])
def test_regions_of_random_masks_are_scipys(share):
    mask = torch.rand(3, 61, 48, generator=torch.Generator().manual_seed(1)) < share
    agree(regions(mask), mask)


@pytest.mark.parametrize("flip", [(), (1,), (2,), (1, 2)])
def test_winding_regions_are_one(flip):
    mask = spiral(65).unsqueeze(0).flip(flip)
    assert mask.sum() > 1000
    agree(regions(mask), mask)


def test_empty_and_full_masks():
    assert not regions(torch.zeros(1, 4, 5, dtype=torch.bool)).any()
    assert (regions(torch.ones(1, 4, 5, dtype=torch.bool)) == 20).all()


def jagged(size=40):
    """A blob with an irregular border."""
    mask = torch.zeros(1, size, size, dtype=torch.bool)
    mask[0, 6:30, 4:36] = True
    mask[0, 5, 4:36:2] = True
    mask[0, 6:30:3, 36] = True
    return mask


@pytest.mark.parametrize("solid", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_one_region_gets_one_box_within_its_bounds(seed, solid):
    """Also for a rectangle, which the published code never cuts, since it has few corners."""
    mask = torch.zeros(1, 40, 40, dtype=torch.bool)
    mask[0, 5:30, 4:37] = True
    torch.manual_seed(seed)
    box = boxes_within(regions(mask if solid else jagged()), 0.4)[0]
    ys, xs = box.any(1).nonzero().flatten(), box.any(0).nonzero().flatten()
    assert (len(ys), len(xs)) == (int(0.4 * 24), int(0.4 * 32))
    assert ys.min() >= 5 and ys.max() <= 29 and xs.min() >= 4 and xs.max() <= 36
    assert box[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].all()
    assert box.sum() == len(ys) * len(xs)


def test_boxes_reach_every_place_that_fits():
    mask = torch.zeros(400, 12, 12, dtype=torch.bool)
    mask[:, 2:9, 1:12] = True
    boxes = boxes_within(regions(mask), 0.4)
    tops = {int(b.any(1).nonzero().min()) for b in boxes}
    lefts = {int(b.any(0).nonzero().min()) for b in boxes}
    assert tops == set(range(2, 8))  # int(0.4 * 6) = 2 cells tall within rows 2 to 8
    assert lefts == set(range(1, 9))  # int(0.4 * 10) = 4 wide within columns 1 to 11


def test_each_region_of_each_image_has_its_own_box():
    mask = torch.zeros(2, 20, 30, dtype=torch.bool)
    mask[0, 2:10, 2:10] = True
    mask[0, 12:20, 15:30] = True
    mask[1, 0:19, 0:3] = True
    mask[1, 10, 20] = True  # too small for a box
    boxes = boxes_within(regions(mask), 0.4)
    assert boxes[0, 2:10, 2:10].sum() == 2 * 2
    assert boxes[0, 12:20, 15:30].sum() == 2 * 5
    assert boxes[0].sum() == 4 + 10
    assert not boxes[1].any()  # three cells wide: int(0.4 * 2) = 0
    assert not boxes_within(regions(torch.zeros_like(mask)), 0.4).any()
