"""`fuzzyseg predict`: segment image files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fuzzyseg.cli.errors import FAILED, complain
from fuzzyseg.cli.options import DEVICE, Given, option, takes
from fuzzyseg.cli.progress import counter
from fuzzyseg.config import ConfigError, parse_size


@takes(
    option("overlay", bool, True, help="Also write the image with the classes in colour."),
    option("probabilities", bool, False, help="Also write the probability of every class."),
    option(
        "encoded",
        bool,
        False,
        help="Encode masks as the training masks (colours, 0 and 255, ...) instead of class indices.",
    ),
    option("max_megapixels", int, metavar="N", min=1, help="Largest image to decode whole."),
    option("tile", str, metavar="HxW", help="Predict in overlapping tiles of this size, for large images."),
    DEVICE,
)
def predict(
    source: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run folder, or a model/ folder alone.")],
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="One image file, a folder, or a quoted pattern.")],
    *,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results.")],
    given: Given,
) -> None:
    """Segment an image, or a folder of images.

    Writes an index mask (PNG) of the size of each image into masks/, an overlay with a legend into overlays/, and the
    share of each class in each image into class_shares.csv.

    \b
    Examples:
      fuzzyseg predict runs/first photos/new --out results
      fuzzyseg predict runs/first/model map.tif --out results --tile 1024x1024 --no-overlay
    """
    try:
        given["tile"] = parse_size(given.get("tile"))
    except ValueError as error:
        raise ConfigError(f"--tile: found {given['tile']!r}; {error}") from None
    from fuzzyseg.experiment import predict as segment

    earlier = set((out / "masks").rglob("*.png"))
    with counter("images") as progress:
        written, failures = segment(source, images, out, progress=progress, **given)
    for failure in failures:
        complain(str(failure))
    masks = [path for path in written if path.is_relative_to(out / "masks")]
    text = f"{len(masks)} image{'s' * (len(masks) != 1)} predicted"
    if replaced := len(earlier.intersection(masks)):
        text += f", {replaced} of them again: their earlier results are replaced"
    text += f", {len(failures)} failed" if failures else ""
    typer.echo(f"{text}; results are in {out}")
    if failures:
        raise typer.Exit(FAILED)
