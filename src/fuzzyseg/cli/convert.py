"""`fuzzyseg convert`: what an annotation tool wrote becomes masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fuzzyseg.cli.errors import FAILED, complain
from fuzzyseg.cli.progress import counter


def convert(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="A folder, or one file, of LabelMe, COCO or CVAT."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the data set; must be empty or new.")],
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="FILE",
            help="Labels in the order of their class indices, one a line; SOURCE/labels.txt or the tool's order if not "
            "given.",
        ),
    ] = None,
) -> None:
    """Turn annotations into a data set: images/, masks/, dataset.yaml.

    Reads LabelMe's JSON files, COCO's JSON files (polygons, run lengths, crowds) and CVAT's "Segmentation mask"
    (labelmap.txt); which of them it is shows in the files. Shapes are drawn in their order: later ones win. The label
    __ignore__ is void. SOURCE is not changed.

    \b
    Examples:
      fuzzyseg convert labelme --out photos --labels labels.txt
      fuzzyseg convert coco/annotations/instances_val2017.json --out coco_val
    """
    from fuzzyseg.experiment import convert as carry_out

    with counter("images") as progress:
        result = carry_out(source, out, labels=labels, progress=progress)
    for sentence in result.found:
        typer.echo(sentence)
    typer.echo(f"{len(result.classes)} classes: {', '.join(result.classes)}")
    typer.echo(f"{result.written['images']} images and {result.written['masks']} masks written to {out}")
    for failure in result.failures:
        complain(str(failure))
    if result.failures:
        raise typer.Exit(FAILED)
