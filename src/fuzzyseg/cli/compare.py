"""`fuzzyseg compare`: compare methods and losses under one protocol."""

from __future__ import annotations

from typing import Annotated

import typer

from fuzzyseg.cli.imports import Import
from fuzzyseg.cli.sweep import (
    Amounts,
    AnyCode,
    Data,
    Device,
    Discard,
    Init,
    Jobs,
    OnlyTable,
    Out,
    Results,
    Seeds,
    StartSteps,
    Words,
    carry_out,
    laid_out,
    listed,
    with_start,
)


def compare(
    words: Words = None,
    data: Data = None,
    methods: Annotated[
        str, typer.Option("--methods", metavar="A,B", help="Methods by name, or all; see `fuzzyseg methods`.")
    ] = "all",
    loss: Annotated[str, typer.Option("--loss", metavar="A,B", help="Pseudo-label losses.")] = "paper,hard,fuzzy",
    out: Out = "runs/compare",
    results: Results = None,
    seeds: Seeds = None,
    labelled: Amounts = None,
    start_steps: StartSteps = None,
    init: Init = None,
    jobs: Jobs = 1,
    device: Device = None,
    discard: Discard = False,
    any_code: AnyCode = False,
    only_table: OnlyTable = False,
    imports: Import = None,
) -> None:
    """Compare methods and losses under one protocol.

    The table shows mean IoU of the last checkpoint (mean and standard deviation over the seeds), paired differences of
    the fuzzy and the hard loss in each method with a 95 % interval, seconds per step and peak memory.

    \b
    Examples:
      fuzzyseg compare --data photos --methods supervised,cps --seeds 3 --out runs/compare
      fuzzyseg compare recipes/camvid_sweep.yaml --data camvid --labelled 23 --out runs/all
    """
    from fuzzyseg.experiment.sweeps import Grid, comparison
    from fuzzyseg.methods import METHODS

    names = list(METHODS) if methods == "all" else listed(methods)
    plan, notes = comparison(names, listed(loss), labelled=listed(labelled))
    for note in notes:
        typer.echo(note, err=True)
    plan, recipe, single = laid_out(plan, words or [], data, device)
    grid = Grid(with_start(plan, start_steps), recipe, single, seeds=seeds, init=init)
    carry_out(grid, out, results, jobs, discard, only_table, any_code=any_code)
