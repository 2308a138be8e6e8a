"""A sweep: runs that differ in what is compared and in nothing else, described in one file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from fuzzyseg.config.base import Section
from fuzzyseg.config.load import ConfigError, describe, merge, override, read_yaml


class Plan(Section):
    """What a sweep runs: arms x labelled amounts x subsets x seeds, all from the same base."""

    title: str = Field(description="What the table is called.")
    about: str = Field("", description="What is compared, and where the expected scores stand.")
    base: dict[str, Any] = Field(default_factory=dict, description="Settings of every run, nested or dotted.")
    readings: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Settings laid over the base by name, where a source can be read in two ways."
    )
    arms: dict[str, dict[str, Any]] = Field(
        description="What is compared: a name and its settings, nested or dotted. An arm whose source differs from the "
        "others' may have a `base` and `readings` of its own, laid over the plan's."
    )
    labelled: list[str] = Field(default_factory=list, description="Labelled amounts; empty: the base's own.")
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        default_factory=list, description="Seeds; every arm runs with each. Empty: 0, or as many as --seeds says."
    )
    subsets: list[Annotated[int, Field(ge=0)]] = Field(
        default_factory=list,
        description="Labelled subsets (values of data.split_seed), each with every seed; empty: one per seed, of that "
        "number.",
    )
    expected: dict[str, list[float | None]] = Field(
        default_factory=dict, description="Arm -> the published score in per cent for each labelled amount."
    )
    pairs: list[tuple[str, str]] = Field(
        default_factory=list, description="Differences to tabulate, first minus second, run by run."
    )
    start: dict[str, Any] | None = Field(
        None, description="Settings of a supervised start from which every arm goes on; null: none."
    )

    @field_validator("labelled", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return [str(each) for each in value] if isinstance(value, list) else value

    @field_validator("base", "start", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return nested(value) if isinstance(value, Mapping) else value

    @field_validator("readings", "arms", mode="before")
    @classmethod
    def _each(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {str(name): nested(part) if isinstance(part, Mapping) else part or {} for name, part in value.items()}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.arms:
            raise ValueError("arms: found none, expected at least one")
        apart = [arm for arm in self.arms if "," in arm]
        if apart:
            raise ValueError(f"arms: found {apart[0]!r}, expected names without commas, which part the names of --arms")
        for arm, settings in self.arms.items():
            own = settings.get("readings", {})
            for key, value in {"base": settings.get("base", {}), "readings": own}.items():
                if not isinstance(value, Mapping):
                    raise ValueError(f"arms.{arm}.{key}: found {value!r}, expected settings")
            for name, value in own.items():
                if name not in self.readings or not isinstance(value, Mapping):
                    known = ", ".join(self.readings) or "no reading, for the plan has none"
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
        """Base and reading of an arm, its own laid over the plan's; arm None: the plan's alone."""
        own, name = self.arms.get(arm or "", {}), reading or ""
        layers = [self.base, self.readings.get(name, {}), own.get("base", {}), own.get("readings", {}).get(name, {})]
        return reduce(merge, layers, {})

    def compared(self, arm: str) -> dict[str, Any]:
        """What an arm sets itself, which nothing is laid over."""
        return {key: value for key, value in self.arms[arm].items() if key not in ("base", "readings")}


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with dotted keys (`loss.threshold: 0.9`) as nested ones; both forms may stand side by side."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        result = override(result, str(key).split("."), nested(value) if isinstance(value, Mapping) else value)
    return result


def read_plan(path: str | Path) -> Plan:
    """The sweep of a YAML file. Raises ConfigError naming the file and the key."""
    values = read_yaml(path)
    if "arms" not in values:
        raise ConfigError(f"{path}: has no 'arms', so it is no sweep; for a single run use `fuzzyseg train {path}`")
    try:
        return Plan.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe(error, known=Plan.model_fields)}") from None
