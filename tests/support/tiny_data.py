"""Dataset of small images and masks, and a configuration that trains on it in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fuzzyseg.config import Config
from fuzzyseg.data.loading.loader import Loader
from fuzzyseg.experiment.build import resolve
from fuzzyseg.experiment.prepare_data import Material, build_loader, gather_material


def write_folder(
    root: Path, *, images: int = 16, masks: int = 12, val: int = 3, size: tuple[int, int] = (24, 32)
) -> Path:
    """Write images/ and masks/ with 3 classes of different colours, and `val` further pairs as validation split."""
    rng = np.random.default_rng(0)
    for i in range(images + val):
        split = "val" if i >= images else "train"
        mask = rng.integers(0, 3, (size[0] // 8, size[1] // 8)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
        image = np.stack([mask * 80, 255 - mask * 60, rng.integers(0, 255, size)], -1).astype(np.uint8)
        mask[:2] = 255
        for kind, array in (("images", image), ("masks", mask)):
            if kind == "images" or i < masks or split == "val":
                path = root / kind / split / f"im{i:02d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    (root / "dataset.yaml").write_text("classes: [low, middle, high]\nignore_index: 255\n")
    return root


def settings(root: Path, out: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    """Return settings for 20 steps of CPS with FPL, overridden by `sections`."""
    base: dict[str, Any] = {
        "data": {"root": str(root), "labelled": "6"},
        "augment": {"scale": [0.7, 1.3]},
        "method": {"name": "cps"},
        "loss": {"name": "fuzzy"},
        "optim": {"name": "sgd", "lr": 0.05},
        "train": {"steps": 20, "batch": 4, "crop": [16, 24], "workers": 0, "device": "cpu", "log_every": 5,
                  "eval_every": 10, "tensorboard": False},
        "network": {"weights": "none"},
        "seed": 3,
        "out": str(out),
    }  # fmt: skip
    for name, values in sections.items():
        base[name] = {**base[name], **values} if isinstance(values, dict) else values
    return base


def material_of(config: Config) -> Material:
    """Return the data of a run with this configuration."""
    return gather_material(config.data, resolve(config), config.seed)


def loader_of(config: Config, material: Material, method: Any) -> Loader:
    """Return the loader of such a run, on the CPU."""
    sections = config.data, config.augment, config.train
    return build_loader(*sections, material, method, torch.device("cpu"), config.seed)
