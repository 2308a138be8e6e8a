"""What a run's folder says of it: the split it began with, the machines it ran on, what came out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch

from fuzzyseg.config import Config, ConfigError
from fuzzyseg.data.io.image import Levels
from fuzzyseg.engine.trainer import Outcome
from fuzzyseg.experiment.prepare_data import Material, fingerprint
from fuzzyseg.ops import distributed
from fuzzyseg.run.folder import RunFolder


def without_files(config: Config, run: RunFolder) -> Config:
    """For a run that is resumed: all weights come from its checkpoint, the input statistics from its own record."""
    begun = config.model_copy(deep=True)
    begun.init, begun.network.weights = None, "none"
    known = record(run)["input"]
    begun.data.mean, begun.data.std = known["mean"], known["std"]
    begun.data.low, begun.data.high = known.get("low"), known.get("high")
    return begun


def record(run: RunFolder) -> dict[str, Any]:
    """What stands in split.json."""
    content: dict[str, Any] = json.loads(run.split.read_text(encoding="utf-8"))
    return content


def split_record(material: Material, threshold: dict[str, Any] | None) -> dict[str, Any]:
    """The content of split.json: the lists, what the masks hold, what the images are normalised by, where T is from."""
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
    """The environment of this session, and below `earlier` those of the sessions before it."""
    if state is None or not run.environment.is_file():
        return now
    before = json.loads(run.environment.read_text(encoding="utf-8"))
    return {**now, "earlier": [*before.pop("earlier", []), before]}


def same_split(run: RunFolder, material: Material) -> None:
    """ConfigError unless the data set still gives the lists that the run began with."""
    saved = record(run)["hash"]
    if saved != material.split.hash:
        raise ConfigError(
            f"{material.dataset.root}: its images or masks are not those the run began with (split hash {saved}, now "
            f"{material.split.hash}); restore the files, or start again in another --out"
        )


def hardware(device: torch.device) -> dict[str, Any]:
    """What only torch knows of the machine."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "device": str(device),
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "processes": distributed.world_size(),
        "cuda": torch.version.cuda,
    }


def result_of(
    config: Config,
    material: Material,
    outcome: Outcome,
    threshold: dict[str, Any] | None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of result.json. threshold: where T came from and what it is; None where it is not used.

    notes: what the method had to say of these settings.
    """
    return {
        "last": outcome.last,
        "best": outcome.best,
        "steps": outcome.step,
        "seed": config.seed,
        "method": config.method.name,
        "loss": config.loss.name,
        "threshold": threshold,
        "labelled": len(material.split.labelled) + len(material.held_back),
        "held_back": len(material.held_back),
        "split": material.split.hash,
        "protocol": (outcome.last or {}).get("protocol"),
        "notes": list(notes),
    }
