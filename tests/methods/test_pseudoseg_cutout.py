import torch

from fuzzyseg.methods.pseudoseg.cutout import square_masks


def test_a_square_around_a_pixel_is_cut_at_the_borders():
    seeds = torch.arange(600)
    masks = square_masks(seeds, (20, 30), 4)
    assert masks.shape == (600, 20, 30)
    corners = set()
    for mask in masks:
        ys, xs = mask.nonzero().T
        top, left, bottom, right = int(ys.min()), int(xs.min()), int(ys.max()) + 1, int(xs.max()) + 1
        assert int(mask.sum()) == (bottom - top) * (right - left)
        assert bottom - top == 8 or top == 0 or bottom == 20
        assert right - left == 8 or left == 0 or right == 30
        assert bottom - top >= 4
        assert right - left >= 4
        corners.add((top, left))
    assert len(corners) > 200
    centre = float(masks.float().mean(0)[10, 15])
    assert abs(centre - 64 / 600) < 0.04  # centres whose square contains this pixel


def test_a_samples_seed_alone_decides():
    masks = square_masks(torch.tensor([7, 8, 7]), (20, 30), 4)
    assert torch.equal(masks[0], masks[2])
    assert not torch.equal(masks[0], masks[1])
    assert torch.equal(square_masks(torch.tensor([8]), (20, 30), 4)[0], masks[1])
    assert not square_masks(torch.tensor([8]), (20, 30), 0).any()
