"""Records in a run folder: split.json, environment.json and result.json."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fuzzyseg.config import Config, ConfigError, DataConfig
from fuzzyseg.data.io.image import Levels
from fuzzyseg.data.splits.spec import FOLD
from fuzzyseg.engine import Outcome
from fuzzyseg.experiment.build import Setup
from fuzzyseg.experiment.prepare_data import Material
from fuzzyseg.ops import distributed
from fuzzyseg.run import environment
from fuzzyseg.run.folder import RunFolder, RunFolderError

WITHOUT_EFFECT = {
    "data.cache", "data.cache_mib", "data.cache_dir", "evaluate.diagnose", "evaluate.gallery", "out", "train.workers",
    "train.log_every", "train.tensorboard", "train.stop_at", "train.keep_checkpoints", "track.to", "track.project",
    "train.threads", "train.sharding", "network.checkpointing",
}  # fmt: skip
"""Settings that control how training is executed; they do not change the weights beyond rounding errors."""


def absolute_paths(config: Config) -> Config:
    """Make the paths in `config` absolute, in place, so that they are valid in any working directory."""
    data = config.data
    if data.root is not None:
        data.root = str(Path(data.root).resolve())
    if data.more is not None:
        data.more = [str(Path(root).resolve()) for root in data.more]
    if data.unlabelled_from is not None:  # may be patterns, which resolve() does not accept on every platform
        data.unlabelled_from = [os.path.abspath(Path(path).expanduser()) for path in data.unlabelled_from]
    if config.init is not None:
        config.init = [str(Path(path).resolve()) for path in config.init]
    if config.network.weights not in ("imagenet", "none"):
        config.network.weights = str(Path(config.network.weights).resolve())
    for key in ("labelled", "val", "description"):  # may be something other than files
        if (value := getattr(data, key)) is not None and Path(value).is_file():
            setattr(data, key, str(Path(value).resolve()))
    if data.scores is not None:
        data.scores = str(Path(data.scores).resolve())
    return config


def recorded_data(data: DataConfig, run: RunFolder) -> DataConfig:
    """Return the data settings of a resumed run, with input statistics and split from its split.json."""
    content = record(run)
    if "input" not in content:
        raise RunFolderError(f"{run.split}: has no input statistics; restore the file")
    known = {key: content["input"].get(key) for key in ("mean", "std", "low", "high")}
    if content.get("held_out") and not (data.val or "").startswith(FOLD):
        known["val"] = str(run.split)  # the hold-out rule may have changed since
    resumed = data.model_copy()
    for key, value in known.items():
        setattr(resumed, key, value)  # validates the file's content
    return resumed


def record(run: RunFolder) -> dict[str, Any]:
    """Return the content of split.json. Raises RunFolderError for a damaged file."""
    content = run.read(run.split)
    lists = [content.get(key) for key in ("labelled", "unlabelled", "val")]
    named = all(isinstance(each, list) and all(isinstance(name, str) for name in each) for each in lists)
    if not named or not isinstance(content.get("input", {}), dict):
        raise RunFolderError(f"{run.split}: expected lists of names, and input statistics; restore the file")
    return content


def split_record(material: Material, threshold: dict[str, Any] | None) -> dict[str, Any]:
    """Return the content of a new split.json: lists, mask encoding, input statistics and the source of T."""
    card, encoding = material.card, material.dataset.encoding
    levels = card.levels or Levels()
    return {
        **material.split.record(),
        "data": material.dataset.fingerprint,
        "held_back": [item.name for item in material.held_back],
        "input": {"mean": card.mean, "std": card.std, "low": levels.low, "high": levels.high},
        "encoding": None if encoding is None else encoding.record(),
        "threshold": threshold,
    }


def sessions(run: RunFolder, current: dict[str, Any], state: dict[str, Any] | None) -> dict[str, Any]:
    """Return the environment of this session, with those of earlier sessions under `earlier`."""
    if state is None or not run.environment.is_file():
        return current
    before = run.read(run.environment)
    earlier = before.pop("earlier", [])
    return {**current, "earlier": [*(earlier if isinstance(earlier, list) else []), before]}


def restarted(run: RunFolder) -> bool:
    """Return whether torchrun restarted this process after the same job started the run."""
    job = environment.job()
    return job is not None and run.environment.is_file() and run.read(run.environment).get("job") == job


def same_split(run: RunFolder, material: Material) -> None:
    """Raise ConfigError if the split of the dataset has changed since the run started."""
    saved = record(run).get("hash")
    if saved != material.split.hash:
        raise ConfigError(
            f"{material.dataset.root}: its images or masks have changed since the run started (split hash {saved}, now "
            f"{material.split.hash}); restore the files, or start again in another --out"
        )


def hardware(device: torch.device) -> dict[str, Any]:
    """Return the part of environment.json that requires torch."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    result = {"device": str(device), "gpu": gpu, "threads": torch.get_num_threads(), "cuda": torch.version.cuda}
    return {**result, "processes": distributed.world_size()}


def result_of(
    setup: Setup,
    seed: int,
    material: Material,
    outcome: Outcome,
    threshold: dict[str, Any] | None,
    notes: Sequence[str],
) -> dict[str, Any]:
    """Return the content of result.json. threshold: source and value of T; None if unused. notes: from `notes_of`."""
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
