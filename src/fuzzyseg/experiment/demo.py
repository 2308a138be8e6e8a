"""The demonstration: generated images whose classes are confused in groups, learnt three ways with the same steps."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fuzzyseg.config import ConfigError
from fuzzyseg.data import Item, read_dataset
from fuzzyseg.data.datasets.synthetic import write_demo
from fuzzyseg.data.io.image import read_image
from fuzzyseg.data.io.mask import read_mask
from fuzzyseg.data.io.write import default_colours, overlay
from fuzzyseg.experiment.train import train
from fuzzyseg.inference import Predictor, load
from fuzzyseg.losses import assign_fuzzy_positives
from fuzzyseg.run.folder import RunFolder
from fuzzyseg.run.logs import read_lines

SIZE = (96, 96)
IMAGES, LABELLED = 160, 6
START, MORE = 150, 150
"""Steps of the supervised start, and of what follows it at half the rate."""
RATE = 2e-3
RAMP = 30
ARMS: dict[str, dict[str, Any]] = {
    "supervised": {"method": {"name": "supervised"}},
    "cps": {"method": {"name": "cps", "ramp_steps": RAMP}, "loss": {"name": "hard"}},
    "cps + fpl": {"method": {"name": "cps", "ramp_steps": RAMP}, "loss": {"name": "fuzzy"}},
}
TELL_EVERY = 30.0
"""Seconds between two lines on how far the runs are."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """What one arm reached on val: mIoU, and, of the network that teaches, top-1 accuracy, the share of pixels whose
    truth lies in the fuzzy set, and the share with more than one class in it.
    """

    name: str
    miou: float
    top1: float | None = None
    coverage: float | None = None
    uncertain: float | None = None


def demo(out: Path, *, seed: int = 0, say: Say = print) -> list[Row]:
    """Generates data below `out`, trains the three arms and draws what they predict. ConfigError if `out` is taken.

    Two networks start from supervised training with different seeds; from there each arm goes on for as many steps,
    with as many labelled images a step. Nothing is chosen on the validation images. Runs go side by side.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out}: is not empty; remove it or choose another --out")
    data = out / "data"
    write_demo(data, seed=seed, train=IMAGES, val=40, size=SIZE)
    say(f"{IMAGES} training and 40 validation images in {data}; {LABELLED} training images keep their masks")
    starts = [out / "start0", out / "start1"]
    say(f"two supervised starts of {START} steps")
    _side_by_side([_settings(data, run, START, seed + n, ARMS["supervised"]) for n, run in enumerate(starts)], say)
    say(f"from them, {MORE} steps more: {', '.join(ARMS)}")
    runs = {name: out / name.replace(" + ", "_") for name in ARMS}
    arms = []
    for name, arm in ARMS.items():
        begin = starts[:1] if name == "supervised" else starts
        arms.append(_settings(data, runs[name], MORE, seed, arm, begin))
    results = _side_by_side(arms[::-1], say)[::-1]  # the short run last
    rows = [_row(name, result["last"]) for name, result in zip(ARMS, results, strict=True)]
    say(table(rows))
    say("one seed: differences of a point or two are noise")
    pictures = draw(out / "pictures", data, list(runs.values()))
    legend = f"from left to right: image, truth, {', '.join(ARMS)}, K map of cps + fpl (bright: many classes)"
    (out / "pictures" / "README.txt").write_text(legend + "\n", encoding="utf-8")
    say(f"{len(pictures)} pictures in {pictures[0].parent}, {legend}")
    text = json.dumps([asdict(row) for row in rows], indent=2)
    (out / "table.json").write_text(text + "\n", encoding="utf-8")
    return rows


def _settings(
    data: Path, out: Path, steps: int, seed: int, arm: dict[str, Any], begin: Sequence[Path] = ()
) -> dict[str, Any]:
    """A start, or with `begin` what follows from those runs."""
    more: dict[str, Any] = {"init": [str(run) for run in begin]} if begin else {}
    return {
        "data": {"root": str(data), "labelled": str(LABELLED), "split_seed": 0},
        "augment": {"scale": [0.8, 1.25], "vertical_flip": 0.5},
        "network": {
            "arch": "Unet",
            "encoder": "resnet18",
            "weights": "none",
            "encoder_depth": 3,
            "decoder_channels": [64, 32, 32],
        },
        "optim": {"name": "adamw", "lr": RATE / 2 if begin else RATE, "weight_decay": 0.01},
        "train": {
            "steps": steps,
            "batch": 4,
            "crop": [64, 64],
            "workers": 0,
            "device": "cpu",
            "ema": 0.99 if begin else None,
            "evaluate": bool(begin),
            "eval_every": 0,
            "log_every": 5,
            "tensorboard": False,
        },
        "seed": seed,
        "out": str(out),
        **more,
        **arm,
    }


