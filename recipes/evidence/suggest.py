r"""Images chosen by `fuzzyseg suggest` against random ones at equal labels: the table of docs/suggest.md.

    python recipes/evidence/suggest.py CAMVID --weights mobilenet_v2_imagenet.safetensors --out runs/suggest \
        --results results/evidence/suggest --seeds 3

For each seed a supervised training on 20 labelled images (300 steps) gives the model that suggests. Each arm then adds
20 of the other training images and continues from that model for 200 steps with the same settings and seed: `suggest`
takes the suggestions, `random` a uniform draw. Scores are those of the last checkpoint on the validation images.
Settings: those of recipes/camvid_small.yaml, on the CPU. Rows that exist are kept.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import statistics
from pathlib import Path
from typing import Any

import yaml

from fuzzyseg import train
from fuzzyseg.experiment.suggest import suggest

FIRST, ADDED, START_STEPS, STEPS = 20, 20, 300, 200
RECIPE = Path(__file__).parents[1] / "camvid_small.yaml"


def settings(args: argparse.Namespace, seed: int, steps: int, out: Path, **more: Any) -> dict[str, Any]:
    """Supervised training of the recipe."""
    config: dict[str, Any] = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    config["data"] |= {"root": str(args.data), "labelled": str(FIRST)}
    config["network"] |= {"encoder": "mobilenet_v2", "weights": str(args.weights)}
    config["method"] = {"name": "supervised"}
    config["train"] |= {"steps": steps, "eval_every": steps, "save_every": steps, "device": "cpu", "tensorboard": False}
    config |= {"seed": seed, "out": str(out)}
    for key, value in more.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    return config


def choices(args: argparse.Namespace, seed: int, start: Path) -> dict[str, list[str]]:
    """Names of the images that each arm adds."""
    names = json.loads((start / "split.json").read_text())["unlabelled"]
    by_stem = {Path(name).stem: name for name in names}
    out = start / "suggestions"
    if not out.exists():
        suggest(start, [args.data / "train"], out, count=ADDED, device="cpu")
    with (out / "suggestions.csv").open(newline="", encoding="utf-8") as file:
        suggested = [by_stem[Path(row["image"]).stem] for row in csv.DictReader(file)]
    return {"random": random.Random(seed).sample(names, ADDED), "suggest": suggested}


def main() -> None:
    """Train every arm of every seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    for name in ("--weights", "--out", "--results"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    args.results.mkdir(parents=True, exist_ok=True)
    scores: dict[str, list[float]] = {}
    for seed in range(args.seeds):
        start = args.out / f"start{seed}"
        if not (start / "result.json").is_file():
            shutil.rmtree(start, ignore_errors=True)
            train(settings(args, seed, START_STEPS, start), quiet=True)
        first = json.loads((start / "split.json").read_text())["labelled"]
        for arm, added in choices(args, seed, start).items():
            row = args.results / f"{arm}-s{seed}.json"
            if not row.is_file():
                folder = args.out / f"{arm}{seed}"
                shutil.rmtree(folder, ignore_errors=True)
                folder.parent.mkdir(parents=True, exist_ok=True)
                listed = folder.with_suffix(".txt")
                listed.write_text("\n".join([*first, *added]) + "\n", encoding="utf-8")
                more = {"data": {"labelled": str(listed)}, "network": {"weights": "none"}, "init": [str(start)]}
                done = train(settings(args, seed, STEPS, folder, **more), quiet=True)
                assert done.result is not None
                begun = json.loads((start / "result.json").read_text())
                content = {"arm": arm, "seed": seed, "first": first, "added": added, "steps": [START_STEPS, STEPS],
                           "start": begun["last"], "result": done.result}  # fmt: skip
                row.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            scores.setdefault(arm, []).append(100 * json.loads(row.read_text())["result"]["last"]["miou"])
            print(seed, arm, f"{scores[arm][-1]:.2f}", flush=True)
    for arm, values in scores.items():
        gains = [value - other for value, other in zip(values, scores["random"], strict=True)]
        print(f"{arm}: {statistics.mean(values):.2f}; over random {' '.join(f'{gain:+.2f}' for gain in gains)}")


if __name__ == "__main__":
    main()
