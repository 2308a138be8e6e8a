"""Comparison of a dataset's labels with the confident predictions of a model."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from fuzzyseg.config import Config
from fuzzyseg.data import VOID
from fuzzyseg.data.io.pillow import pixel_limit
from fuzzyseg.experiment.load_run import Counter, read_for
from fuzzyseg.experiment.process_group import choose_device
from fuzzyseg.experiment.validation import training_parts
from fuzzyseg.inference import load
from fuzzyseg.inference.metrics import confusion_matrix

CONFIDENT = 0.9
"""Smallest calibrated probability at which a prediction contradicts a label."""


def check_labels(
    source: str | Path, config: Config, progress: Counter | None = None
) -> tuple[list[dict[str, Any]], int]:
    """Compare the masks of a dataset with a model's predictions, at the training scale. Unreadable files are skipped.

    source: a run or model folder with the same classes as the data. config: its section `data` describes the dataset;
    metadata that neither these settings nor the files declare is taken from the model. A model that was trained on
    these masks has partly learnt their errors.

    Returns a row for each image with contradicted pixels, worst first, and the number of images compared. A row
    contains the image, the fraction of its labelled pixels that are contradicted, the most frequent confusion (label
    and prediction), and the fraction of labelled pixels with this confusion. Raises ConfigError, DataError.
    """
    predictor = load(source, device=choose_device("auto"))
    with pixel_limit(config.data.max_megapixels):
        dataset = read_for(Path(config.data.root or ""), predictor, config)
        items = [item for item in dataset.items if item.mask is not None]
        classes, rows, compared = predictor.card.classes, list[dict[str, Any]](), 0
        reader = predictor.card.reader(dataset.ignore_index, image_size=predictor.card.image_size)
        for done, item in enumerate(items, 1):
            pixels, matrix = 0, torch.zeros(len(classes), len(classes), dtype=torch.long, device=predictor.device)
            with suppress(OSError, ValueError):
                for image, mask in training_parts(reader, item):
                    confidence, labels = predictor.probabilities(predictor.training_logits(image)).max(0)
                    target = mask.to(predictor.device)
                    pixels += int((target != VOID).sum())
                    matrix += confusion_matrix(labels, target.masked_fill(confidence < CONFIDENT, VOID), len(classes))
            compared += pixels > 0
            wrong = matrix.fill_diagonal_(0)
            if wrong.any():
                label, prediction = (classes[index] for index in divmod(int(wrong.argmax()), len(classes)))
                row = {"image": item.name, "share": int(wrong.sum()) / pixels, "label": label}
                rows.append({**row, "prediction": prediction, "most": int(wrong.max()) / pixels})
            if progress is not None:
                progress(done, len(items))
    return sorted(rows, key=lambda row: -row["share"]), compared
