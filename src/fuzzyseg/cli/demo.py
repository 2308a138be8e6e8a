"""`fuzzyseg demo`: train, compare and predict on generated images."""

from pathlib import Path
from typing import Annotated

import typer

from fuzzyseg.cli.errors import INTERRUPTED, Failure


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Output folder.")] = Path("demo"),
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed for data and training.")] = 0,
) -> None:
    """Train on generated images in three ways, and compare.

    Supervised training, CPS, and CPS with FPL (fuzzy positive learning) start from the same supervised weights, with
    the same number of labelled steps. Prints a table of the results and writes predictions for some validation images.
    Takes a few minutes on two cores. `fuzzyseg analyse DIR/runs/...` shows statistics of the fuzzy sets.
    """
    from fuzzyseg.experiment.demo import demo as run_demo

    done = run_demo(out, seed=seed, say=typer.echo)
    if done.interrupted:
        raise typer.Exit(INTERRUPTED)
    if done.failed:
        raise Failure(f"{len(done.failed)} of 3 runs failed; their logs are in {out / 'runs'}")
