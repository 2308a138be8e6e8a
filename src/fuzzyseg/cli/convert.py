"""`fuzzyseg convert`: convert annotation files to masks."""

from pathlib import Path
from typing import Annotated

import typer

from fuzzyseg.cli.errors import FAILED, complain
from fuzzyseg.cli.progress import counter


def convert(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="LabelMe, COCO or CVAT folder or file.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Dataset folder to write; must be empty or new.")],
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="FILE",
            help="File with one label per line, in index order. [default: SOURCE/labels.txt or the tool's labels]",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Write nothing if a shape has an unknown type. [default: skip its image]")
    ] = False,
) -> None:
    """Convert annotations to a dataset: images/, masks/, dataset.yaml.

    Reads LabelMe and COCO JSON files (polygons, run lengths, crowds) and CVAT's "Segmentation mask" (labelmap.txt); the
    format is detected. Later shapes overwrite earlier ones. The label __ignore__ is void. SOURCE is not changed.

    \b
    Examples:
      fuzzyseg convert labelme --out photos --labels labels.txt
      fuzzyseg convert coco/annotations/instances_val2017.json --out coco_val
    """
    from fuzzyseg.experiment import convert as carry_out

    with counter("images") as progress:
        result = carry_out(source, out, labels=labels, strict=strict, progress=progress)
    typer.echo("\n".join([*result.notes, f"{len(result.classes)} classes: {', '.join(result.classes)}"]))
    typer.echo(f"{result.written['images']} images and {result.written['masks']} masks written to {out}")
    if result.failures:
        complain("\n".join([f"{len(result.failures)} images were not written:", *map(str, result.failures)]))
        raise typer.Exit(FAILED)
