"""`fuzzyseg predict`: segment image files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fuzzyseg.cli.errors import FAILED, complain
from fuzzyseg.cli.options import DEVICE, Given, listed, option, parse, takes
from fuzzyseg.cli.progress import counter
from fuzzyseg.config import parse_size
from fuzzyseg.run.environment import first_process


@takes(
    option(
        "write",
        str,
        "mask,overlay",
        metavar="KINDS",
        help="Outputs besides the mask: overlay, colour, uncertainty, k, sets, probabilities, probabilities8, coco, "
        "labelme, cvat, labelstudio.",
    ),
    option("encoded", bool, False, help="Encode masks like the training masks, not as class indices."),
    option("tile", str, metavar="HxW", help="Predict in overlapping windows of this size."),
    option("scales", str, metavar="A,B,...", help="Average the predictions at these scales, such as 0.75,1,1.25."),
    option("flip", bool, False, help="Average with the prediction of the mirrored image."),
    option("overwrite", bool, False, help="Predict images again whose results in --out are complete."),
    option("max_megapixels", int, metavar="N", min=1, help="Size of the largest image to decode whole."),
    option("ray", int, metavar="N", min=1, help="Predict with N workers of Ray Data (extra ray)."),
    DEVICE,
)
def predict(
    source: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run folder or a model/ folder.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Image files, folders or quoted patterns.")],
    *,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results.")],
    given: Given,
) -> None:
    """Segment images.

    For each image, writes an index mask of the same size (PNG; GeoTIFF for a georeferenced TIFF) to masks/ and an
    overlay with a legend to overlays/. class_shares.csv lists, for each image, the fraction of pixels in each class.
    Rerun the same command to resume an interrupted prediction. torchrun splits the images across processes.

    \b
    Examples:
      fuzzyseg predict runs/first photos/new --out results
      fuzzyseg predict runs/first/model map.tif --out results --tile 1024x1024 --write uncertainty
      fuzzyseg predict runs/first photos/new --out results --write cvat
    """
    given["write"] = listed(given["write"])
    parse(given, "tile", parse_size)
    parse(given, "scales", lambda text: [float(part) for part in listed(text)])
    from fuzzyseg.experiment import predict as segment

    first = first_process()
    with counter("images") as progress:
        written, failures = segment(source, images, out, progress=progress if first else None, **given)
    if first:
        _report(written, failures, out)


def _report(written: Sequence[Path], failures: Sequence[Exception], out: Path) -> None:
    for failure in failures:
        complain(str(failure))
    images = sum(path.is_relative_to(out / "masks") for path in written)
    failed = f", {len(failures)} failed" if failures else ""
    typer.echo(f"{images} image{'s' * (images != 1)} predicted{failed}; results are in {out}")
    if failures:
        raise typer.Exit(FAILED)
