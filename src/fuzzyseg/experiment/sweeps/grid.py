"""Expansion of a plan and the command's options into runs, each with its complete settings."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

from fuzzyseg.config import Config, ConfigError, check_known, merge, nearest, override, validate
from fuzzyseg.config.plan import Plan
from fuzzyseg.data.splits.spec import FOLD
from fuzzyseg.experiment.build import resolve
from fuzzyseg.plugins import methods

Repeat = tuple[int, int | None, int | None]
START = "start"
"""Prefix of the arms of supervised pretraining, start0 and start1."""


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    arm: name of the configuration. labelled: number of labelled images (None: as in the plan's base). subset: seed of
    the labelled subset (None: `seed`). fold: 1-based index of the validation fold (None: no cross-validation).
    Supervised pretraining, which only provides initial weights for other runs, has the arm start0 or start1.
    """

    arm: str
    labelled: str | None
    seed: int
    subset: int | None = None
    fold: int | None = None

    @property
    def repeat(self) -> Repeat:
        """Seed, subset and fold."""
        return self.seed, self.subset, self.fold

    @property
    def name(self) -> str:
        """File name of the run: only letters, digits, dots, dashes and underscores."""
        parts = [self.arm, *([self.labelled] if self.labelled else [])]
        numbers = (("subset", self.subset), ("fold", self.fold), ("s", self.seed))
        parts += [f"{key}{number}" for key, number in numbers if number is not None]
        return "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part).strip("_") or "_" for part in parts)

    @property
    def is_start(self) -> bool:
        """Whether the run is supervised pretraining for other runs."""
        return re.fullmatch(rf"{START}\d+", self.arm) is not None


