"""Readers for run folders and sweep rows, which return plain values; does not import torch."""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from fuzzyseg.run.folder import RunFolder, RunFolderError
from fuzzyseg.run.logs import SCORE, read_lines

SUPERVISED = "supervised"
"""The method that trains on labelled images only: the baseline."""

PER_RUN = {"seed", "data.labelled", "data.split_seed", "data.val", "data.root", "out", "init"}
"""Settings in which runs of one arm may differ, besides those that do not affect results."""

NO_EFFECT = ("data.cache", "evaluate.", "track.", "train.device", "train.log_every", "train.threads", "train.workers")
"""Prefixes of settings that do not affect training, as a tuple for `str.startswith`."""


@dataclass
class Run:
    """Content of a run folder.

    settings: settings by dotted name. lines: lines of metrics.jsonl. split, environment, result, evaluation: content of
    these JSON files; empty if missing.
    """

    path: Path
    name: str
    settings: dict[str, Any]
    lines: list[dict[str, Any]]
    split: dict[str, Any]
    environment: dict[str, Any]
    result: dict[str, Any]
    evaluation: dict[str, Any]
    arm: str = ""

    @cached_property
    def evaluations(self) -> list[dict[str, Any]]:
        """All evaluations, with their steps."""
        scored = [line for line in self.lines if SCORE in (line.get("evaluation") or {})]
        return [{"step": line["step"], **line["evaluation"]} for line in scored]

    @property
    def last(self) -> dict[str, Any]:
        """The last evaluation; empty if there is none."""
        return self.result.get("last") or (self.evaluations[-1] if self.evaluations else {})

    @property
    def best(self) -> dict[str, Any]:
        """The evaluation that selected the best checkpoint; empty if there is none."""
        best = self.result.get("best")
        if best is None and not self.result and self.split.get("choose_best", True):
            best = max(self.evaluations, key=lambda each: each[SCORE], default=None)
        return best or {}

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.settings.get("method.name"))

    def like(self, other: "Run") -> bool:
        """Return whether both runs were scored on the same data and trained with the same number of labelled images."""
        known = self.split.get("data")
        same = (known, self.split.get("val")) == (other.split.get("data"), other.split.get("val"))
        return known is not None and same and self.counts["labelled"] == other.counts["labelled"]

    @property
    def counts(self) -> dict[str, int]:
        """Number of images per list, as used in training."""
        lists = {name: self.split.get(name) or [] for name in ("labelled", "unlabelled", "val", "held_back")}
        sizes = {name: len(names) for name, names in lists.items()}
        sizes["labelled"] += sizes.pop("held_back")
        return sizes | ({"unlabelled": 0} if self.method == SUPERVISED else {})

    @property
    def steps(self) -> tuple[int, int]:
        """Number of finished steps, and total number of steps."""
        done = self.result.get("steps") or (self.lines[-1]["step"] if self.lines else 0)
        return int(done), int(self.settings.get("train.steps") or done)

    def pictures(self, max_bytes: int) -> Iterator[dict[str, Any]]:
        """Yield the gallery entries with their pictures as data URIs, up to `max_bytes` in total."""
        kinds = {".jpg": "jpeg", ".png": "png"}
        for entry in self.evaluation.get("gallery", []):
            files = {view: self.path / "evaluation" / Path(str(name)).name for view, name in entry["files"].items()}
            views = {
                view: f"data:image/{kinds[file.suffix]};base64,{base64.b64encode(file.read_bytes()).decode()}"
                for view, file in files.items()
                if file.is_file() and file.suffix in kinds
            }
            max_bytes -= sum(map(len, views.values()))
            if max_bytes < 0:
                return
            yield {"name": entry["name"], "miou": entry["miou"], "rank": entry["rank"], "views": views}


@dataclass(frozen=True)
class Score:
    """mIoU of the last checkpoint in per cent, and the values by which scores are paired.

    data: fingerprint of the dataset. labelled: number of labelled images. repeat: seed, subset and fold. split,
    protocol: evaluation split and protocol. starts: hashes of the initial weights; None if not recorded. folds: number
    of cross-validation folds, if any. steps: training steps.
    """

    data: str | None
    arm: str
    labelled: int
    repeat: tuple[Any, ...]
    miou: float
    split: str | None
    protocol: str | None
    starts: tuple[str, ...] | None
    folds: int | None
    supervised: bool
    steps: int | None
    best: float | None = field(default=None, compare=False)


