"""`fuzzyseg predict`: segment image files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fuzzyseg.cli.errors import FAILED, complain
from fuzzyseg.cli.options import Device
from fuzzyseg.cli.progress import counter
from fuzzyseg.config import ConfigError, parse_size


def predict(
    source: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run folder, or a model/ folder alone.")],
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="One image file, a folder, or a quoted pattern.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results.")],
    overlay: Annotated[
        bool, typer.Option("--overlay/--no-overlay", help="Also write the image with the classes in colour.")
    ] = True,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write the probability of every class.")
    ] = False,
    encoded: Annotated[
        bool,
        typer.Option(
            "--encoded", help="Encode masks as the training masks (colours, 0 and 255, ...) instead of class indices."
        ),
    ] = False,
    max_megapixels: Annotated[
        int | None,
        typer.Option("--max-megapixels", metavar="N", min=1, help="Largest image to decode whole."),
    ] = None,
    tile: Annotated[
        str | None,
        typer.Option("--tile", metavar="HxW", help="Predict in overlapping tiles of this size, for large images."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Segment an image, or a folder of images.

    Writes an index mask (PNG) of the size of each image, and an overlay.

    \b
    Examples:
      fuzzyseg predict runs/first photos/new --out results
      fuzzyseg predict runs/first/model map.tif --out results --tile 1024x1024 --no-overlay
    """
    try:
        size = parse_size(tile)
    except ValueError as error:
        raise ConfigError(f"--tile: found {tile!r}; {error}") from None
    from fuzzyseg.experiment import predict as segment

    with counter("images") as progress:
        written, failures = segment(
            source,
            images,
            out,
            overlay=overlay,
            probabilities=probabilities,
            encoded=encoded,
            max_megapixels=max_megapixels,
            tile=size,
            device=device,
            progress=progress,
        )
    for failure in failures:
        complain(str(failure))
    typer.echo(f"{len(written)} file{'s' * (len(written) != 1)} written to {out}")
    if failures:
        raise typer.Exit(FAILED)