@dataclass
class Grid:
    """Runs (cells) of a sweep file and their settings.

    recipe: sections that replace those of the plan's base. settings: individual settings that override both; the
    settings of an arm (configuration) override all. labelled: numbers of labels, instead of the plan's. arms: subset of
    the arms. seeds: number of seeds (0 to seeds - 1) or a list. Default: the plan's seeds, or 0. reading:
    interpretation whose settings override the plan's base. init: files with initial weights, instead of supervised
    pretraining; may contain `{labelled}`, `{seed}`, `{subset}` and `{fold}`. folds: number of folds of a
    cross-validation on the labelled images. Raises ConfigError.
    """

    plan: Plan
    recipe: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: int | Sequence[int] | None = None
    labelled: Sequence[str] = ()
    arms: Sequence[str] = ()
    reading: str | None = None
    init: str | None = None
    folds: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.seeds, int) and self.seeds < 1:
            raise ConfigError(f"--seeds: found {self.seeds}, expected at least 1")
        if self.folds is not None and (val := self.settings.get("data", {}).get("val")) is not None:
            raise ConfigError(f"--val: found {val!r} and --folds, which validates on labelled images; give only one")
        for name in self.arms:
            check_known("--arms", name, self.plan.arms)
        readings = self.plan.readings
        self.reading = self.reading or next(iter(readings), None)
        if self.reading is not None and self.reading not in readings:
            known = nearest(self.reading, readings) if readings else " This plan has none."
            raise ConfigError(f"--reading: found {self.reading!r}.{known}")
        self._refuse_idle_options()
        names: dict[str, Cell] = {}
        for cell in self.cells:
            other = names.setdefault(cell.name, cell)
            if other != cell:
                raise ConfigError(f"arms: {cell.arm!r} and {other.arm!r} share the file name {cell.name!r}; rename one")
            if not self.config(cell, Path("out")).train.evaluate:  # validates before the first run
                raise ConfigError(f"train.evaluate: found false for {cell.arm!r}; expected true, to compare scores")

    @property
    def amounts(self) -> list[str | None]:
        """Numbers of labels, in order."""
        return [*(self.labelled or self.plan.labelled)] or [None]

    @property
    def repeats(self) -> list[Repeat]:
        """Combinations of seed, labelled subset (None: same as seed) and fold; every configuration is run with each."""
        seeds = range(self.seeds) if isinstance(self.seeds, int) else self.seeds or self.plan.seeds or [0]
        subsets: Sequence[int | None] = self.plan.subsets or [None]
        folds: Sequence[int | None] = [None] if self.folds is None else range(1, self.folds + 1)
        return [(seed, subset, fold) for subset in subsets for seed in seeds for fold in folds]

    @property
    def cells(self) -> list[Cell]:
        """All runs except pretraining, grouped by number of labels, subset, seed and fold."""
        arms = [arm for arm in self.plan.arms if arm in self.arms or not self.arms]
        return [Cell(arm, amount, *repeat) for amount in self.amounts for repeat in self.repeats for arm in arms]

    @property
    def replaced_val(self) -> list[str]:
        """Values of `data.val` that a cross-validation replaces."""
        data = [self._values(replace(cell, fold=None)).get("data", {}) for cell in self.cells]
        return list(dict.fromkeys(str(each["val"]) for each in data if each.get("val") is not None))

    def starts(self, cell: Cell) -> list[Cell]:
        """Return the pretraining runs whose weights a run loads, one per network that its method trains."""
        if cell.is_start or self.plan.start is None or self.init is not None:
            return []
        learners = methods()[self._values(cell)["method"]["name"]].learners
        return [replace(cell, arm=f"{START}{number}") for number in range(learners)]

    def config(self, cell: Cell, out: Path) -> Config:
        """Return the complete settings of a run. Its folder and those of its pretraining are in `out`."""
        values = override(self._values(cell), ["out"], str(out / cell.name))
        starts = self.starts(cell)
        if starts:
            values = override(values, ["init"], [str(out / start.name / "model") for start in starts])
        elif self.init is not None and not cell.is_start:
            values = override(values, ["init"], self._init_files(cell, values["method"]["name"]))
        config = validate(values)
        resolve(config)
        return config

    def _init_files(self, cell: Cell, method: str) -> list[str]:
        subset, learners = cell.seed if cell.subset is None else cell.subset, methods()[method].learners
        filled = {"labelled": (cell.labelled or "").replace("/", "_"), "seed": str(cell.seed), "subset": str(subset)}
        filled["fold"] = str(cell.fold or "")
        files = reduce(lambda text, key: text.replace(f"{{{key}}}", filled[key]), filled, self.init or "").split(",")
        if len(files) < learners:
            advice = f"{method} trains {learners} networks: give FILE,FILE; methods with one network use the first"
            raise ConfigError(f"--init: found {len(files)} file, expected {learners} for {cell.arm!r}: {advice}")
        return files[:learners]

    def _values(self, cell: Cell) -> dict[str, Any]:
        plan, seed = self.plan, cell.seed
        given = {key: value for key, value in self.settings.items() if key != "method"}
        requested = self.settings.get("method", {})
        values = plan.setting(None if cell.is_start else cell.arm, self.reading)
        values = merge({**values, **self.recipe}, given)
        if cell.is_start:
            values = merge(values, merge({"method": {"name": "supervised"}}, plan.start or {}))
            values["loss"] = {}
            values["method"] = {"name": "supervised"}
            seed = 2 * cell.seed + int(
                cell.arm.removeprefix(START)
            )  # both pretraining runs use the same subset but different seeds
        else:
            name, base = self._method(cell.arm), values.get("method", {})
            base_options = (
                base if name == base.get("name", Config().method.name) else {}
            )  # otherwise they belong to another method
            options = {key: value for key, value in requested.items() if _has(name, key)}
            values = merge({**values, "method": {**base_options, **options, "name": name}}, plan.compared(cell.arm))
        subset = cell.seed if cell.subset is None else cell.subset
        values = merge(values, {"seed": seed, "data": {"split_seed": subset}})
        if cell.fold is not None:
            values = merge(values, {"data": {"val": f"{FOLD}{cell.fold}/{self.folds}"}})
        return values if cell.labelled is None else merge(values, {"data": {"labelled": cell.labelled}})

    def _method(self, arm: str) -> str:
        """Return the method name of an arm: the first one set by the arm, the command, the recipe or the base."""
        layers = [self.plan.arms[arm], self.settings, self.recipe]
        if "method" not in self.recipe:  # its section replaces the plan's
            layers.append(self.plan.setting(arm, self.reading))
        named = (layer.get("method", {}).get("name") for layer in layers)
        return next((name for name in named if name is not None), Config().method.name)

    def _refuse_idle_options(self) -> None:
        """Raise ConfigError for a setting `method.*` that no method of the sweep has."""
        given = self.settings.get("method", {})
        named = {self._method(cell.arm) for cell in self.cells}
        for key in given:
            if key != "name" and not any(_has(method, key) for method in named):
                raise ConfigError(f"method.{key}: no method of this sweep has it ({', '.join(sorted(named))})")

    def expected(self, cell: Cell) -> tuple[float | None, str | None]:
        """Return the published score of a cell in per cent, and the number of labels that it was published for."""
        scores, place = self.plan.expected.get(cell.arm, []), self.amounts.index(cell.labelled)
        if place >= len(scores):
            return None, None
        return scores[place], self.plan.labelled[place] if self.plan.labelled else None


def _has(method: str, option: str) -> bool:
    return method in methods() and option in methods()[method].Config.model_fields
