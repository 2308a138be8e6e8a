"""A custom dataset and a custom metric. Like a torch dataset, it returns a pair (image, mask or None) per index.

    python examples/own_dataset.py
    fuzzyseg train --import examples/own_dataset.py --data discs --out runs/own

The pairs are written once to `<out>.data`, from which all commands read them. `METRICS` contains functions of the
confusion matrix; the first one selects the best checkpoint.
"""

from __future__ import annotations

import numpy as np

import fuzzyseg


class Discs:
    """Noisy images of a bright disc. By default, every third image has a mask."""

    classes = ("ground", "disc")

    def __init__(self, count, *, masks=3):
        self.count, self.masks = count, masks

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        random = np.random.default_rng(index)
        y, x = np.indices((64, 64))
        disc = (y - random.integers(16, 48)) ** 2 + (x - random.integers(16, 48)) ** 2 < 200
        image = (random.integers(0, 160, (64, 64, 3)) + 90 * disc[..., None]).astype(np.uint8)
        return image, disc.astype(np.uint8) if index % self.masks == 0 else None


def discs():
    """Return the datasets by split. Only `train` is required."""
    return {"train": Discs(24), "val": Discs(4, masks=1)}


def disc_iou(matrix):
    """Compute the IoU of class 1 from the confusion matrix (C,C): rows are true classes, columns predictions."""
    return matrix[1, 1] / (matrix[1].sum() + matrix[:, 1].sum() - matrix[1, 1])


DATASETS = {"discs": discs}
METRICS = {"disc_iou": disc_iou}

if __name__ == "__main__":
    result = fuzzyseg.train(
        {
            "network": {"arch": "Unet", "encoder": "resnet18", "weights": "none"},
            "loss": {"name": "fuzzy"},
            "train": {"steps": 3, "batch": 2, "crop": 64, "workers": 0, "device": "cpu"},
            "out": "runs/own_dataset",
        },
        data=discs(),
        metrics=METRICS,
    )
    print("IoU of the disc:", result.result["last"]["disc_iou"])
