"""The demonstration: generated images whose classes are confused in groups, learnt three ways with the same steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fuzzyseg.config import ConfigError
from fuzzyseg.data import Item, read_dataset
from fuzzyseg.data.formats import default_colours, overlay, read_image, read_mask
from fuzzyseg.data.synthetic import write_demo
from fuzzyseg.experiment.training import train
from fuzzyseg.inference import Predictor, load
from fuzzyseg.losses import assign_fuzzy_positives

SIZE = (96, 96)
LABELLED = 6
START, MORE = 200, 300
"""Steps of the supervised start, and of what follows it at half the rate."""
RATE = 2e-3
ARMS: dict[str, dict[str, Any]] = {
    "supervised": {"method": {"name": "supervised"}},
    "cps": {"method": {"name": "cps", "ramp_steps": MORE // 5}, "loss": {"name": "hard"}},
    "cps + fpl": {"method": {"name": "cps", "ramp_steps": MORE // 5}, "loss": {"name": "fuzzy"}},
}


@dataclass(frozen=True)
class Row:
    """What one arm reached: mIoU of the last step and, of the teacher on val, what the fuzzy sets held."""

    name: str
    miou: float
    top1: float | None
    coverage: float | None
    uncertain: float | None


def demo(out: Path, *, seed: int = 0, say: Callable[[str], None] = print, quiet: bool = False) -> list[Row]:
    """Generates data below `out`, trains the three arms and draws what they predict. ConfigError if `out` is taken.

    Two networks start from supervised training with different seeds; from there each arm goes on for as many steps,
    with as many labelled images a step. Nothing is chosen on the validation images.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out}: is not empty; remove it or choose another --out")
    data = out / "data"
    write_demo(data, seed=seed, train=160, val=40, size=SIZE)
    say(f"wrote 160 training and 40 validation images to {data}; {LABELLED} of them keep their masks")
    starts = []
    for number in (0, 1):
        say(f"supervised start {number + 1} of 2, {START} steps")
        run = out / f"start{number}"
        train(_settings(data, run, START, seed + number, ARMS["supervised"], evaluate=False), quiet=quiet)
        starts.append(str(run))
    rows = []
    for name, arm in ARMS.items():
        say(f"{name}, {MORE} steps more")
        run = out / name.replace(" ", "").replace("+", "_")
        settings = _settings(data, run, MORE, seed, arm, evaluate=True)
        settings["init"] = starts[:1] if name == "supervised" else starts
        settings["optim"]["lr"] = RATE / 2
        settings["train"]["ema"] = 0.99
        result = train(settings, quiet=quiet).result
        assert result is not None
        rows.append(_row(name, result["last"]))
    say(table(rows))
    pictures = draw(out, data)
    say(f"predictions and K maps: {pictures[0].parent} ({len(pictures)} pictures)")
    text = json.dumps([row.__dict__ for row in rows], indent=2)
    (out / "table.json").write_text(text + "\n", encoding="utf-8")
    return rows


def _settings(data: Path, out: Path, steps: int, seed: int, arm: dict[str, Any], *, evaluate: bool) -> dict[str, Any]:
    return {
        "data": {"root": str(data), "labelled": str(LABELLED), "split_seed": 0},
        "augment": {"scale": [0.8, 1.25], "vertical_flip": 0.5},
        "network": {
            "arch": "FPN",
            "encoder": "mobilenet_v2",
            "weights": "none",
            "decoder_pyramid_channels": 48,
            "decoder_segmentation_channels": 32,
        },
        "optim": {"name": "adamw", "lr": RATE, "weight_decay": 0.01},
        "train": {
            "steps": steps,
            "batch": 4,
            "crop": [64, 64],
            "workers": 0,
            "log_every": 50,
            "evaluate": evaluate,
            "eval_every": 0,
            "tensorboard": False,
        },
        "seed": seed,
        "out": str(out),
        **arm,
    }


def _row(name: str, last: dict[str, Any]) -> Row:
    fuzzy = last.get("fuzzy")
    if fuzzy is None:
        return Row(name, last["miou"], None, None, None)
    return Row(name, last["miou"], fuzzy["top1"], fuzzy["coverage"], 1 - fuzzy["k_histogram"][0])


def table(rows: list[Row]) -> str:
    """The arms as plain text, in per cent."""

    def share(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    lines = [f"{'':12}{'mIoU':>8}{'top-1':>8}{'truth in set':>14}{'K > 1':>8}"]
    lines += [
        f"{r.name:12}{share(r.miou):>8}{share(r.top1):>8}{share(r.coverage):>14}{share(r.uncertain):>8}" for r in rows
    ]
    return "\n".join(["", *lines, ""])


def draw(out: Path, data: Path, count: int = 6) -> list[Path]:
    """One picture per validation image: image, truth, each arm's prediction, and the K map of the last arm."""
    items = (read_dataset(data).val or [])[:count]
    names = [name.replace(" ", "").replace("+", "_") for name in ARMS]
    predictors = [load(out / name) for name in names]
    folder = out / "pictures"
    folder.mkdir(exist_ok=True)
    written = []
    for item in items:
        panels = _panels(item, predictors)
        path = folder / f"{Path(item.name).name}.png"
        Image.fromarray(np.concatenate(panels, 1)).resize((3 * SIZE[1] * len(panels), 3 * SIZE[0]), 0).save(path)
        written.append(path)
    return written


def _panels(item: Item, predictors: list[Predictor]) -> list[NDArray[np.uint8]]:
    assert item.mask is not None
    image = read_image(item.image)
    colours = default_colours(256)
    blank = np.zeros_like(image)
    panels = [image, overlay(blank, read_mask(item.mask), colours, 1.0)]
    logits = [predictor.logits(image) for predictor in predictors]
    panels += [overlay(blank, each.argmax(0).cpu().numpy(), colours, 1.0) for each in logits]
    k = assign_fuzzy_positives(logits[-1].unsqueeze(0)).sum(1)[0]
    grey = (k.float() / max(2, int(k.max())) * 255).byte() if int(k.max()) > 1 else torch.zeros_like(k).byte()
    panels.append(np.repeat(grey.cpu().numpy()[..., None], 3, 2))
    return panels
