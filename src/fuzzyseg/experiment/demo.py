"""Demonstration: three training runs of equal length on generated images with groups of similar classes."""

from pathlib import Path

from fuzzyseg.config import ConfigError
from fuzzyseg.config.plan import Plan, read_plan
from fuzzyseg.data.datasets.synthetic import write_demo
from fuzzyseg.experiment.load_run import predict
from fuzzyseg.experiment.sweeps import Grid, SweepResult, sweep
from fuzzyseg.experiment.sweeps.scheduler import Say
from fuzzyseg.experiment.worker_pool import default_workers

PLAN = Path(__file__).with_suffix(".yaml")


def demo(out: Path, *, seed: int = 0, say: Say = print, plan: Plan | None = None, images: int = 160) -> SweepResult:
    """Generate data in `out`, train the plan's three configurations as a sweep, and predict validation images.

    All runs start from the same two supervised networks and use the same number of labelled images per step.
    Nothing is selected on the validation images. plan: used instead of `PLAN`. images: number of training images.
    Returns the result of the sweep. Raises ConfigError if `out` is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out}: is not empty; remove it or choose another --out")
    data, runs, plan = out / "data", out / "runs", plan or read_plan(PLAN)
    write_demo(data, seed=seed, train=images, val=40, size=(96, 96))
    masks = ", ".join(plan.labelled)
    say(f"{images} training and 40 validation images in {data}; {masks} training images keep their masks")
    grid = Grid(plan, settings={"data": {"root": str(data.resolve())}}, seeds=[seed])
    done = sweep(grid, runs, jobs=default_workers(4), say=say)
    say(done.table)
    for cell in [cell for cell in grid.cells if cell in done.rows]:
        if (fuzzy := done.rows[cell]["result"]["last"].get("fuzzy")) is not None:
            top, covered = (f"{100 * fuzzy[key]:.1f} %" for key in ("top1", "coverage"))
            say(f"{cell.arm}: the most probable class is right at {top} of the pixels; fuzzy sets cover {covered}")
        predict(runs / cell.name, data / "images" / "val" / "demo_000[0-5].png", out / "pictures" / cell.name)
    say(f"one seed: differences of a point or two are noise; predictions are in {out / 'pictures'}")
    return done
