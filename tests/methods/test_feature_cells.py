"""Cells of feature maps, and corresponding cells of two real crops."""

from __future__ import annotations

import pytest
import torch

from fuzzyseg.data.transforms.geometry import Geometry, make_sample
from fuzzyseg.data.views import CropPair
from fuzzyseg.methods.cac.cells import meeting_cells
from fuzzyseg.ops.resize import nearest_cells, whole_cells


def test_cells_of_a_map():
    values = torch.arange(16).view(1, 4, 4)
    assert nearest_cells(values, (2, 2)).tolist() == [[[0, 2], [8, 10]]]
    assert nearest_cells(values > 8, (2, 2)).dtype == torch.bool
    valid = torch.ones(1, 4, 6, dtype=torch.bool)
    valid[0, 0, 5] = False
    assert whole_cells(valid, (2, 3)).tolist() == [[[True, True, False], [True, True, True]]]
    assert whole_cells(torch.ones(2, 13, 9, dtype=torch.bool), (4, 3)).all()


def test_cells_that_meet_show_the_same_pixels_of_the_image():
    """1000 draws, also of small padded images: pixel values are their positions, at one scale, with flips undone."""
    met, padded = 0, 0
    for seed in range(1000):
        height, width = 20 + seed % 37, 25 + seed % 29
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        image = torch.stack([4 * y, 4 * x, torch.full_like(y, 255)]).to(torch.uint8)
        sample = make_sample(
            CropPair(iou=(0.1, 1.0), stride=4), image, None, geometry=Geometry((32, 24), (1.0, 1.0)),
            mean=[0.0] * 3, std=[1 / 255] * 3, seed=seed,
        )  # fmt: skip
        crops, valid = [sample["image"], sample["pair_image"]], [sample["valid"], sample["pair_valid"]]
        for crop in (0, 1):
            if sample["flips"][crop]:
                crops[crop], valid[crop] = crops[crop].flip(-1), valid[crop].flip(-1)
        cells = [crop.unfold(1, 4, 4).unfold(2, 4, 4).flatten(3).flatten(1, 2) for crop in crops]  # (3,n,16)
        whole = [whole_cells(v[None], (8, 6)).flatten() for v in valid]
        for ours, theirs in ((0, 1), (1, 0)):
            boxes = sample["boxes"][None] if ours == 0 else sample["boxes"].flip(0)[None]
            place, inside = meeting_cells(boxes, (32, 24), (8, 6))
            assert inside.any()
            pairs = inside[0]
            assert torch.equal(cells[ours][:, pairs], cells[theirs][:, place[0, pairs]])
            assert torch.equal(whole[ours][pairs], whole[theirs][place[0, pairs]])
            meeting = pairs & whole[ours]
            assert (cells[ours][2, meeting] > 254.9).all()  # no padding
            met += int(meeting.sum())
            padded += int((~whole[ours]).sum())
            # no cell of the overlap is missing
            rows, columns = (32 - abs(int(boxes[0, 0, axis] - boxes[0, 1, axis])) for axis in (0, 1))
            assert int(pairs.sum()) == rows // 4 * ((columns - 8) // 4)
    assert met > 1000
    assert padded > 1000


@pytest.mark.parametrize(("shift", "expected"), [(3, [1, 2, 3, None]), (1, [0, 1, 2, 3]), (-3, [None, 0, 1, 2])])
def test_crops_between_two_cells_meet_at_the_centre_of_a_cell(shift, expected):
    boxes = torch.tensor([[[0, 10 + shift, 4, 26 + shift], [0, 10, 4, 26]]])
    place, inside = meeting_cells(boxes, (4, 16), (1, 4))
    assert [p if i else None for p, i in zip(place[0].tolist(), inside[0].tolist(), strict=True)] == expected
