"""Run configuration: typed models, YAML files and dotted overrides. Errors suggest the nearest known key."""

from fuzzyseg.config.base import parse_size
from fuzzyseg.config.data_schema import AugmentConfig, DataConfig
from fuzzyseg.config.load import (
    ConfigError,
    check_known,
    describe,
    dump_yaml,
    merge,
    nearest,
    override,
    parse_override,
    read_yaml,
    settings_from,
    unknown,
    validate,
)
from fuzzyseg.config.loss_schema import LossConfig, SupervisedConfig
from fuzzyseg.config.schema import Config, EvaluateConfig, NetworkConfig, OptimConfig, TrainConfig

__all__ = [
    "AugmentConfig", "Config", "ConfigError", "DataConfig", "EvaluateConfig", "LossConfig", "NetworkConfig",
    "OptimConfig", "SupervisedConfig", "TrainConfig", "check_known", "describe", "dump_yaml", "merge", "nearest",
    "override", "parse_override", "parse_size", "read_yaml", "settings_from", "unknown", "validate",
]  # fmt: skip
