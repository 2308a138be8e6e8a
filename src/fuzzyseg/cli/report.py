"""`fuzzyseg report`: write an HTML page about runs and sweeps."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN|SWEEP ...", help="Run folders; folders of `sweep` or `compare`, or of their rows."),
    ],
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.html", help="HTML file to write.")] = Path("report.html"),
    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", help="Title. [default: the names]")] = None,
) -> None:
    """Write an HTML page about runs and sweeps.

    It shows scores, curves, classes, a gallery of images, calibration, settings and warnings.

    The page is a single, self-contained file. Several runs are overlaid. The gain over supervised training
    is shown if a supervised run with the same number of labelled images, or a sweep with such a run, is also given.

    \b
    Examples:
      fuzzyseg report runs/first
      fuzzyseg report runs/fuzzy runs/supervised --out fuzzy.html
      fuzzyseg report runs/fuzzy runs/compare --out fuzzy.html
    """
    from fuzzyseg.report.page import write_report

    typer.echo(f"wrote {write_report(runs, out, title=title)}")
