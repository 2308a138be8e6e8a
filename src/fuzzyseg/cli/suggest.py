"""`fuzzyseg suggest`: suggest which images to label next."""

from pathlib import Path
from typing import Annotated

import typer

from fuzzyseg.cli.errors import complain
from fuzzyseg.cli.options import DEVICE, Given, listed, option, takes
from fuzzyseg.cli.progress import counter, table


@takes(
    option("export", str, metavar="FORMATS", help="Also export the images and their masks to a tool, such as cvat."),
    DEVICE,
)
def suggest(
    source: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run folder or a model/ folder.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Image files, folders or quoted patterns.")],
    *,
    count: Annotated[int, typer.Option("--count", "-n", metavar="N", min=1, help="Number of images to suggest.")] = 20,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New output folder.")] = Path("suggestions"),
    given: Given,
) -> None:
    """Suggest which images to label next.

    Prefers images with large uncertain areas (fuzzy sets of several classes, high entropy, disagreement if the method
    trains two networks) that differ from each other and from the run's labelled images. Near-duplicates are left out.
    Writes suggestions.csv and suggestions.html, which shows image, prediction, K and uncertainty.

    \b
    Examples:
      fuzzyseg suggest runs/first photos/new -n 20
      fuzzyseg suggest runs/first photos/new -n 20 --out next --export cvat
      fuzzyseg suggest runs/first/model "photos/**/*.jpg" -n 5 --out next
    """
    given["export"] = listed(given.get("export"))
    from fuzzyseg.data.text import printable
    from fuzzyseg.experiment.suggest import suggest as carry_out

    with counter("images", every=5.0) as progress:
        rows, failures = carry_out(source, images, out, count=count, progress=progress, **given)
    for failure in failures:
        complain(str(failure))
    shown = [[f"{v:.3f}" if isinstance(v, float) else printable(str(v)) for v in row.values()] for row in rows]
    typer.echo("\n".join(table([*rows[0]], shown)))
    typer.echo(f"wrote {out / 'suggestions.html'} and {out / 'suggestions.csv'}")
