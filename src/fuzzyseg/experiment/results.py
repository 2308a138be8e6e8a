"""The records of a run folder: split.json, environment.json and result.json."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fuzzyseg.config import Config, ConfigError
from fuzzyseg.data import DataError
from fuzzyseg.data.io.image import Levels
from fuzzyseg.data.splits.spec import FOLD
from fuzzyseg.engine import Outcome
from fuzzyseg.experiment.build import Setup
from fuzzyseg.experiment.prepare_data import Material, fingerprint
from fuzzyseg.ops import distributed
from fuzzyseg.run.folder import RunFolder


def absolute_paths(config: Config) -> Config:
    """The same settings with absolute paths, which are valid in any working folder. Changes `config`."""
    data = config.data
    if data.root is not None:
        data.root = str(Path(data.root).resolve())
    if data.more is not None:
        data.more = [str(Path(root).resolve()) for root in data.more]
    if data.unlabelled_from is not None:  # may be patterns, which resolve() does not take on every platform
        data.unlabelled_from = [os.path.abspath(Path(path).expanduser()) for path in data.unlabelled_from]
    if config.init is not None:
        config.init = [str(Path(path).resolve()) for path in config.init]
    if config.network.weights not in ("imagenet", "none"):
        config.network.weights = str(Path(config.network.weights).resolve())
    for key in ("labelled", "val", "description"):
        if (value := getattr(data, key)) is not None and Path(value).is_file():
            setattr(data, key, str(Path(value).resolve()))
    return config


def without_files(config: Config, run: RunFolder) -> Config:
    """The settings of a resumed run: weights are in its checkpoint, input statistics and split in its split.json."""
    begun = config.model_copy(deep=True)
    begun.init, begun.network.weights = None, "none"
    content = record(run)
    if content.get("held_out") and not (begun.data.val or "").startswith(FOLD):
        begun.data.val = str(run.split)  # the rule of the hold-out may have changed since
    known = content["input"]
    begun.data.mean, begun.data.std = known["mean"], known["std"]
    begun.data.low, begun.data.high = known.get("low"), known.get("high")
    return begun


def record(run: RunFolder) -> dict[str, Any]:
    """The content of split.json. Raises DataError for a damaged file."""
    try:
        content: dict[str, Any] = json.loads(run.split.read_text(encoding="utf-8"))
        names = [name for key in ("labelled", "unlabelled", "val") for name in content[key]]
        if not all(isinstance(name, str) for name in names) or not isinstance(content.get("input", {}), dict):
            raise ValueError("expected lists of names, and input statistics")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{run.split}: is no record of a split ({error!r}); restore the file") from None
    return content


def split_record(material: Material, threshold: dict[str, Any] | None) -> dict[str, Any]:
    """New content for split.json: lists, mask encoding, input statistics, and the source of T."""
    encoding, levels = material.dataset.encoding, material.levels or Levels()
    return {
        **material.split.record(),
        "data": fingerprint(material.dataset),
        "held_back": [item.name for item in material.held_back],
        "input": {"mean": material.mean, "std": material.std, "low": levels.low, "high": levels.high},
        "encoding": None if encoding is None else encoding.record(),
        "threshold": threshold,
    }


def sessions(run: RunFolder, now: dict[str, Any], state: dict[str, Any] | None) -> dict[str, Any]:
    """The environment of this session, with those of the sessions before it under `earlier`."""
    if state is None or not run.environment.is_file():
        return now
    before = json.loads(run.environment.read_text(encoding="utf-8"))
    return {**now, "earlier": [*before.pop("earlier", []), before]}


def same_split(run: RunFolder, material: Material) -> None:
    """Raise ConfigError unless the data set still gives the split that the run started with."""
    saved = record(run)["hash"]
    if saved != material.split.hash:
        raise ConfigError(
            f"{material.dataset.root}: its images or masks have changed since the run started (split hash {saved}, now "
            f"{material.split.hash}); restore the files, or start again in another --out"
        )


def hardware(device: torch.device) -> dict[str, Any]:
    """The part of environment.json that needs torch."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "device": str(device),
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "processes": distributed.world_size(),
        "cuda": torch.version.cuda,
    }


def result_of(
    setup: Setup,
    seed: int,
    material: Material,
    outcome: Outcome,
    threshold: dict[str, Any] | None,
    notes: Sequence[str],
) -> dict[str, Any]:
    """The content of result.json. threshold: source and value of T; None if it is not used. notes: `notes_of`."""
    return {
        "last": outcome.last,
        "best": outcome.best,
        "steps": outcome.step,
        "seed": seed,
        "method": setup.name,
        "loss": setup.loss.name,
        "threshold": threshold,
        "labelled": len(material.split.labelled) + len(material.held_back),
        "held_back": len(material.held_back),
        "split": material.split.hash,
        "protocol": (outcome.last or {}).get("protocol"),
        "notes": list(notes),
    }
