"""`fuzzyseg sweep`: execute all runs of a plan and tabulate them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live
from rich.text import Text

from fuzzyseg.cli.errors import INTERRUPTED, Failure
from fuzzyseg.cli.methods import known
from fuzzyseg.cli.options import Given, Import, listed, option, overridden, read_recipe, setting, takes
from fuzzyseg.cli.train import OPTIONS
from fuzzyseg.config import ConfigError, check_known, merge, override, validate
from fuzzyseg.config.load import nested
from fuzzyseg.config.plan import Plan, read_plan
from fuzzyseg.run.progress import terminal

if TYPE_CHECKING:
    from fuzzyseg.experiment.sweeps.progress import Progress, RunState

EVERY = 300.0
"""Seconds between progress lines if stderr is not a terminal."""
SETTINGS = [name for name in OPTIONS if name not in ("method", "loss", "labelled", "seed", "init", "out", "stop_at")]
"""Options of `train` that apply to every run."""
RUNS = (
    *(setting(name, default=False) for name in SETTINGS),
    option("results", str, metavar="DIR", help="Folder of results; finished runs are skipped. [default: OUT/rows]"),
    option("seeds", int, metavar="N", help="Runs per configuration: seeds 0 to N-1. [default: the plan's, else 1]"),
    option("folds", int, min=2, metavar="K", help="K-fold cross-validation on the labelled images: K runs each."),
    option("labelled", str, metavar="A[,B]", help="Amounts of labels (46, 1/8), instead of the plan's."),
    option(
        "start_steps",
        int,
        min=0,
        metavar="N",
        help="Steps of the supervised pretraining from which all runs of a subset and seed start (twice for methods "
        "with two networks); 0: none. [default: section start of the plan or recipe]",
    ),
    option(
        "init",
        str,
        metavar="FILE[,FILE]",
        help="Initial weights of all runs, instead of pretraining; {labelled}, {seed} and {subset} are filled in; a "
        "method with one network uses the first file.",
    ),
    option("jobs", int, 1, min=1, metavar="N", help="Number of parallel runs."),
    option("discard", bool, False, help="Delete a run's folder after writing its result file."),
    option("any_code", bool, False, help="Accept results of other versions of fuzzyseg; the table notes it."),
    option("table", bool, False, help="Run nothing; print the table of existing results."),
)
"""Options of `sweep` and `compare`."""

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RECIPE.yaml] [KEY=VALUE]...",
        help="A recipe, whose sections replace those of the plan (it may have a section start), and single settings "
        "by dotted name. The settings of a compared configuration override both.",
    ),
]
Out = Annotated[str, typer.Option("--out", metavar="DIR", help="Output folder for the runs and table.md.")]


@takes(*RUNS)
def sweep(
    file: Annotated[str, typer.Argument(metavar="PLAN.yaml", help="Plan file; see recipes/ and docs/comparing.md.")],
    words: Words = None,
    *,
    out: Out = "runs/sweep",
    arms: Annotated[str | None, typer.Option("--arms", metavar="A[,B]", help="Run only these configurations.")] = None,
    reading: Annotated[
        str | None, typer.Option("--reading", metavar="NAME", help="Variant in `readings`, for an ambiguous paper.")
    ] = None,
    imports: Import = None,
    given: Given,
) -> None:
    """Execute all runs of a plan and tabulate them.

    An interrupted sweep continues with the same command. A failed run is reported in the table and retried by the next
    call; the others are not affected. Each seed selects a different labelled subset.

    \b
    Examples:
      fuzzyseg sweep recipes/table4.yaml --data cityscapes --seeds 3 --out runs/table4
      fuzzyseg sweep recipes/table4.yaml recipes/camvid_sweep.yaml --data camvid --labelled 23 --out runs/t4
      fuzzyseg sweep recipes/table4.yaml --out runs/table4 --table
    """
    plan, (methods, losses) = read_plan(file), known(imports)
    for arm in plan.arms:  # the plan's settings and the arm's must each be valid
        for values in (plan.setting(arm, reading), plan.compared(arm)):
            config = validate(values)
            check_known("method", config.method.name, methods)
            check_known("loss", config.loss.name, losses)
    carry_out(plan, *read_settings(words, given), out, given, arms=listed(arms), reading=reading)


def carry_out(plan: Plan, recipe: Given, single: Given, out: str, given: Given, **choice: Any) -> None:
    """Run a plan with a progress display, print its table, and set the exit code.

    recipe, single: result of `read_settings`. choice: additional keyword arguments of `Grid`.
    """
    from fuzzyseg.experiment.own_dataset import find_dataset, write_dataset
    from fuzzyseg.experiment.sweeps import Grid
    from fuzzyseg.experiment.sweeps import sweep as run

    start = nested(recipe.pop("start") or {}) if "start" in recipe else plan.start
    if (steps := given.get("start_steps")) is not None:
        start = merge(start or {}, {"train": {"steps": steps}}) if steps else None
    plan = plan.model_copy(update={"start": start})
    labelled, only_table = listed(given.get("labelled")), given["table"]
    choice |= {name: given.get(name) for name in ("seeds", "init", "folds")}
    grid = Grid(plan, recipe, single, labelled=labelled, **choice)
    root = grid.config(grid.cells[0], Path(out)).data.root
    if not only_table and (custom := find_dataset(root)) is not None:
        root = str(write_dataset(custom, Path(out) / "data", keep=True).resolve())
        grid = replace(grid, settings=override(grid.settings, ["data", "root"], root))
    if not only_table and (root is None or not Path(root).exists()):
        problem = "not given" if root is None else f"found {root}, which does not exist"
        raise ConfigError(f"--data: {problem}; name the folder with your images")
    with _watched() as (say, watch):
        options: dict[str, Any] = {name: given.get(name) for name in ("results", "jobs", "discard", "any_code")}
        done = run(grid, out, **options, only_table=only_table, say=say, watch=watch)
    typer.echo(done.table)
    if done.interrupted:
        raise typer.Exit(INTERRUPTED)
    failed = [cell for cell in grid.cells if cell in done.failed]
    if failed:
        raise Failure(f"{len(failed)} of {len(grid.cells)} runs failed; their logs are in {out}")


def read_settings(words: list[str] | None, given: Given) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the recipe and the single settings, validated before torch is imported. Raises ConfigError."""
    _, recipe = read_recipe(words or [])
    single = overridden({}, {name: given[name] for name in SETTINGS if name in given}, words or [])
    validate(merge({key: value for key, value in recipe.items() if key != "start"}, single))
    return recipe, single


