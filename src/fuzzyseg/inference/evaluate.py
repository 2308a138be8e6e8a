"""The score of a model on labelled images, with the name of the protocol beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from fuzzyseg.data import VOID, DataError, Item, Reader
from fuzzyseg.data.io.image import Windows
from fuzzyseg.data.labels.blocks import label_reader, open_large
from fuzzyseg.data.loading.reader import check_sizes
from fuzzyseg.inference.ceiling import ceiling_matrix, resolvable
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
    ceiling: Mapping[str, float | None] | None = None,
    metrics: Mapping[str, Callable[[Tensor], float]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Scores predictions at the size of the files against the masks. One confusion matrix is summed over all pixels.

    mode, window, scales, flip: see `Protocol`. batch: images per forward pass, where neighbours have one size.
    ignore_index: the masks' value for void, if not that of the training data. ceiling: that of an earlier result for
    the same items and network, which saves a second reading of the masks. metrics: further scores of the confusion
    matrix (C,C) float64, rows truth and columns prediction; the result has them by name. progress is called with
    images done and in all.

    A TIFF or NumPy file that is too large to be decoded whole is read and scored in row blocks, and so is such a mask,
    where the protocol allows it (one scale, no flip, no `image_size`); the result is the same.

    Returns shares in [0, 1]: `miou`, the mean intersection over union of the classes that occur in the truth or in a
    prediction; `per_class`, that of each class, None where it occurs in neither; `accuracy` of the pixels and
    `class_accuracy`, its mean over the classes in the truth. `ceiling` is the IoU of each class between the truth and
    the truth brought to the stride of the network's logits and back (`ceiling.round_trip`; of one view of the whole
    image, whatever the protocol), None for a class that is not in the truth; `miou_resolvable` the mean IoU over the
    classes whose ceiling is at least `ceiling_least`, None where there is none. Also `images`, `pixels` (not void),
    `protocol` in words.

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
    for labels, masks, finished in _predictions(predictor, reader, items, protocol, batch):
        matrix.update(labels, masks.to(predictor.device).long())
        done += finished
        if finished and progress is not None:
            progress(done, len(items))
    counts = matrix.compute().cpu()
    result = scores(counts, card.classes)
    further = {name: float(metric(counts.double())) for name, metric in (metrics or {}).items()}
    if ceiling is None:
        found = ceiling_matrix(items, reader, image_size=card.image_size, stride=predictor.stride())
        ceiling = scores(found, card.classes)["per_class"]
    measure = resolvable(result["per_class"], ceiling)
    return {**further, **result, **measure, "images": len(items), "protocol": protocol.describe(card)}


Prediction = tuple[Tensor, Tensor, int]
"""Labels and truth (B,H,W), and how many images are finished by them."""


def _predictions(
    predictor: Predictor, reader: Reader, items: Sequence[Item], protocol: Protocol, batch: int
) -> Iterator[Prediction]:
    """Up to `batch` neighbours of one size together; an image that is too large to be decoded whole in row blocks."""
    waiting: list[tuple[Tensor, Tensor]] = []
    for item in items:
        windows = open_large(item.image, reader.channels, bands=reader.bands, levels=reader.levels)
        if windows is not None and predictor.reads_by_windows(windows.size, protocol):
            if waiting:
                yield _together(predictor, waiting, protocol)
                waiting = []
            yield from _rows(predictor, reader, item, windows, protocol)
            continue
        image, mask = reader.read(item, with_mask=True)
        assert mask is not None
        if waiting and (len(waiting) == batch or waiting[0][0].shape != image.shape):
            yield _together(predictor, waiting, protocol)
            waiting = []
        waiting.append((image, mask))
    if waiting:
        yield _together(predictor, waiting, protocol)


def _together(predictor: Predictor, pairs: list[tuple[Tensor, Tensor]], protocol: Protocol) -> Prediction:
    images, masks = zip(*pairs, strict=True)
    return predictor.batch_labels(torch.stack(images), protocol), torch.stack(masks), len(pairs)


def _rows(
    predictor: Predictor, reader: Reader, item: Item, windows: Windows, protocol: Protocol
) -> Iterator[Prediction]:
    """An image, and a mask that is as large, that are never held whole."""
    check_sizes([item])
    truth = label_reader(item, classes=reader.classes, ignore_index=reader.ignore_index)
    (height, width), top = windows.size, 0
    for labels in predictor.label_rows(windows.read, windows.size, protocol):
        box = (top, 0, top + len(labels), width)
        top = box[2]
        yield labels.unsqueeze(0), torch.from_numpy(truth(box)).unsqueeze(0), int(top == height)


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
