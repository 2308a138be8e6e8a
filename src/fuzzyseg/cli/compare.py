"""`fuzzyseg compare`: compare methods and losses under one protocol."""

from typing import Annotated

import typer

from fuzzyseg.cli.methods import known
from fuzzyseg.cli.options import Given, Import, listed, takes
from fuzzyseg.cli.sweep import RUNS, Out, Words, carry_out, read_settings
from fuzzyseg.config import check_known


@takes(*RUNS)
def compare(
    words: Words = None,
    *,
    methods: Annotated[
        str,
        typer.Option("--methods", metavar="A,B", help="Methods to compare, or all; see `fuzzyseg methods`."),
    ] = "all",
    loss: Annotated[str, typer.Option("--loss", metavar="A,B", help="Losses to compare.")] = "paper,hard,fuzzy",
    out: Out = "runs/compare",
    imports: Import = None,
    given: Given,
) -> None:
    """Compare methods and losses under one protocol.

    Supervised training, on the labelled images alone, always runs as the reference. The table shows mean IoU of the
    last checkpoint (mean and standard deviation over the runs), seconds per step and peak memory; and, with a 95%
    interval, the paired differences from supervised training and between the fuzzy and the hard loss of each method.

    \b
    Examples:
      fuzzyseg compare --data photos --methods supervised,cps --seeds 3 --out runs/compare
      fuzzyseg compare recipes/camvid_sweep.yaml --data camvid --labelled 23 --out runs/all
    """
    settings, (known_methods, known_losses) = read_settings(words, given), known(imports)
    every = [name for name in known_methods if name != "distill"]  # requires a trained teacher
    chosen, losses = every if methods == "all" else listed(methods), listed(loss)
    for name in chosen:
        check_known("--methods", name, known_methods)
    for name in losses:
        check_known("--loss", name, known_losses)
    from fuzzyseg.experiment.sweeps import comparison

    plan, notes = comparison(chosen, losses)
    for note in notes:
        typer.echo(note, err=True)
    carry_out(plan, *settings, out, given)
