"""Prediction of many image files with Ray Data (extra `ray`), on one machine or a cluster with a shared file system."""

import copy
import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fuzzyseg.data import VOID, DataError
from fuzzyseg.data.io.pillow import pixel_limit
from fuzzyseg.inference import Predictor
from fuzzyseg.inference.predict_image import ImagePrediction, Spread, Written, one_by_one

BLOCK = 8
"""Largest number of images whose results are received together, and lost if the prediction is interrupted."""


def ray_workers(count: int, max_megapixels: int | None = None) -> Spread:
    """Return a `spread` for `predict_files` that uses `count` Ray workers, each with a GPU if the model is on one.

    Ray starts on this machine unless it is running or RAY_ADDRESS names a cluster. max_megapixels: as in `pixel_limit`.
    Raises ValueError if Ray is missing.
    """
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise ValueError(f"--ray: needs Ray Data ({error}); pip install 'fuzzyseg[ray]'") from None
    return partial(_predict, count, max_megapixels)


def _predict(
    count: int, max_megapixels: int | None, prediction: ImagePrediction, files: Iterable[tuple[Path, str]]
) -> Iterator[tuple[Path, Written | ValueError]]:
    import ray.data

    rows = [{"file": str(file), "absolute": str(file.absolute()), "name": name} for file, name in files]
    if not rows:
        return
    try:
        if not ray.is_initialized():
            ray.init()
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ValueError(f"--ray: {error}; RAY_ADDRESS is {os.environ.get('RAY_ADDRESS', 'not set')}") from None
    given, device = prediction.predictor, prediction.predictor.device.type
    network = given.network if device == "cpu" else copy.deepcopy(given.network)  # Predictor moves it to the CPU
    settings = replace(prediction, predictor=Predictor(network, given.card), out=prediction.out.absolute())
    blocks = max(20 * count, -(-len(rows) // BLOCK))
    data = ray.data.from_items(rows, override_num_blocks=min(len(rows), blocks)).map(
        _Worker,
        fn_constructor_args=(settings, device, max_megapixels),
        concurrency=count,
        num_gpus=int(device == "cuda"),
        max_restarts=2,  # by default, an image that kills its worker is retried forever
        max_task_retries=1,
    )
    try:
        for row in data.iter_rows():
            if row["errno"]:
                raise OSError(row["errno"], row["error"], row["path"] or None)
            result = [prediction.out / output for output in row["outputs"]], np.asarray(row["pixels"], np.int64)
            yield Path(row["file"]), DataError(row["error"]) if row["error"] else result
    except (ray.exceptions.RayActorError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError) as error:
        cause = " ".join(str(error).split())[:200]
        raise ValueError(f"--ray: a worker died repeatedly ({cause}); if memory is short, use fewer workers") from None


class _Worker:
    """A Ray worker process, which loads the model once."""

    def __init__(self, prediction: ImagePrediction, device: str, max_megapixels: int | None) -> None:
        predictor = Predictor(prediction.predictor.network, prediction.predictor.card, device)
        self.prediction, self.limit = replace(prediction, predictor=predictor), max_megapixels

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Predict an image. All rows have values of the same types; `errno` is an OSError's number, or 0."""
        about = {"file": row["file"], "outputs": [], "pixels": [0] * (VOID + 1), "error": "", "errno": 0, "path": ""}
        try:
            with pixel_limit(self.limit):
                ((_, result),) = one_by_one(self.prediction, [(Path(row["absolute"]), row["name"])])
        except OSError as error:
            path, number = str(error.filename or ""), error.errno or errno.ENOSPC  # NumPy sets no number
            return about | {"error": error.strerror or f"{error}: the disk may be full", "errno": number, "path": path}
        if isinstance(result, ValueError):
            return about | {"error": str(result)}
        below = [str(path.relative_to(self.prediction.out)) for path in result[0]]
        return about | {"outputs": below, "pixels": result[1]}
