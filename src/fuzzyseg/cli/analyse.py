"""`fuzzyseg analyse`: statistics of the fuzzy sets of a run, or of a model before any training with FPL."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from fuzzyseg.cli.options import Device, Import, Json
from fuzzyseg.cli.progress import counter


class Pictures(StrEnum):
    """File formats of figures."""

    png = "png"
    svg = "svg"


Run = Annotated[str | None, typer.Argument(metavar="[RUN]", help="Run folder.")]
Model = Annotated[
    str | None, typer.Option("--model", metavar="MODEL", help="Instead of RUN: a model/ folder, or a run.")
]
Data = Annotated[
    str | None, typer.Option("--data", metavar="DIR", help="Folder with images and masks. [default: the run's]")
]
Out = Annotated[
    str | None,
    typer.Option("--out", metavar="DIR", help="Folder of tables and figures. [default: RUN/analysis, or none]"),
]
Images = Annotated[int, typer.Option("--images", metavar="N", help="Examples to draw.")]
Limit = Annotated[
    int | None, typer.Option("--limit", metavar="N", help="At most N images of each list, evenly spread.")
]
Threshold = Annotated[
    float | None, typer.Option("--threshold", metavar="T", help="T of the fuzzy sets. [default: the run's]")
]
UnlabelledMasks = Annotated[
    bool,
    typer.Option(
        "--unlabelled-masks",
        help="Diagnosis: include the unlabelled images. Reads their masks; the output has a note.",
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
    device: Device = "auto",
    as_json: Json = False,
    imports: Import = None,
) -> None:
    """Compare fuzzy sets with the truth: can FPL help?

    The table shows, for several thresholds T, how often the fuzzy set holds the truth and how many classes it holds.
    All numbers and figures are written to a folder; docs/analysis.md explains them.

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
    _print(result)
    if out is not None:
        typer.echo(f"all numbers and {len(result['figures'])} figures: {Path(out) / 'analysis.md'}")


def _print(result: dict[str, Any]) -> None:
    from fuzzyseg.experiment.analyse import text

    typer.echo("\n".join(text.about(result)))
    for name, group in result["groups"].items():
        typer.echo(f"\n{name} images ({group['images']}):")
        for head, *rows in (text.thresholds(group["table"]), text.confident(group["confident"])):
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
            for number, title in enumerate(head):
                table.add_column(title, justify="right" if number else "left", no_wrap=True)
            for row in rows:
                table.add_row(*row)
            # a pipe has no width: nothing is cut
            Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)
    typer.echo("\n".join(result["answer"]))