@contextmanager
def _watched() -> Iterator[Any]:
    """Yield a function that prints a line, and one that displays `Progress`: live on a terminal, else periodically."""
    from fuzzyseg.data.text import printable

    console, due = terminal(stderr=True), time.monotonic() + EVERY

    def line(text: str) -> None:
        console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    with Live(console=console, transient=True, auto_refresh=False) as live:

        def watch(now: Progress) -> None:
            nonlocal due
            every = f"{now.done} of {now.total} runs finished{_eta(now.seconds_left)}"
            texts = [every, *map(run_text, now.running)]
            if console.is_terminal:
                live.update(Text("\n".join(texts)), refresh=True)
            elif time.monotonic() >= due:
                line("; ".join(texts))
                due = time.monotonic() + EVERY

        yield line, watch


def run_text(run: RunState) -> str:
    """Format a run as `cps_fuzzy-s0: step 300/2000, loss 0.43, mIoU 40.12 %, ETA 0:12:00`, omitting unknown values."""
    loss = "" if run.loss is None else f", loss {run.loss:.4g}"
    score = "" if run.score is None else f", mIoU {100 * run.score:.2f} %"
    return f"{run.name}: step {run.step}/{run.steps}{loss}{score}{_eta(run.seconds_left)}"


def _eta(seconds: float) -> str:
    return f", ETA {timedelta(seconds=round(seconds))}" if math.isfinite(seconds) else ""
