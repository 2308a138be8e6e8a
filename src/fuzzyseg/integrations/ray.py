"""Prediction of many image files by Ray Data (extra `ray`), on one machine or a cluster with a shared file system."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fuzzyseg.data import DataError
from fuzzyseg.data.io.pillow import pixel_limit
from fuzzyseg.inference import Predictor
from fuzzyseg.inference.predict_image import ImagePrediction, Spread, Written, one_by_one


def ray_workers(count: int, max_megapixels: int | None = None) -> Spread:
    """Return the argument `spread` of `predict_files` for `count` Ray workers, with a GPU each if there are any.

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
    import ray

    rows = [{"file": str(file), "absolute": str(file.absolute()), "name": name} for file, name in files]
    if not rows:
        return
    settings = replace(prediction, predictor=Predictor(prediction.predictor.network, prediction.predictor.card))
    data = ray.data.from_items(rows, override_num_blocks=min(len(rows), 20 * count)).map(
        _Worker,
        fn_constructor_args=(replace(settings, out=prediction.out.absolute()), max_megapixels),
        concurrency=count,
        num_gpus=int(prediction.predictor.device.type == "cuda"),
    )
    for row in data.iter_rows():
        outputs = [prediction.out / output for output in row["outputs"]]
        yield Path(row["file"]), DataError(row["error"]) if row["error"] else (outputs, row["pixels"])


class _Worker:
    """A process of Ray, which loads the model once."""

    def __init__(self, prediction: ImagePrediction, max_megapixels: int | None) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        predictor = Predictor(prediction.predictor.network, prediction.predictor.card, device)
        self.prediction, self.limit = replace(prediction, predictor=predictor), max_megapixels

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        with pixel_limit(self.limit):
            ((_, result),) = one_by_one(self.prediction, [(Path(row["absolute"]), row["name"])])
        if isinstance(result, ValueError):
            return {"file": row["file"], "outputs": [], "pixels": [], "error": str(result)}
        below = [str(path.relative_to(self.prediction.out)) for path in result[0]]
        return {"file": row["file"], "outputs": below, "pixels": result[1], "error": ""}
