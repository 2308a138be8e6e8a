import torch

from fuzzyseg.ops.mix import box_masks, paste, rectangle_masks


def test_box_masks_depend_on_each_samples_own_seed_alone():
    seeds = torch.tensor([3, 99, 3, 2**61])
    masks = box_masks(seeds, (40, 60))
    assert masks.shape == (4, 40, 60)
    assert masks.dtype == torch.bool
    assert torch.equal(masks[0], masks[2])
    assert not torch.equal(masks[0], masks[1])
    assert torch.equal(box_masks(seeds[1:2], (40, 60))[0], masks[1])


def test_three_boxes_cover_a_quarter_on_average():
    # Overlaps cancel, so the mean is below .375; the authors' generator gives .251 over 4000 draws of 128x128.
    area = box_masks(torch.arange(3000), (64, 64)).float().mean()
    assert abs(float(area) - 0.251) < 0.02


def test_one_box_is_a_rectangle_of_the_asked_area():
    masks = box_masks(torch.arange(50), (80, 100), boxes=1, area=(0.5, 0.5))
    for mask in masks:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        box = (int(rows[-1] - rows[0]) + 1) * (int(columns[-1] - columns[0]) + 1)
        assert int(mask.sum()) == box
        assert abs(box / 8000 - 0.5) < 0.01


def test_boxes_reach_every_border():
    masks = box_masks(torch.arange(2000), (32, 32), boxes=1, area=(0.2, 0.2))
    for edge in (masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1]):
        assert edge.any()


def test_overlapping_boxes_cancel():
    # With a share near 1 both boxes are nearly the whole image, so nearly nothing is left.
    masks = box_masks(torch.arange(20), (50, 50), boxes=2, area=(1.96, 1.96))
    assert float(masks.float().mean()) < 0.1


def test_paste_takes_b_inside():
    a, b = torch.zeros(2, 3, 4, 5), torch.ones(2, 3, 4, 5)
    mask = torch.rand(2, 4, 5) > 0.5
    assert torch.equal(paste(a, b, mask)[:, 1] > 0, mask)
    assert torch.equal(paste(a[:, 0], b[:, 0], mask) > 0, mask)


def test_rectangles_depend_on_each_samples_own_seed_and_differ_between_views():
    seeds = torch.tensor([3, 99, 3, 2**61])
    views = rectangle_masks(seeds, (40, 60), views=2, probability=1)
    for masks in views:
        assert masks.shape == (4, 40, 60)
        assert masks.dtype == torch.bool
        assert torch.equal(masks[0], masks[2])
        assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(views[0][0], views[1][0])
    # more views, or other samples beside it, change nothing
    assert torch.equal(rectangle_masks(seeds[1:2], (40, 60), probability=1)[0][0], views[0][1])


def test_half_of_the_samples_have_a_rectangle_of_the_asked_area_and_shape():
    (masks,) = rectangle_masks(torch.arange(2000), (60, 90))
    drawn = masks.flatten(1).any(1)
    assert abs(float(drawn.float().mean()) - 0.5) < 0.04
    shares, edges = [], [0, 0, 0, 0]
    for mask in masks[drawn]:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        h, w = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
        assert int(mask.sum()) == h * w
        shares.append(h * w / 5400)
        assert 0.3 * 0.8 < (h / 60) / (w / 90) < 1 / 0.3 * 1.2  # whole pixels
        for number, edge in enumerate((mask[0], mask[-1], mask[:, 0], mask[:, -1])):
            edges[number] += bool(edge.any())
    assert 0.01 < min(shares) < 0.03
    assert 0.35 < max(shares) <= 0.4
    assert abs(sum(shares) / len(shares) - 0.21) < 0.02
    assert min(edges) > 0
    assert not rectangle_masks(torch.arange(50), (20, 20), probability=0)[0].any()