def _run(settings: dict[str, Any]) -> dict[str, Any]:
    """One training on one thread, in a process of its own."""
    torch.set_num_threads(1)
    result = train(settings, quiet=True).result
    if result is None:  # a signal ended it
        raise KeyboardInterrupt
    return result


def _side_by_side(settings: list[dict[str, Any]], say: Say) -> list[dict[str, Any]]:
    """The results of several trainings, as many at a time as there are cores; says now and then how far they are."""
    began = time.monotonic()
    spawn = multiprocessing.get_context("spawn")  # a fork would copy torch's threads in an unknown state
    with ProcessPoolExecutor(min(len(settings), os.cpu_count() or 1), mp_context=spawn) as pool:
        jobs: list[Future[dict[str, Any]]] = [pool.submit(_run, each) for each in settings]
        try:
            while wait(jobs, timeout=TELL_EVERY).not_done:
                say(f"  {time.monotonic() - began:4.0f} s: {', '.join(_far(each) for each in settings)}")
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [job.result() for job in jobs]


def _far(settings: dict[str, Any]) -> str:
    """`cps step 120/250`, from the run's own log."""
    run = RunFolder(settings["out"])
    lines = read_lines(run.metrics) if run.metrics.is_file() else []
    return f"{run.path.name} {lines[-1]['step']}/{settings['train']['steps']}" if lines else f"{run.path.name} waits"


def _row(name: str, last: dict[str, Any]) -> Row:
    fuzzy = last.get("fuzzy")
    if fuzzy is None:
        return Row(name, last["miou"])
    return Row(name, last["miou"], fuzzy["top1"], fuzzy["coverage"], 1 - fuzzy["k_histogram"][0])


def table(rows: list[Row]) -> str:
    """The arms as plain text, in per cent."""

    def share(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    lines = [f"{'in per cent':12}{'mIoU':>8}{'top-1':>8}{'truth in set':>14}{'K > 1':>8}"]
    for row in rows:
        shares = [share(value) for value in (row.miou, row.top1, row.coverage, row.uncertain)]
        lines.append(f"{row.name:12}{shares[0]:>8}{shares[1]:>8}{shares[2]:>14}{shares[3]:>8}")
    return "\n".join(["", *lines, ""])


def draw(folder: Path, data: Path, runs: Sequence[Path], count: int = 6) -> list[Path]:
    """One picture per validation image: image, truth, each run's prediction, the K map of the last one."""
    items = (read_dataset(data).val or [])[:count]
    predictors = [load(run) for run in runs]
    folder.mkdir(exist_ok=True)
    written = []
    for item in items:
        panels = _panels(item, predictors)
        path = folder / f"{Path(item.name).name}.png"
        size = (3 * SIZE[1] * len(panels), 3 * SIZE[0])
        Image.fromarray(np.concatenate(panels, 1)).resize(size, Image.Resampling.NEAREST).save(path)
        written.append(path)
    return written


def _panels(item: Item, predictors: list[Predictor]) -> list[NDArray[np.uint8]]:
    """Pictures (H,W,3); in the K map a pixel is the brighter the more classes its fuzzy set holds."""
    assert item.mask is not None
    image = read_image(item.image)
    colours = default_colours(256)
    blank = np.zeros_like(image)
    panels = [image, overlay(blank, read_mask(item.mask), colours, 1.0)]
    logits = [predictor.logits(image) for predictor in predictors]
    panels += [overlay(blank, each.argmax(0).cpu().numpy(), colours, 1.0) for each in logits]
    k = assign_fuzzy_positives(logits[-1].unsqueeze(0)).sum(1)[0]
    grey = (255 * (k - 1) / max(1, int(k.max()) - 1)).byte().cpu().numpy()
    return [*panels, np.repeat(grey[..., None], 3, 2)]
