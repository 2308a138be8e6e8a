"""The score of a model on labelled images, with the name of the protocol beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from fuzzyseg.data import VOID, DataError, Item, Reader
from fuzzyseg.inference.predictor import Predictor, Protocol


def evaluate(
    predictor: Predictor,
    items: Sequence[Item],
    *,
    mode: str = "whole",
    window: tuple[int, int] | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    batch: int = 1,
    ignore_index: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Scores predictions at the size of the files against the masks. One confusion matrix is summed over all pixels.

    mode, window, scales, flip: see `Protocol`. batch: images per forward pass, where neighbours have one size.
    ignore_index: the masks' value for void, if not that of the training data. progress is called with images done
    and in all.

    Returns shares in [0, 1]: `miou`, the mean intersection over union of the classes that occur in the truth or in a
    prediction; `per_class`, that of each class, None where it occurs in neither; `accuracy` of the pixels and
    `class_accuracy`, its mean over the classes in the truth. Also `images`, `pixels` (not void), `protocol` in words.
    Raises DataError where there is no image, an image without a mask, or no pixel that is not void.
    """
    if not items:
        raise DataError("there are no images to evaluate on; expected at least one with a mask")
    card, protocol = predictor.card, Protocol(mode, window, tuple(scales), flip)
    void = card.ignore_index if ignore_index is None else ignore_index
    bands = None if card.bands is None else tuple(card.bands)
    reader = Reader(card.channels, len(card.classes), void, bands=bands, levels=card.levels)
    matrix = MulticlassConfusionMatrix(max(2, len(card.classes)), ignore_index=VOID, validate_args=False)
    matrix = matrix.to(predictor.device)
    done = 0
    for images, masks in _batches(reader, items, batch):
        matrix.update(predictor.batch_labels(images, protocol), masks.to(predictor.device).long())
        done += len(images)
        if progress is not None:
            progress(done, len(items))
    result = scores(matrix.compute().cpu(), card.classes)
    return {**result, "images": len(items), "protocol": protocol.describe(card)}


def _batches(reader: Reader, items: Sequence[Item], batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (B,Cin,H,W) and masks (B,H,W) as the reader gives them: up to `batch` neighbours of one size together."""
    waiting: list[tuple[Tensor, Tensor]] = []
    for item in items:
        image, mask = reader.read(item, with_mask=True)
        assert mask is not None
        if waiting and (len(waiting) == batch or waiting[0][0].shape != image.shape):
            yield _stack(waiting)
            waiting = []
        waiting.append((image, mask))
    yield _stack(waiting)


def _stack(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    images, masks = zip(*pairs, strict=True)
    return torch.stack(images), torch.stack(masks)


def scores(matrix: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """The shares that `evaluate` returns, and `pixels`, of a confusion matrix (C,C): rows truth, columns prediction.

    Raises DataError for one without a single pixel.
    """
    matrix = matrix.double()
    hit, truth, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    if not truth.sum():
        raise DataError("every pixel of the masks is void; expected some of a class (is ignore_index right?)")
    union = truth + predicted - hit
    iou = hit / union  # NaN for a class that is nowhere
    return {
        "miou": iou.nanmean().item(),
        "per_class": {
            name: value if there else None
            for name, value, there in zip(classes, iou.tolist(), (union > 0).tolist(), strict=False)
        },
        "accuracy": (hit.sum() / truth.sum()).item(),
        "class_accuracy": (hit / truth).nanmean().item(),
        "pixels": int(truth.sum()),
    }
