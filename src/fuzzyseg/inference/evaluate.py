"""Evaluation of a model on images with masks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fuzzyseg.data import VOID, DataError, Item, Reader
from fuzzyseg.data.io.image import Windows
from fuzzyseg.data.labels.blocks import label_reader, open_large
from fuzzyseg.data.loading.reader import check_sizes
from fuzzyseg.data.views import known_pixels
from fuzzyseg.inference.ceiling import ceiling_matrix
from fuzzyseg.inference.metrics import bootstrap_error, confusion_matrix, resolvable, scores
from fuzzyseg.inference.predictor import Predictor, Protocol
from fuzzyseg.ops import distributed


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
    keep: Callable[[Tensor, Tensor], None] = lambda matrix, images: None,
) -> dict[str, Any]:
    """Compute metrics at the original image resolution, from one confusion matrix over all pixels.

    mode, window, scales, flip: see `Protocol`. batch: maximum number of images (of equal size) per forward pass.
    ignore_index: void value of the masks; default: the training data's. ceiling: `ceiling` of an earlier result for the
    same items and network, to avoid reading the masks twice. metrics: additional metrics by name, each a function of
    the confusion matrix (C,C) float64 (rows: truth, columns: prediction). progress: called with (images done, total
    images). keep: called at the end with the confusion matrix (C,C) int64 and the numbers of correct, true and
    predicted pixels per image and class (N,3,C).

    Images and masks too large to decode at once are read and scored in row blocks if the protocol allows it (one scale,
    no flip, no `image_size`); the result is the same.

    Returns the `scores` of the matrix; `ceiling`, the IoU of each class between the masks and their `round_trip` to the
    stride of the network's logits (one view of the whole image, regardless of the protocol), None for a class that is
    in no mask; `miou_resolvable`, see `resolvable`; `miou_error`, see `bootstrap_error`; `images`; and `protocol`, a
    description.

    The processes of a process group divide the images among themselves and return the same result; all must call it.

    Raises DataError if there are no images, an image has no mask, or every pixel is void.
    """
    if not items:
        raise DataError("found no images to evaluate; expected at least one with a mask")
    card, protocol = predictor.card, Protocol(mode, window, tuple(scales), flip)
    reader, part = card.reader(ignore_index), items[distributed.rank() :: distributed.world_size()]
    counts, each = _counts(predictor, _predictions(predictor, reader, part, protocol, batch), len(items), progress)
    keep(counts, each)
    result = scores(counts, card.classes)
    further = {name: float(metric(counts.double())) for name, metric in (metrics or {}).items()}
    if ceiling is None:
        mine = ceiling_matrix(part, reader, image_size=card.image_size, stride=predictor.stride())
        ceiling_counts = distributed.gather(mine.unsqueeze(0).to(predictor.device)).sum(0).cpu()
        ceiling = scores(ceiling_counts, card.classes)["per_class"]
    measure = resolvable(result["per_class"], ceiling) | {"miou_error": bootstrap_error(each)}
    return {**further, **result, **measure, "images": len(items), "protocol": protocol.describe(card)}


Prediction = tuple[Tensor, Tensor, int]
"""Labels and truth (B,H,W), and the number of images that they complete."""


def _counts(
    predictor: Predictor, predictions: Iterator[Prediction], total: int, progress: Callable[[int, int], None] | None
) -> tuple[Tensor, Tensor]:
    """Return the confusion matrix (C,C) and the counts (N,3,C) of all `total` images, gathered from all processes."""
    count, processes, done = len(predictor.card.classes), distributed.world_size(), 0
    matrix = torch.zeros(count, count, dtype=torch.long, device=predictor.device)
    image, images = torch.zeros_like(matrix), [matrix.new_zeros(0, 3, count)]
    for labels, masks, finished in predictions:
        for label, mask in zip(labels, masks.to(predictor.device), strict=True):
            image = image + confusion_matrix(label, mask, count)
            if finished:
                matrix += image
                images.append(torch.stack([image.diagonal(), image.sum(1), image.sum(0)]).unsqueeze(0))
                image = torch.zeros_like(matrix)
        done += finished
        if finished and progress is not None:
            progress(min(done * processes, total), total)
    each = distributed.gather(torch.cat(images)).cpu()  # by process: every n-th image from the first, the second, ...
    each = each[(torch.arange(total) % processes).argsort(stable=True).argsort()]
    return distributed.gather(matrix.unsqueeze(0)).sum(0).cpu(), each


def _predictions(
    predictor: Predictor, reader: Reader, items: Sequence[Item], protocol: Protocol, batch: int
) -> Iterator[Prediction]:
    """Yield predictions of up to `batch` consecutive images of equal size, and of the row blocks of large images."""
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
    """Yield the predictions of an image's row blocks. Neither the image nor the mask is ever loaded in full."""
    check_sizes([item])
    truth = label_reader(item, classes=reader.classes, ignore_index=reader.ignore_index)
    read = partial(windows.read, with_known=True)
    for box, probabilities in predictor.probability_rows(read, windows.size, protocol):
        masks = torch.from_numpy(truth(box)).unsqueeze(0)
        if windows.raster.may_miss:
            known = known_pixels(torch.from_numpy(read(box)).movedim(-1, 0), reader.channels)
            masks = masks if known is None else masks.masked_fill(~known, VOID)
        yield probabilities.argmax(0, keepdim=True), masks, int(box[2] == windows.size[0])
