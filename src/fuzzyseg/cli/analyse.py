"""`fuzzyseg analyse`: statistics of the fuzzy sets of a run, or of a model before training with FPL."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fuzzyseg.cli.options import DEVICE, Given, Import, Json, option, takes
from fuzzyseg.cli.progress import counter, table


@takes(
    option("data", str, metavar="DIR", help="Folder with images and masks. [default: the run's]"),
    option("images", int, 4, metavar="N", help="Examples to draw."),
    option("limit", int, metavar="N", help="Maximum number of images per split, evenly spaced."),
    option("threshold", float, metavar="T", help="Threshold T of the fuzzy sets. [default: the run's]"),
    option("unlabelled_masks", bool, False, help="For diagnosis: also read the masks of the unlabelled images."),
    option("pictures", Literal["png", "svg"], "png", help="Format of the figures."),
    DEVICE,
)
def analyse(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Run folder.")] = None,
    *,
    model: Annotated[str | None, typer.Option("--model", metavar="MODEL", help="Model or run, instead of RUN.")] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="DIR", help="Folder for tables and figures. [default: RUN/analysis, or none]"),
    ] = None,
    as_json: Json = False,
    imports: Import = None,
    given: Given,
) -> None:
    """Show what a model confuses, and whether FPL may help.

    Shows confusions, statistics of the fuzzy sets for several T, and the gain of FPL in runs with similar sets. All
    numbers and figures are written to a folder; docs/analysis.md explains them.

    \b
    Examples:
      fuzzyseg analyse runs/first
      fuzzyseg analyse --model runs/supervised/model --data photos
      fuzzyseg analyse runs/first --unlabelled-masks --images 6 --out why
    """
    if (run is None) == (model is None):
        given_sources = "neither" if run is None else "both"
        raise ValueError(f"RUN, --model: found {given_sources}; expected a run folder, or --model MODEL --data DIR")
    if out is None and run is not None:
        out = str(Path(run) / "analysis")
    from fuzzyseg.experiment import analyse as carry_out

    with counter("images") as progress:
        result = carry_out(run or model or "", out=out, progress=progress, **given)
    if as_json:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    _print(result)
    if out is not None:
        typer.echo(f"wrote the tables and {len(result['figures'])} figures: {Path(out) / 'analysis.md'}")


def _print(result: dict[str, Any]) -> None:
    from fuzzyseg.experiment.analyse import text

    typer.echo("\n".join(text.about(result)))
    for name, group in result["groups"].items():
        tables = {
            f"Most frequent confusions in {name} images ({group['images']}):": text.confusions(group, limit=6),
            "Fuzzy sets, for each threshold T:": text.thresholds(group["table"]),
            "Pixels with at least this confidence:": text.confident(group["confident"]),
        }
        for title, (head, *rows) in tables.items():
            if rows:
                typer.echo("\n".join(["", title, *table(head, rows)]))
    typer.echo("\n".join(["", *text.LEGEND, "", *result["answer"]]))
