"""`fuzzyseg analyse`: what FPL sees of a run, or would see of a model before any training."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fuzzyseg.cli.imports import Import
from fuzzyseg.cli.progress import counter


class Pictures(StrEnum):
    """How figures are stored."""

    png = "png"
    svg = "svg"


Run = Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run folder.")]
Model = Annotated[
    str | None, typer.Option("--model", metavar="MODEL", help="In place of RUN: a model/ folder, or a run.")
]
Data = Annotated[
    str | None, typer.Option("--data", metavar="DIR", help="Images and masks to look at; the run's own by default.")
]
Out = Annotated[
    str | None,
    typer.Option("--out", metavar="DIR", help="Where tables and figures go; RUN/analysis, with --model nowhere."),
]
Images = Annotated[int, typer.Option("--images", metavar="N", help="Examples that are drawn.")]
Limit = Annotated[
    int | None, typer.Option("--limit", metavar="N", help="Look at N images of each list at most, evenly spread.")
]
Threshold = Annotated[
    float | None, typer.Option("--threshold", metavar="T", help="T of the fuzzy sets; that of the run by default.")
]
UnlabelledMasks = Annotated[
    bool,
    typer.Option(
        "--unlabelled-masks",
        help="Diagnosis: also look at the unlabelled images; reads their masks, and the output says so.",
    ),
]


def analyse(
    run: Run = None,
    model: Model = None,
    data: Data = None,
    out: Out = None,
    images: Images = 4,
    limit: Limit = None,
    threshold: Threshold = None,
    unlabelled_masks: UnlabelledMasks = False,
    pictures: Annotated[Pictures, typer.Option("--pictures", help="Format of the figures.")] = Pictures.png,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
    imports: Import = None,
) -> None:
    """Show what FPL sees, and whether it can help.

    The table tells, for several thresholds T, how often the truth lies in the fuzzy set, how many classes the sets
    hold, and what follows from it. A folder is written with all numbers and figures; docs/analysis.md explains them.

    \b
    Examples:
      fuzzyseg analyse runs/first
      fuzzyseg analyse --model runs/supervised/model --data photos
      fuzzyseg analyse runs/first --unlabelled-masks --images 6 --out why
    """
    from fuzzyseg.experiment import analyse as carry_out

    if (run is None) == (model is None):
        found = "neither" if run is None else "both"
        raise ValueError(f"RUN, --model: found {found}; expected a run folder, or --model MODEL --data DIR")
    source = run or model or ""
    if out is None and run is not None:
        out = str(Path(run) / "analysis")
    with counter("images") as progress:
        result = carry_out(
            source,
            data=data,
            out=out,
            images=images,
            limit=limit,
            threshold=threshold,
            unlabelled_masks=unlabelled_masks,
            pictures=pictures.value,
            device=device,
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    from fuzzyseg.experiment.analysing import writing

    for line in writing.screen(result):
        typer.echo(line)
    if out is not None:
        typer.echo(f"all numbers and {len(result['figures'])} figures: {Path(out) / 'analysis.md'}")
