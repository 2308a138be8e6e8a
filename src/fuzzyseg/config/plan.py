"""Plan of a sweep: runs that differ only in the settings compared, described in one file."""

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
    """Runs of a sweep: arms x labelled amounts x subsets x seeds, all with the same base settings."""

    title: str
    """Title of the table."""
    about: str = ""
    """Description, and source of the expected scores."""
    base: Settings = Field(default_factory=dict)
    """Settings of every run, nested or dotted."""
    readings: dict[str, Arm] = Field(default_factory=dict)
    """Named variants of the base, for ambiguous sources."""
    arms: dict[str, Arm]
    """Name -> settings compared, nested or dotted. An arm may have a `base` and `readings` of its own, which override
    the plan's."""
    labelled: list[Amount] = Field(default_factory=list)
    """Labelled amounts; empty: the base's own."""
    seeds: list[NonNegativeInt] = Field(default_factory=list)
    """Seeds of every arm. Empty: 0, or the number given by --seeds."""
    subsets: list[NonNegativeInt] = Field(default_factory=list)
    """Labelled subsets (values of data.split_seed), each with every seed; empty: one per seed, equal to it."""
    expected: dict[str, list[float | None]] = Field(default_factory=dict)
    """Arm -> the published score in per cent for each labelled amount."""
    pairs: list[tuple[str, str]] = Field(default_factory=list)
    """Paired differences to tabulate, first minus second."""
    start: Settings | None = None
    """Settings of a supervised run whose weights every arm starts from; null: none."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.arms:
            raise ValueError("arms: found none, expected at least one")
        apart = [arm for arm in self.arms if "," in arm]
        if apart:
            raise ValueError(f"arms: found {apart[0]!r}, expected names without commas, which separate names in --arms")
        for arm, settings in self.arms.items():
            own = settings.get("readings", {})
            for key, value in {"base": settings.get("base", {}), "readings": own}.items():
                if not isinstance(value, Mapping):
                    raise ValueError(f"arms.{arm}.{key}: found {value!r}, expected settings")
            for name, value in own.items():
                if name not in self.readings or not isinstance(value, Mapping):
                    known = ", ".join(self.readings) or "no reading: the plan has none"
                    raise ValueError(f"arms.{arm}.readings: found {name!r}: {value!r}, expected settings of {known}")
        named = {"expected": list(self.expected), "pairs": [arm for pair in self.pairs for arm in pair]}
        for key, arms in named.items():
            unknown = [arm for arm in arms if arm not in self.arms]
            if unknown:
                raise ValueError(f"{key}: found {unknown[0]!r}, expected one of the arms {', '.join(self.arms)}")
        for key, numbers in {"seeds": self.seeds, "subsets": self.subsets}.items():
            if len(set(numbers)) < len(numbers):
                raise ValueError(f"{key}: found {numbers}, expected each number once")
        amounts = max(1, len(self.labelled))
        for arm, scores in self.expected.items():
            if len(scores) != amounts:
                raise ValueError(f"expected.{arm}: found {len(scores)} scores, expected {amounts}, one per amount")
        return self

    def setting(self, arm: str | None, reading: str | None) -> dict[str, Any]:
        """Base and reading of the plan, overridden by those of an arm, if any."""
        own, name = self.arms.get(arm or "", {}), reading or ""
        layers = [self.base, self.readings.get(name, {}), own.get("base", {}), own.get("readings", {}).get(name, {})]
        return reduce(merge, layers, {})

    def compared(self, arm: str) -> dict[str, Any]:
        """The settings of an arm itself, which override all others."""
        return {key: value for key, value in self.arms[arm].items() if key not in ("base", "readings")}


def read_plan(path: str | Path) -> Plan:
    """Read a plan from a YAML file. Raises ConfigError naming the file and the key."""
    values = read_yaml(path)
    if "arms" not in values:
        raise ConfigError(f"{path}: has no 'arms', so it is not a plan; for a single run use `fuzzyseg train {path}`")
    try:
        return Plan.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe(error, known=Plan.model_fields)}") from None
