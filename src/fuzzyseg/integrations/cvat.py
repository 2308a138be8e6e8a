"""Function module for CVAT's auto-annotation and agents. It annotates images with masks from a trained model.

    cvat-cli task auto-annotate 137 --function-module fuzzyseg.integrations.cvat -p run=str:runs/first

Task labels are matched by name; `--allow-unmatched-labels` skips classes that the task lacks. Instead of passing `run`,
you can set the environment variable FUZZYSEG_RUN. Needs `pip install cvat-cli`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from fuzzyseg.data import DataError
from fuzzyseg.data.labels.class_lists import background_of
from fuzzyseg.inference import Predictor, load
from fuzzyseg.inference.outputs.polygons import check_polygons, polygons

if TYPE_CHECKING:
    import PIL.Image
    from cvat_sdk import auto_annotation, models


class Segmentation:
    """A detection function for the CVAT SDK. A class named background is not annotated."""

    def __init__(self, predictor: Predictor) -> None:
        from cvat_sdk import auto_annotation

        self.predictor = predictor
        names = list(enumerate(predictor.classes))
        self._labels = [(index, name) for index, name in names if index != background_of(predictor.classes)]
        labels = [auto_annotation.label_spec(name, index, type="mask") for index, name in self._labels]
        self.spec = auto_annotation.DetectionFunctionSpec(labels=labels)

    def detect(
        self, context: auto_annotation.DetectionFunctionContext, image: PIL.Image.Image
    ) -> list[models.LabeledShapeRequest]:
        """Return one mask per class in the image or, if CVAT requests them, polygons of its connected regions.

        Pixels with a probability below CVAT's confidence threshold, if any, are omitted.
        """
        from cvat_sdk import auto_annotation
        from cvat_sdk.masks import encode_mask

        confidence, labels = self.predictor.probabilities(self.predictor.logits(image)).max(0)
        mask = np.where(confidence.cpu() < (context.conf_threshold or 0), -1, labels.cpu())
        shapes = []
        for index, _ in self._labels:
            pixels = mask == index
            if context.conv_mask_to_poly:
                check_polygons()
                rings = [ring for _, ring in polygons(pixels.astype(np.uint8), [0])]
                shapes += [auto_annotation.polygon(index, ring.ravel().tolist()) for ring in rings]
            elif pixels.any():
                shapes.append(auto_annotation.mask(index, encode_mask(pixels)))
        return shapes


def create(run: str | None = None, device: str = "cpu") -> Segmentation:
    """Return the detection function for a run folder, or its model/ or best/ folder. Raises DataError."""
    run = run or os.environ.get("FUZZYSEG_RUN")
    if run is None:
        raise DataError("no model given: pass -p run=str:RUN or set FUZZYSEG_RUN=RUN (a run or model folder)")
    return Segmentation(load(run, device=device))
