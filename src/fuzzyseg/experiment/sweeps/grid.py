"""A plan and the user's wishes -> the runs there are, each with its complete settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

from fuzzyseg.config import Config, ConfigError, merge, nearest, override, validate
from fuzzyseg.config.plan import Plan
from fuzzyseg.experiment.build import resolve
from fuzzyseg.experiment.plugins import methods

START = "start"
MACHINE = {
    "data.root",
    "data.cache",
    "data.cache_mib",
    "data.cache_dir",
    "augment.on_device",
    "evaluate.diagnose",
    "out",
    "init",
    "train.device",
    "train.workers",
    "train.log_every",
    "train.save_every",
    "train.tensorboard",
    "train.stop_at",
}
"""Settings that say where and how comfortably a run is made, not what it computes; they do not stand in its row."""


@dataclass(frozen=True)
class Cell:
    """One run: an arm, a labelled amount (None: the base's own), a seed and a labelled subset (None: the seed's).

    The arms start0, start1 are supervised starts.
    """

    arm: str
    labelled: str | None
    seed: int
    subset: int | None = None

    @property
    def name(self) -> str:
        """As a file name: letters, digits, dots, dashes and underscores."""
        parts = [self.arm, *([self.labelled] if self.labelled else [])]
        parts += [*([] if self.subset is None else [f"subset{self.subset}"]), f"s{self.seed}"]
        return "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part).strip("_") or "_" for part in parts)

    @property
    def is_start(self) -> bool:
        """Whether it is a supervised start, made only to be gone on from."""
        return re.fullmatch(rf"{START}\d+", self.arm) is not None


@dataclass
class Grid:
    """The cells of a plan and their settings.

    recipe: another setting to run the plan in: each section it has takes the place of the base's. settings: single
    ones, laid over both; the arms go before all. labelled: amounts in place of the plan's. arms: only these. seeds: how
    many (0 to seeds - 1), or which; None: the plan's, else 0. reading: which of the plan's readings is laid over its
    base. init: files to start from, in place of the plan's start; `{labelled}`, `{seed}` and `{subset}` are filled in.
    Raises ConfigError.
    """

    plan: Plan
    recipe: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: int | Sequence[int] | None = None
    labelled: Sequence[str] = ()
    arms: Sequence[str] = ()
    reading: str | None = None
    init: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.seeds, int) and self.seeds < 1:
            raise ConfigError(f"--seeds: found {self.seeds}, expected at least 1")
        for name in self.arms:
            if name not in self.plan.arms:
                raise ConfigError(f"--arms: found {name!r}.{nearest(name, self.plan.arms)}")
        readings = self.plan.readings
        if self.reading is None and readings:
            self.reading = next(iter(readings))
        if self.reading is not None and self.reading not in readings:
            known = nearest(self.reading, readings) if readings else " This sweep has none."
            raise ConfigError(f"--reading: found {self.reading!r}.{known}")
        self._refuse_idle_options()
        names: dict[str, Cell] = {}
        for cell in self.cells:
            other = names.setdefault(cell.name, cell)
            if other != cell:
                raise ConfigError(f"arms: {cell.arm!r} and {other.arm!r} give one file name, {cell.name!r}; rename one")
            if not self.config(cell, Path("out")).train.evaluate:  # a wrong setting shows before the first run begins
                raise ConfigError(f"train.evaluate: found false for {cell.arm!r}; a sweep compares scores: true")

    @property
    def amounts(self) -> list[str | None]:
        """The labelled amounts, in order."""
        named = [*(self.labelled or self.plan.labelled)]
        return [*named] if named else [None]

    @property
    def repeats(self) -> list[tuple[int, int | None]]:
        """The pairs of seed and labelled subset (None: the seed's own) with which every arm runs."""
        seeds = range(self.seeds) if isinstance(self.seeds, int) else self.seeds or self.plan.seeds or [0]
        subsets: Sequence[int | None] = self.plan.subsets or [None]
        return [(seed, subset) for subset in subsets for seed in seeds]

    @property
    def cells(self) -> list[Cell]:
        """All runs that are compared: of one amount, subset and seed all arms, then the next."""
        arms = [arm for arm in self.plan.arms if arm in self.arms or not self.arms]
        return [Cell(arm, amount, *repeat) for amount in self.amounts for repeat in self.repeats for arm in arms]

    def starts(self, cell: Cell) -> list[Cell]:
        """The supervised runs that a cell goes on from: as many as its method trains networks."""
        if cell.is_start or self.plan.start is None or self.init is not None:
            return []
        learners = methods()[self._values(cell)["method"]["name"]].learners
        return [replace(cell, arm=f"{START}{number}") for number in range(learners)]

    def config(self, cell: Cell, out: Path) -> Config:
        """The complete settings of a cell whose run, and those of its starts, lie in the folder `out`."""
        values = override(self._values(cell), ["out"], str(out / cell.name))
        starts = self.starts(cell)
        if starts:
            values = override(values, ["init"], [str(out / start.name / "model") for start in starts])
        elif self.init is not None and not cell.is_start:
            amount = (cell.labelled or "").replace("/", "_")
            subset = cell.seed if cell.subset is None else cell.subset
            filled = {"{labelled}": amount, "{seed}": str(cell.seed), "{subset}": str(subset)}
            files = reduce(lambda text, part: text.replace(*part), filled.items(), self.init).split(",")
            name = values["method"]["name"]
            learners = methods()[name].learners
            if len(files) < learners:
                raise ConfigError(
                    f"--init: found {len(files)} file, expected {learners} for {cell.arm!r} ({name} trains {learners} "
                    "networks): give FILE,FILE; methods with one network take the first"
                )
            values = override(values, ["init"], files[:learners])
        config = validate(values)
        resolve(config)
        return config

    def _values(self, cell: Cell) -> dict[str, Any]:
        plan, seed = self.plan, cell.seed
        given = {key: value for key, value in self.settings.items() if key != "method"}
        asked = self.settings.get("method", {})
        values = plan.setting(None if cell.is_start else cell.arm, self.reading)
        values = merge({**values, **self.recipe}, given)
        if cell.is_start:
            values = merge(values, merge({"method": {"name": "supervised"}}, plan.start or {}))
            values["loss"] = {}
            values["method"] = {"name": "supervised"}
            seed = 2 * cell.seed + int(cell.arm.removeprefix(START))  # two starts of one subset, never of one seed
        else:
            name, base = self._method(cell.arm), values.get("method", {})
            own = base if name == base.get("name", Config().method.name) else {}  # else they are another method's
            options = {key: value for key, value in asked.items() if _has(name, key)}
            values = merge({**values, "method": {**own, **options, "name": name}}, plan.compared(cell.arm))
        subset = cell.seed if cell.subset is None else cell.subset
        values = merge(values, {"seed": seed, "data": {"split_seed": subset}})
        return values if cell.labelled is None else merge(values, {"data": {"labelled": cell.labelled}})

    def _method(self, arm: str) -> str:
        """The name of an arm's method: its own, the command's, the recipe's or the base's."""
        layers = [self.plan.arms[arm], self.settings, self.recipe]
        if "method" not in self.recipe:  # whose section takes the place of the plan's
            layers.append(self.plan.setting(arm, self.reading))
        named = (layer.get("method", {}).get("name") for layer in layers)
        return next((name for name in named if name is not None), Config().method.name)

    def _refuse_idle_options(self) -> None:
        """A single setting `method.*` that no arm's method has must not be passed over in silence."""
        given = self.settings.get("method", {})
        named = {self._method(arm) for arm in self.plan.arms if arm in self.arms or not self.arms}
        for key in given:
            if key != "name" and not any(_has(method, key) for method in named):
                raise ConfigError(f"method.{key}: no method of this sweep has it ({', '.join(sorted(named))})")

    def expected(self, cell: Cell) -> tuple[float | None, str | None]:
        """The published score of a cell in per cent, and the amount it was published for."""
        scores = self.plan.expected.get(cell.arm)
        place = self.amounts.index(cell.labelled)
        if scores is None or place >= len(scores):
            return None, None
        return scores[place], self.plan.labelled[place] if self.plan.labelled else None


def _has(method: str, option: str) -> bool:
    return method in methods() and option in methods()[method].Config.model_fields


def identity(config: Config) -> dict[str, Any]:
    """What a run computes: its settings by dotted names without what only says where it is made (`MACHINE`).

    Among them all of the method's own, given or not: where a default changes, a row that stands is known to be old.
    """
    flat: dict[str, Any] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, part in value.items():
                add(f"{prefix}.{key}" if prefix else str(key), part)
        elif prefix not in MACHINE:
            flat[prefix] = value

    add("", config.model_dump(mode="json"))
    add("method", resolve(config).options.model_dump(mode="json"))
    flat["network.weights"] = Path(str(flat["network.weights"])).name
    flat["started"] = len(config.init or [])
    return flat


def differences(row: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings in which a finished row and the run that is asked for differ, in words.

    A setting that the row does not know is newer than the row: it differs only where it is not at its default.
    """
    plain = {
        **identity(validate({"method": {"name": now["method.name"]}})),
        "network.weights": now.get("network.weights"),
    }
    found = []
    for key in sorted({*row, *now}):
        old, new = row.get(key, plain.get(key)), now.get(key, plain.get(key))
        if old != new:
            found.append(f"{key} is {old!r} there, {new!r} here")
    return found
