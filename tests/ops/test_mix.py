import pytest
import torch

from fuzzyseg.methods.ael.masks import class_masks, component_masks
from fuzzyseg.ops.mix import box_masks, paste, rectangle_masks
from support.published_boxes import published_mask, published_sides


def test_box_masks_depend_on_each_samples_own_seed_alone():
    seeds = torch.tensor([3, 99, 3, 2**61])
    masks = box_masks(seeds, (40, 60))
    assert masks.shape == (4, 40, 60)
    assert masks.dtype == torch.bool
    assert torch.equal(masks[0], masks[2])
    assert not torch.equal(masks[0], masks[1])
    assert torch.equal(box_masks(seeds[1:2], (40, 60))[0], masks[1])


@pytest.mark.parametrize(("boxes", "area"), [(1, (0.5, 0.5)), (1, (0.1, 0.9)), (3, (0.25, 0.5)), (4, (0.2, 1.0))])
def test_box_masks_are_the_published_ones_of_the_same_numbers(boxes, area):
    seeds = torch.arange(20) * 7919
    masks = box_masks(seeds, (41, 60), boxes=boxes, area=area)
    for mask, seed in zip(masks, seeds.tolist(), strict=True):
        assert torch.equal(mask.float(), published_mask(seed, (41, 60), boxes, area))


def test_three_boxes_are_compact():
    """If the share were divided by three before drawing the aspect, sides would reach 1 and 47 % would be strips."""
    sides = torch.tensor([side for seed in range(4000) for side in published_sides(seed, 3, (0.25, 0.5))])[:, :2]
    area = sides.prod(1)
    assert 0.25 / 3 <= area.min() < 0.084 < 0.166 < area.max() <= 0.5 / 3 + 1e-6
    assert 0.57 < sides.max() <= 3**-0.5
    strips = sides.amax(1) / sides.amin(1) >= 3
    assert abs(float(strips.float().mean()) - 0.04) < 0.01


def test_three_boxes_cover_a_quarter_on_average():
    # Overlaps cancel, so the mean is below 0.375; the authors' generator gives 0.251 over 4000 draws of 128x128.
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


def test_some_samples_can_go_without_boxes():
    seeds = torch.arange(1000)
    every, some = box_masks(seeds, (9, 8)), box_masks(seeds, (9, 8), probability=0.3)
    spared = ~some.flatten(1).any(1)
    assert torch.equal(some[~spared], every[~spared])
    assert abs(float(spared.float().mean()) - 0.7) < 0.05
    assert torch.equal(box_masks(seeds[7:9], (9, 8), probability=0.3), some[7:9])
    assert not box_masks(seeds, (9, 8), probability=0.0).any()


def test_overlapping_boxes_cancel():
    # Boxes with sides of 0.71 of the image's always contain its centre.
    masks = box_masks(torch.arange(200), (50, 50), boxes=2, area=(1.0, 1.0))
    assert 0.2 < float(masks.float().mean()) < 0.3
    assert not masks[:, 20:30, 20:30].any()


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
    # independent of other views and samples
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


def test_class_masks_are_true_where_a_class_of_the_images_own_is():
    mask = torch.tensor([[[0, 1, 2, 255]], [[0, 1, 2, 255]]])
    result = class_masks(mask, torch.tensor([[1, 1], [2, 0]]))
    assert result.tolist() == [[[False, True, False, False]], [[True, False, True, False]]]


def parts_by_hand(labels, wanted, smallest):
    """Bounding boxes of the components of a class by flood fill: {(y0, x0, y1, x1)}."""
    height, width = labels.shape
    left = {(y, x) for y in range(height) for x in range(width) if labels[y, x] == wanted}
    boxes = set()
    while left:
        part, border = set(), [left.pop()]
        while border:
            y, x = border.pop()
            part.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            border += near
        if len(part) > smallest * height * width:
            ys, xs = zip(*part, strict=True)
            boxes.add((min(ys), min(xs), max(ys) + 1, max(xs) + 1))
    return boxes


@pytest.mark.parametrize("smallest", [0.0, 0.03])
def test_component_masks_are_the_box_of_a_part_of_the_class(smallest):
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(1, 14, 17, generator=generator) > 0.7).long()
    boxes = parts_by_hand(labels[0], 1, smallest)
    assert len(boxes) > 1
    count = 40 * len(boxes)
    result, ok = component_masks(
        labels.expand(count, -1, -1), torch.ones(count, dtype=torch.long), torch.arange(count), smallest=smallest
    )
    assert ok.all()
    seen = {}
    for mask in result:
        ys, xs = mask.nonzero().T
        box = (int(ys.min()), int(xs.min()), int(ys.max()) + 1, int(xs.max()) + 1)
        assert int(mask.sum()) == (box[2] - box[0]) * (box[3] - box[1])  # a full rectangle
        seen[box] = seen.get(box, 0) + 1
    assert set(seen) == boxes
    assert min(seen.values()) > 10  # uniform


def test_component_masks_are_empty_where_the_class_is_not_or_only_small():
    labels = torch.full((4, 10, 10), -1)
    labels[0, 2:4, 2:4] = 3
    labels[1:, 5, 5] = 3
    labels[3] = 0
    result, ok = component_masks(labels, torch.tensor([3, 3, -1, 3]), torch.arange(4), smallest=0.03)
    assert ok.tolist() == [True, False, False, False]
    assert result.flatten(1).sum(1).tolist() == [4, 0, 0, 0]
    again, _ = component_masks(labels[:1], torch.tensor([254]), torch.arange(1), smallest=0.0)
    assert not again.any()