def read_run(path: Path, names: Mapping[Path, str]) -> Run:
    """Read a run folder. names: display names by path. Raises RunFolderError if it is invalid or has no logged step."""
    run = RunFolder(path)
    if not run.config.is_file():
        raise RunFolderError(f"{path}: is neither a run folder (no config.yaml) nor a sweep folder (no rows/*.json)")
    try:
        settings = yaml.safe_load(run.config.read_text(encoding="utf-8"))
        lines = read_lines(run.metrics) if run.metrics.is_file() else []
    except yaml.YAMLError as error:
        raise RunFolderError(f"{run.config}: cannot be read ({' '.join(str(error).split())}); restore it") from None
    if not isinstance(settings, dict) or not lines:
        raise RunFolderError(f"{path}: has no logged steps yet; repeat the report after the first ones")
    files = {"split": run.split, "environment": run.environment, "result": run.result, "evaluation": run.evaluation}
    parts: dict[str, Any] = {key: run.read(file) if file.is_file() else {} for key, file in files.items()}
    if lines[-1]["step"] > parts["result"].get("steps", lines[-1]["step"]):
        parts["result"] = {}  # from before `--resume` with more steps
    return Run(path, names[path], flat(settings), lines, **parts)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted names."""
    flattened: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flattened |= flat(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return flattened


def names_of(paths: list[Path]) -> dict[Path, str]:
    """Return the name of each folder, with as many parent folders as needed to distinguish the paths."""
    parts, depth = {path: path.absolute().parts for path in paths}, 1
    while len({parts[path][-depth:] for path in paths}) < len(paths):
        depth += 1
    return {path: "/".join(parts[path][-depth:]) for path in paths}


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a sweep folder or of a folder of rows; empty for other folders. Raises RunFolderError."""
    folder = path / "rows" if (path / "rows").is_dir() else path
    if (path / "config.yaml").is_file() or not folder.is_dir():
        return []
    rows = []
    for file in sorted(folder.glob("*.json")):
        row = RunFolder.read(file)
        try:
            dict(row["settings"]), float(row["result"]["last"][SCORE]), int(row["result"]["labelled"]), str(row["arm"])
        except (KeyError, TypeError, ValueError):
            raise RunFolderError(f"{file}: is not a sweep result (settings, arm and result); remove it") from None
        rows.append(row)
    return rows


def row_of(run: Run) -> dict[str, Any]:
    """Return a run in the format of a sweep row."""
    starts = [_fingerprint(Path(str(path))) for path in run.settings.get("init") or ()]
    return {
        "data": run.split.get("data"),
        "arm": run.arm,
        "result": run.result,
        "settings": run.settings,
        "seed": run.settings.get("seed"),
        "subset": run.settings.get("data.split_seed"),
        "starts": None if None in starts else starts,
    }


def score_of(row: Mapping[str, Any]) -> Score:
    """Return the score of a sweep row."""
    result, settings = row["result"], row["settings"]
    fold = re.fullmatch(r"fold:(\d+)/(\d+)", str(settings.get("data.val")))
    return Score(
        row.get("data"),
        str(row["arm"]),
        int(result["labelled"]),
        (row.get("seed"), row.get("subset"), fold[1] if fold else None),
        100 * float(result["last"][SCORE]),
        result.get("split"),
        result.get("protocol"),
        None if row.get("starts") is None else tuple(row["starts"]),
        int(fold[2]) if fold else None,
        settings.get("method.name") == SUPERVISED,
        settings.get("train.steps"),
        None if result.get("best") is None else 100 * float(result["best"][SCORE]),
    )


def _fingerprint(path: Path) -> str | None:
    """Return the hash of initial weights, as in sweep rows; None if the file no longer exists."""
    for file in (path, path / "model.safetensors", path / "model/model.safetensors"):
        if file.is_file():
            return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    return None


def distinct_arms(named: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Return the arm names of runs, given as (name, settings), with differing settings appended to equal names.

    At most three settings are appended, or more if needed to distinguish runs that differ outside `PER_RUN`.
    """
    arms = [name for name, _ in named]
    for name in set(arms):
        group = {place: settings for place, (other, settings) in enumerate(named) if other == name}
        keys = sorted({key for each in group.values() for key in each if not key.startswith(NO_EFFECT)} - PER_RUN)
        varying = [key for key in keys if len({str(each.get(key)) for each in group.values()}) > 1]
        kinds = {tuple(str(each.get(key)) for key in varying) for each in group.values()}
        for count in range(3, max(3, len(varying)) + 1):
            for place, each in group.items():
                listed = [f"{key.split('.', 1)[-1]} {each[key]}" for key in varying[:count] if key in each]
                arms[place] = ", ".join([name, *listed])
            if len({arms[place] for place in group}) == len(kinds):
                break
    return arms
