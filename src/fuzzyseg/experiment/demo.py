"""The demonstration: generated images with groups of similar classes, trained on in three ways with equal steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzzyseg.config import ConfigError
from fuzzyseg.config.plan import Plan
from fuzzyseg.data.datasets.synthetic import write_demo
from fuzzyseg.experiment.load_run import predict
from fuzzyseg.experiment.sweeps import Grid, SweepResult, sweep
from fuzzyseg.experiment.worker_pool import usual_workers

IMAGES, LABELLED = 160, 6
START, MORE = 150, 150
"""Steps of the supervised start, and of the arms, which continue from it at half the learning rate."""
RATE = 2e-3
RAMP = 30
ARMS: dict[str, dict[str, Any]] = {
    "supervised": {"method": {"name": "supervised"}},
    "cps": {"method": {"name": "cps", "ramp_steps": RAMP}, "loss": {"name": "hard"}},
    "cps + fpl": {"method": {"name": "cps", "ramp_steps": RAMP}, "loss": {"name": "fuzzy"}},
}
BASE: dict[str, Any] = {
    "augment": {"scale": [0.8, 1.25], "vertical_flip": 0.5},
    "network": {
        "arch": "Unet",
        "encoder": "resnet18",
        "weights": "none",
        "encoder_depth": 3,
        "decoder_channels": [64, 32, 32],
    },
    "optim": {"name": "adamw", "lr": RATE / 2, "weight_decay": 0.01},
    "train": {
        "batch": 4,
        "crop": [64, 64],
        "workers": 0,
        "device": "cpu",
        "ema": 0.99,
        "eval_every": 0,
        "log_every": 5,
        "tensorboard": False,
    },
}


def demo(out: Path, *, seed: int = 0, say: Callable[[str], None] = print) -> SweepResult:
    """Generate data below `out`, run the three arms as a sweep, predict validation images.

    The arms continue from the same two supervised networks and see the same number of labelled images per step.
    Nothing is chosen on the validation images. Raises ConfigError if `out` is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out}: is not empty; remove it or choose another --out")
    data, runs = out / "data", out / "runs"
    write_demo(data, seed=seed, train=IMAGES, val=40, size=(96, 96))
    say(f"{IMAGES} training and 40 validation images in {data}; {LABELLED} training images keep their masks")
    plan = Plan(
        title="Demonstration",
        base={**BASE, "train": {**BASE["train"], "steps": MORE}},
        arms=ARMS,
        labelled=[str(LABELLED)],
        subsets=[0],
        pairs=[("cps + fpl", "cps")],
        start={"optim": {"lr": RATE}, "train": {"steps": START, "ema": None, "evaluate": False}},
    )
    grid = Grid(plan, settings={"data": {"root": str(data.resolve())}}, seeds=[seed])
    done = sweep(grid, runs, jobs=usual_workers(4), say=say)
    say(done.table)
    for cell in [cell for cell in grid.cells if cell in done.rows]:
        if (fuzzy := done.rows[cell]["result"]["last"].get("fuzzy")) is not None:
            top, covered = (f"{100 * fuzzy[key]:.1f} %" for key in ("top1", "coverage"))
            say(f"{cell.arm}: the most probable class is true in {top} of the pixels, the fuzzy set covers {covered}")
        predict(runs / cell.name, data / "images" / "val" / "demo_000[0-5].png", out / "pictures" / cell.name)
    say(f"one seed: differences of a point or two are noise; predictions are in {out / 'pictures'}")
    return done
