"""Plan of a sweep: runs that differ only in the compared settings."""

from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, NonNegativeInt, ValidationError, model_validator

from fuzzyseg.config.base import Section
from fuzzyseg.config.load import ConfigError, describe, merge, nested, read_yaml

Settings = Annotated[dict[str, Any], BeforeValidator(nested)]
Arm = Annotated[dict[str, Any], BeforeValidator(lambda value: nested(value or {}))]
Amount = Annotated[str, BeforeValidator(str)]


class Plan(Section):
    """Runs of a sweep: configurations (arms) x numbers of labels x subsets x seeds, with common base settings."""

    title: str
    """Title of the table."""
    about: str = ""
    """Description, and source of the expected scores."""
    base: Settings = Field(default_factory=dict)
    """Settings of every run, nested or dotted."""
    readings: dict[str, Arm] = Field(default_factory=dict)
    """Named interpretations of an ambiguous source: settings that override the base."""
    arms: dict[str, Arm]
    """Name -> compared settings, nested or dotted. A configuration may have a `base` and `readings`, which override the
    plan's."""
    labelled: list[Amount] = Field(default_factory=list)
    """Numbers of labelled images (46, 1/8); empty: the base's."""
    seeds: list[NonNegativeInt] = Field(default_factory=list)
    """Seeds of every configuration. Empty: 0, or the number given by --seeds."""
    subsets: list[NonNegativeInt] = Field(default_factory=list)
    """Labelled subsets (values of data.split_seed), each combined with every seed; empty: one per seed, equal to it."""
    expected: dict[str, list[float | None]] = Field(default_factory=dict)
    """Configuration -> the published score in per cent for each number of labels."""
    pairs: list[tuple[str, str]] = Field(default_factory=list)
    """Paired differences to tabulate, first minus second."""
    start: Settings | None = None
    """Settings of supervised pretraining, whose weights every configuration starts from; null: none."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.arms:
            raise ValueError("arms: found none, expected at least one")
        bad = [arm for arm in self.arms if "," in arm]
        if bad:
            raise ValueError(f"arms: found {bad[0]!r}, expected names without commas, which separate names in --arms")
        for arm, settings in self.arms.items():
            readings = settings.get("readings", {})
            for key, value in {"base": settings.get("base", {}), "readings": readings}.items():
                if not isinstance(value, Mapping):
                    raise ValueError(f"arms.{arm}.{key}: found {value!r}, expected settings")
            for name, value in readings.items():
                if name not in self.readings or not isinstance(value, Mapping):
                    known = ", ".join(self.readings) or "the plan's readings, of which there are none"
                    raise ValueError(f"arms.{arm}.readings: found {name!r}: {value!r}, expected settings of {known}")
        named = {"expected": list(self.expected), "pairs": [arm for pair in self.pairs for arm in pair]}
        for key, arms in named.items():
            unknown = [arm for arm in arms if arm not in self.arms]
            if unknown:
                raise ValueError(f"{key}: found {unknown[0]!r}, expected one of the arms {', '.join(self.arms)}")
        for key, numbers in {"seeds": self.seeds, "subsets": self.subsets}.items():
            if len(set(numbers)) < len(numbers):
                raise ValueError(f"{key}: found {numbers}, expected distinct numbers")
        columns = max(1, len(self.labelled))
        for arm, scores in self.expected.items():
            if len(scores) != columns:
                raise ValueError(f"expected.{arm}: found {len(scores)} scores, expected {columns}, one per amount")
        return self

    def setting(self, arm: str | None, reading: str | None) -> dict[str, Any]:
        """Return the plan's settings from `base` and, if given, `readings[reading]`, overridden by the arm's own."""
        spec, key = self.arms.get(arm or "", {}), reading or ""
        layers = [self.base, self.readings.get(key, {}), spec.get("base", {}), spec.get("readings", {}).get(key, {})]
        return reduce(merge, layers, {})

    def compared(self, arm: str) -> dict[str, Any]:
        """Return the compared settings of a configuration, which override all others."""
        return {key: value for key, value in self.arms[arm].items() if key not in ("base", "readings")}


def read_plan(path: str | Path) -> Plan:
    """Read a plan from a YAML file. Raises a ConfigError that names the file and the key."""
    values = read_yaml(path)
    if "arms" not in values:
        raise ConfigError(f"{path}: has no 'arms', so it is not a plan; for a single run use `fuzzyseg train {path}`")
    try:
        return Plan.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe(error, known=Plan.model_fields)}") from None
