"""Scores of hand-made predictions, worked out by hand."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fuzzyseg.data import DataError, Item
from fuzzyseg.inference import Predictor, evaluate
from fuzzyseg.inference.metrics import bootstrap_error, confusion_matrix, scores
from support.small_images import card, item, noise, predictor


class Reads(nn.Module):
    """Predicts the class that is written into the red channel of the image."""

    def forward(self, image: Tensor) -> Tensor:
        wanted = (image[:, 0] * 255).round().long()
        return torch.nn.functional.one_hot(wanted, 4).movedim(-1, 1).float()


def reading(**changes: object) -> Predictor:
    return Predictor(Reads(), card(classes=4, mean=[0.0] * 3, std=[1.0] * 3, **changes))


def example(folder: Path, name: str, predicted: list, truth: list) -> Item:
    image = np.zeros((*np.shape(predicted), 3), np.uint8)
    image[..., 0] = predicted
    return item(folder, name, image, np.array(truth, np.uint8))


def test_iou_by_hand_over_the_whole_data_set(tmp_path: Path) -> None:
    """Class 3 occurs nowhere; 11 is void in the files and 255 always; class 2 is only predicted."""
    items = [
        example(tmp_path, "a", [[0, 0, 1], [1, 2, 0]], [[0, 0, 1], [0, 11, 255]]),
        example(tmp_path, "b", [[1, 1], [0, 2]], [[1, 0], [0, 1]]),
    ]
    result = evaluate(reading(ignore_index=11), items)
    # pairs (truth, predicted): 00 x3, 01 x2, 11 x2, 12 x1
    assert result["per_class"] == {
        "class0": pytest.approx(3 / 5),
        "class1": pytest.approx(2 / 5),
        "class2": 0.0,
        "class3": None,
    }
    assert result["miou"] == pytest.approx((3 / 5 + 2 / 5 + 0) / 3)
    assert result["accuracy"] == pytest.approx(5 / 8)
    assert result["class_accuracy"] == pytest.approx((3 / 5 + 2 / 3) / 2)
    assert (result["images"], result["pixels"]) == (2, 8)
    assert result["protocol"] == "whole image, scored at original size, 1 scale, no flip"


def test_void_predictions_do_not_count(tmp_path: Path) -> None:
    """A class that is predicted only where the truth is void does not occur."""
    result = evaluate(reading(), [example(tmp_path, "a", [[0, 3]], [[0, 255]])])
    assert result["per_class"] == {"class0": 1.0, "class1": None, "class2": None, "class3": None}
    assert result["miou"] == 1.0


def test_scores_are_taken_at_the_size_of_the_file(tmp_path: Path) -> None:
    """With a smaller input the thin line is lost: the truth is not resized to hide it."""
    truth = np.zeros((32, 32), np.uint8)
    truth[:, 5] = 1
    items = [example(tmp_path, "a", truth, truth)]
    assert evaluate(reading(), items)["per_class"]["class1"] == 1.0
    small = evaluate(reading(image_size=(8, 8)), items)
    assert small["per_class"]["class1"] < 0.5
    assert small["pixels"] == 32 * 32
    assert "input resized to 8x8" in small["protocol"]


def test_batches_score_as_single_images(tmp_path: Path) -> None:
    sizes = [(8, 9), (8, 9), (8, 9), (5, 9), (8, 9)]
    items = [item(tmp_path, str(i), noise(*s, i), noise(*s, 9 + i, 1)[..., 0] % 3) for i, s in enumerate(sizes)]
    model, counts = predictor(), []
    together = evaluate(model, items, batch=2, progress=lambda done, total: counts.append((done, total)))
    assert together == evaluate(model, items)
    assert counts == [(2, 5), (3, 5), (4, 5), (5, 5)]


def test_all_arguments_reach_the_protocol(tmp_path: Path) -> None:
    items = [item(tmp_path, "a", noise(20, 20), noise(20, 20, 1, 1)[..., 0] % 3)]
    result = evaluate(predictor(), items, mode="sliding", window=(10, 12), scales=[1, 2], flip=True)
    assert result["protocol"] == "windows of 10x12, stride 2/3, scored at original size, scales 1 2, flip"


def test_errors_name_the_matter(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images to evaluate"):
        evaluate(reading(), [])
    void = example(tmp_path, "v", [[0, 1]], [[255, 255]])
    with pytest.raises(DataError, match="every pixel of the masks is void"):
        evaluate(reading(), [void])
    with pytest.raises(DataError, match=r"v\.png: has no mask"):
        evaluate(reading(), [Item(void.image, None, "v")])
    with pytest.raises(DataError, match=r"masks.bad\.png: found the values 7"):
        evaluate(reading(), [example(tmp_path, "bad", [[0, 1]], [[0, 7]])])


def test_scores_of_a_matrix() -> None:
    result = scores(torch.tensor([[8, 2], [4, 6]]), ["a", "b"])
    assert result["per_class"] == {"a": pytest.approx(8 / 14), "b": pytest.approx(6 / 12)}
    assert result["pixels"] == 20


def a_random_pair(classes: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(classes)
    predicted, truth = (torch.randint(classes, (2, 9, 7), generator=generator) for _ in range(2))
    return predicted, torch.where(torch.rand(truth.shape, generator=generator) < 0.2, 255, truth)


def test_the_confusion_matrix_is_that_of_a_loop() -> None:
    predicted, truth = a_random_pair()
    expected = torch.zeros(5, 5, dtype=torch.long)
    for label, true in zip(predicted.flatten().tolist(), truth.flatten().tolist(), strict=True):
        if true != 255:
            expected[true, label] += 1
    assert torch.equal(confusion_matrix(predicted, truth.to(torch.uint8), 5), expected)


def test_the_confusion_matrix_is_that_of_torchmetrics() -> None:
    functional = pytest.importorskip("torchmetrics.functional.classification")
    predicted, truth = a_random_pair()
    expected = functional.multiclass_confusion_matrix(predicted, truth, 5, ignore_index=255)
    assert torch.equal(confusion_matrix(predicted, truth, 5), expected)


def test_the_bootstrap_error_is_the_spread_over_all_draws_of_as_many_images() -> None:
    """Against the standard deviation over all 4^4 draws with replacement, by a literal loop."""
    images = torch.tensor([[[4, 2], [6, 2], [4, 4]], [[1, 0], [5, 3], [3, 5]], [[9, 0], [9, 0], [9, 0]],
                           [[2, 6], [2, 7], [3, 6]]])  # fmt: skip
    means = []
    for draw in product(range(4), repeat=4):
        ious = []
        for label in range(2):
            hit, truth, predicted = (sum(images[n, part, label].item() for n in draw) for part in range(3))
            ious += [hit / (truth + predicted - hit)] if truth + predicted > hit else []
        means.append(sum(ious) / len(ious))
    exact = float(np.std(means)) * (4 / 3) ** 0.5
    assert bootstrap_error(images, draws=20_000) == pytest.approx(exact, rel=0.02)
    assert bootstrap_error(images) == bootstrap_error(images)
    void = torch.zeros(5, 3, 2, dtype=torch.long)  # images without a pixel of a class tell nothing
    assert bootstrap_error(torch.cat([images, void]), 20_000) == pytest.approx(exact, rel=0.02)
    assert bootstrap_error(torch.cat([images[:1], void])) is None


def test_an_evaluation_counts_images_not_batches_for_its_error(tmp_path: Path) -> None:
    items = [
        example(tmp_path, name, [[0, 1]], [truth]) for name, truth in zip("abc", ([0, 1], [1, 1], [0, 0]), strict=True)
    ]
    result = evaluate(reading(), items, batch=3)
    assert result["miou_error"] > 0
    assert result["miou_error"] == evaluate(reading(), items)["miou_error"]
    assert evaluate(reading(), items[:1])["miou_error"] is None
