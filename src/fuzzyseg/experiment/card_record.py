"""Record of a finished run in its model card: data, scores, calibration and licences, as shown in its README."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fuzzyseg.config import Config
from fuzzyseg.data.dataset_yaml import read_description
from fuzzyseg.experiment.validation import Scoring
from fuzzyseg.inference import ModelCard
from fuzzyseg.networks.weights import weights_licence


def with_record(scoring: Scoring, config: Config, result: Mapping[str, Any]) -> ModelCard:
    """Return the model card of a finished run, with its temperature and the record for the README added."""
    last, split = result["last"] or {}, scoring.material.split
    calibration = last.get("calibration") or {}
    data = {"name": Path(config.data.root or "").name, "labelled": result["labelled"]}
    data |= {"held_back": result["held_back"], "unlabelled": len(split.unlabelled), "val": len(split.val)}
    record = {
        "data": data | {"split": split.hash, "seed": result["seed"]},
        "scores": {key: last[key] for key in ("images", "protocol", "miou", "per_class") if key in last},
        "calibration": calibration,
        "licences": declared_licences(config, custom_network=scoring.material.card.arch is None),
    }
    return replace(scoring.card_at(result["steps"]), temperature=calibration.get("temperature", 1.0), record=record)


def declared_licences(config: Config, *, custom_network: bool) -> dict[str, str]:
    """Return the licences of code, backbone and data, or "not declared"."""
    data, unknown = config.data, custom_network or bool(config.init)
    declared = {"backbone": None if unknown else weights_licence(config.network.weights, config.network.encoder)}
    description = None if data.description is None else Path(data.description)
    declared["data"] = read_description(Path(data.root or ""), description).licence
    return {"code": "Apache-2.0 (fuzzyseg)"} | {
        name: "not declared" if text is None else f"{text} (declared)" for name, text in declared.items()
    }
