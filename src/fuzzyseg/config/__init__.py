"""Run configuration: typed models, YAML files, dotted overrides. Errors for unknown keys name the nearest one."""

from __future__ import annotations

from fuzzyseg.config.base import Section, parse_size
from fuzzyseg.config.data_schema import AugmentConfig, DataConfig
from fuzzyseg.config.load import (
    ConfigError,
    describe,
    dump_yaml,
    merge,
    nearest,
    override,
    parse_override,
    read_yaml,
    validate,
)
from fuzzyseg.config.loss_schema import (
    AdaptiveConfig,
    CalibratedConfig,
    ConformalConfig,
    LossConfig,
    ScheduleConfig,
    SupervisedConfig,
)
from fuzzyseg.config.schema import Config, EvaluateConfig, MethodChoice, NetworkConfig, OptimConfig, TrainConfig

__all__ = [
    "AdaptiveConfig",
    "AugmentConfig",
    "CalibratedConfig",
    "Config",
    "ConfigError",
    "ConformalConfig",
    "DataConfig",
    "EvaluateConfig",
    "LossConfig",
    "MethodChoice",
    "NetworkConfig",
    "OptimConfig",
    "ScheduleConfig",
    "Section",
    "SupervisedConfig",
    "TrainConfig",
    "describe",
    "dump_yaml",
    "merge",
    "nearest",
    "override",
    "parse_override",
    "parse_size",
    "read_yaml",
    "validate",
]
