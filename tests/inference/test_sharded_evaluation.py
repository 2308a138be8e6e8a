"""Evaluation by several processes, which divide the images among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fuzzyseg.inference import evaluate
from support.processes import run_in_processes
from support.small_images import item, noise, predictor


def images(folder: Path, count: int) -> list[Any]:
    """Images of several sizes, so that each has its own weight in the score."""
    sizes = [(12 + 4 * i, 20 - 2 * i) for i in range(count)]
    masks = [np.random.default_rng(i).integers(0, 3, size).astype(np.uint8) for i, size in enumerate(sizes)]
    return [item(folder, f"{i}", noise(*size, seed=i), masks[i]) for i, size in enumerate(sizes)]


def scored(rank: int, folder: str, count: int) -> dict[str, Any]:
    kept: list[torch.Tensor] = []
    result = evaluate(predictor(), images(Path(folder) / f"{rank}", count), keep=lambda *counts: kept.extend(counts))
    return {**result, "matrix": kept[0], "each": kept[1]}


@pytest.mark.slow
@pytest.mark.parametrize(("count", "processes"), [(5, 2), (1, 2), (5, 4)])
def test_processes_divide_the_images_and_return_the_result_of_one(tmp_path, count, processes):
    one = scored(9, str(tmp_path), count)
    (tmp_path / "meet").mkdir()
    for found in run_in_processes(scored, tmp_path / "meet", str(tmp_path), count, count=processes):
        assert torch.equal(found.pop("matrix"), one["matrix"])
        assert torch.equal(found.pop("each"), one["each"])
        assert found == {key: value for key, value in one.items() if key not in ("matrix", "each")}
