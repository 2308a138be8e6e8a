"""What a network's resolution can show of a class, on masks drawn by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fuzzyseg.data import Item, Reader
from fuzzyseg.inference import evaluate
from fuzzyseg.inference.ceiling import ceiling_matrix, round_trip
from fuzzyseg.inference.metrics import resolvable
from support.small_images import item, noise, predictor

GROUND, BLOCK, POLE, ABSENT, VOID = 0, 1, 2, 3, 255


class Coarse(nn.Module):
    """Logits at a stride that it does not tell; the ground everywhere."""

    def __init__(self, stride: int, classes: int = 4) -> None:
        super().__init__()
        self.pool, self.classes = nn.AvgPool2d(stride), classes
        self.calls = 0

    def forward(self, image: Tensor) -> Tensor:
        self.calls += 1
        seen = self.pool(image)[:, :1]
        return torch.cat([torch.ones_like(seen), seen.new_zeros(len(seen), self.classes - 1, *seen.shape[2:])], 1)


def scene(height: int = 32, width: int = 32) -> np.ndarray:
    """A block of 16x16 pixels, a pole one pixel wide and 32 high, void at the right edge."""
    mask = np.full((height, width), GROUND, np.uint8)
    mask[:16, :16] = BLOCK
    mask[:, 21] = POLE
    mask[:, 30:] = VOID
    return mask


def scored(folder: Path, stride: int, mask: np.ndarray, **card: object) -> dict:
    items = [item(folder, "a", noise(*mask.shape), mask)]
    return evaluate(predictor(Coarse(stride), classes=4, **card), items)


def matrix(folder: Path, mask: np.ndarray, stride: float, image_size: tuple[int, int] | None = None) -> Tensor:
    items = [item(folder, "a", noise(*mask.shape), mask)]
    return ceiling_matrix(items, Reader(3, 4, VOID), image_size=image_size, stride=stride)


def test_a_round_trip_by_hand() -> None:
    """One row of cells of 4 pixels, whose centres lie at 1.5, 5.5 and 9.5."""

    def trip(*pixels: int) -> list[int]:
        return round_trip(torch.tensor([pixels]), (1, len(pixels) // 4))[0].tolist()

    assert trip(0, 0, 0, 0, 1, 1, 1, 1) == [0, 0, 0, 0, 1, 1, 1, 1]
    # shares of class 1: 1/4, 1; they pass 1/2 a third of the way from 1.5 to 5.5, at 2.83
    assert trip(0, 0, 0, 1, 1, 1, 1, 1) == [0, 0, 0, 1, 1, 1, 1, 1]
    # 1/4, 1/4: a quarter is never the largest; 3/4 between zeros passes 1/2 at 4.17 and at 6.83
    assert trip(0, 0, 0, 1, 1, 0, 0, 0) == [0] * 8
    assert trip(0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0) == [0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    every = torch.tensor([[0, 1, 2], [2, 1, 0]])
    assert torch.equal(round_trip(every, (2, 3)), every)


def test_void_takes_no_part() -> None:
    """A cell that is void but for one pixel is that pixel's class; a mask of void alone has no class."""
    truth = torch.full((4, 8), VOID)
    truth[0, 0], truth[:, 4:] = 2, 1
    assert (round_trip(truth, (1, 2))[:, :4] == 2).all()
    assert (round_trip(truth, (1, 2))[:, 4:] == 1).all()
    assert (round_trip(torch.full((4, 4), VOID), (1, 1)) == 0).all()


def test_the_pole_is_lost_and_the_block_is_not(tmp_path: Path) -> None:
    result = scored(tmp_path, 4, scene())
    ceiling = result["ceiling"]
    assert ceiling["class2"] == 0
    assert ceiling["class1"] > 0.95
    assert ceiling["class3"] is None
    assert result["ceiling_least"] == 0.5
    # ground: 32 * 30 - 256 - 32 = 672 of the 960 pixels that are predicted as such
    assert result["per_class"] == {"class0": pytest.approx(0.7), "class1": 0, "class2": 0, "class3": None}
    assert result["miou"] == pytest.approx(0.7 / 3)
    assert result["miou_resolvable"] == pytest.approx(0.7 / 2)


def test_the_stride_is_the_networks(tmp_path: Path) -> None:
    """At stride 1 nothing is lost; with cells of 24 pixels the block is."""
    assert scored(tmp_path, 1, scene())["ceiling"] == {"class0": 1, "class1": 1, "class2": 1, "class3": None}
    assert scored(tmp_path, 1, scene())["miou_resolvable"] == pytest.approx(0.7 / 3)
    coarse = scored(tmp_path, 24, scene(48, 48))  # two by two cells, in one of which the block has 4/9
    assert coarse["ceiling"]["class1"] < 0.5
    assert coarse["miou_resolvable"] == coarse["per_class"]["class0"]


def test_the_size_that_images_are_resized_to_counts(tmp_path: Path) -> None:
    """At half the size and stride 2 the grid is that of the whole size and stride 4."""
    small = matrix(tmp_path, scene(), 2, (16, 16))
    assert torch.equal(small, matrix(tmp_path, scene(), 4))
    assert not torch.equal(small, matrix(tmp_path, scene(), 2))
    assert scored(tmp_path, 1, scene(), image_size=(8, 8))["ceiling"] == scored(tmp_path, 4, scene())["ceiling"]


@pytest.mark.parametrize("size", [(33, 30), (7, 50), (1, 1)])
def test_masks_of_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    mask = np.full(size, BLOCK, np.uint8)
    assert matrix(tmp_path, mask, 4).tolist() == torch.diag(torch.tensor([0, mask.size, 0, 0])).tolist()
    assert int(matrix(tmp_path, mask, 1.75)[BLOCK, BLOCK]) == mask.size


def test_a_large_mask_is_taken_in_tiles(tmp_path: Path) -> None:
    """Two tiles, of which the second is 3 columns wide."""
    mask = np.zeros((8, 1027), np.uint8)
    mask[:, 1024:] = BLOCK
    result = matrix(tmp_path, mask, 4)
    assert result.diagonal().tolist() == [8 * 1024, 8 * 3, 0, 0]
    assert int(result.sum()) == mask.size


def test_a_known_ceiling_is_used_again(tmp_path: Path) -> None:
    items = [item(tmp_path, "a", noise(32, 32), scene())]
    model = predictor(network := Coarse(4), classes=4)
    first = evaluate(model, items)
    assert evaluate(model, items, ceiling=first["ceiling"]) == first
    network.calls = 0
    known = {"class0": 0.4, "class1": 0.1, "class2": 0.5, "class3": None}
    assert evaluate(model, items, ceiling=known)["miou_resolvable"] == first["per_class"]["class2"]
    assert network.calls == 1


def test_no_class_may_be_left() -> None:
    assert resolvable({"a": 0.3, "b": None}, {"a": 0.49, "b": None})["miou_resolvable"] is None
    assert resolvable({"a": 0.3, "b": 0.1}, {"a": 0.5, "b": None})["miou_resolvable"] == 0.3


def test_classes_of_items_are_summed_over_the_images(tmp_path: Path) -> None:
    items: list[Item] = []
    for number, mask in enumerate((np.full((8, 8), GROUND, np.uint8), np.full((12, 4), POLE, np.uint8))):
        items.append(item(tmp_path, str(number), noise(*mask.shape), mask))
    result = ceiling_matrix(items, Reader(3, 4, VOID), image_size=None, stride=4)
    assert result.diagonal().tolist() == [64, 0, 48, 0]
