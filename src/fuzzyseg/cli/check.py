"""`fuzzyseg check`: find problems in a dataset before training."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fuzzyseg.cli.errors import FAILED
from fuzzyseg.cli.options import Given, Json, Words, configuration, setting, takes
from fuzzyseg.cli.progress import counter, table

if TYPE_CHECKING:
    from fuzzyseg.data.check.report import Report

LIST, EVERY = 10, 5.0
"""Number of files listed per finding, and seconds between progress lines if stderr is not a terminal."""


@takes(*map(setting, ("more", "unlabelled", "labelled", "val", "seed", "snap")))
def check(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Folder with images and masks; the layout is detected.")],
    words: Words = None,
    *,
    as_json: Json = False,
    everything: Annotated[bool, typer.Option("--all", help=f"List all files, not only the first {LIST}.")] = False,
    sheet: Annotated[Path | None, typer.Option("--sheet", metavar="FILE.png", help="Contact sheet to write.")] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="RUN|MODEL", help="Also list masks that this model contradicts."),
    ] = None,
    given: Given,
) -> None:
    """Check the files of a dataset. Nothing is changed.

    Reads every image and mask. Reports counts, sizes, encodings and class fractions, as well as unreadable files, masks
    without an image, size mismatches, values without a class, and images in both training and validation. The exit code
    is 0 without errors, 1 with errors, and 2 if no dataset is found. Use the same options and settings as for training;
    `fuzzyseg settings data` lists the data settings. With --model, also counts the labelled pixels for which the model
    predicts another class with a probability of at least 90%: wrong masks rank high, as do images that the model
    segments poorly.

    \b
    Examples:
      fuzzyseg check photos
      fuzzyseg check photos --labelled splits/46/labelled.txt --val splits/46/val.txt --unlabelled more_photos
      fuzzyseg check photos --json > report.json
      fuzzyseg check photos --sheet classes.png
      fuzzyseg check photos --model runs/first
    """
    config = configuration(words or [], {"data": data, **given})
    from fuzzyseg.experiment.check_data import check as carry_out

    try:
        with counter("files", every=EVERY) as progress:
            report = carry_out(config, progress=progress, sheet=sheet)
        if model is not None:
            from fuzzyseg.experiment.check_labels import check_labels

            with counter("masks", every=EVERY) as progress:
                rows, compared = check_labels(model, config, progress)
    except ValueError as error:
        if as_json:  # always exactly one JSON object
            typer.echo(json.dumps({"data": data, "error": str(error)}, indent=2, ensure_ascii=False))
        raise
    limit, more = None if everything else LIST, dict[str, Any]()
    for line in () if as_json else lines(report, limit):
        typer.echo(line)
    if model is not None:
        more = {"contradicted": rows, "compared": compared}
        for line in () if as_json else _contradicted(rows[:limit], f"{len(rows)} of {compared} masks", model):
            typer.echo(line)
    if as_json:
        typer.echo(json.dumps(report.record() | more, indent=2, ensure_ascii=False))
    if report.errors:
        raise typer.Exit(FAILED)


def lines(report: Report, limit: int | None = LIST) -> Iterator[str]:
    """Yield the report as lines of text. limit: maximum number of files listed per finding; None: all."""
    yield f"{report.data} (layout {report.layout})"
    rows = [(name, str(images), str(masks)) for name, (images, masks) in report.lists.items()]
    yield from table(("list", "images", "with masks"), rows)
    for name, kinds in (("images", report.images), ("masks", report.masks)):
        if kinds:
            yield f"{name}: " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    yield from _sizes(report)
    yield from (sentence for sentence in report.notes if sentence != f"layout {report.layout}")
    yield from _classes(report)
    for finding in report.findings:
        yield ""
        yield f"{finding.level}: {finding.what}"
        shown = finding.details if limit is None else finding.details[:limit]
        yield from (f"  {detail['text']}" for detail in shown)
        left = len(finding.details) - len(shown)
        if left:
            yield f"  ... and {left} more (--all lists them)"
        yield f"  what to do: {finding.advice}"
    yield ""
    yield _verdict(report)


def _sizes(report: Report) -> Iterator[str]:
    if report.sizes:
        (height, width), count = report.sizes.most_common(1)[0]
        low, high = (tuple(pick(side) for side in zip(*report.sizes, strict=True)) for pick in (min, max))
        others = f"; {len(report.sizes)} sizes from {low[0]}x{low[1]} to {high[0]}x{high[1]}" if low != high else ""
        yield f"sizes (height x width): {count} of {height}x{width}{others}"


def _classes(report: Report) -> Iterator[str]:
    if not report.classes:
        return
    pixels, held = sum(each.pixels for each in report.classes), sum(each.held_pixels for each in report.classes)

    def share(part: int, total: int) -> str:
        return f"{100 * part / max(1, total):.2f} %"

    rows = [
        [str(e.index), e.name, str(e.images), share(e.pixels, pixels), str(e.held_images), share(e.held_pixels, held)]
        for e in report.classes
    ]
    void, held_void = share(report.void, report.void + pixels), share(report.held_void, report.held_void + held)
    rows.append(["", "(void)", "", f"{void} of all", "", f"{held_void} of all"])
    yield ""
    yield from table(("", "class", "masks", "of pixels", "val, test masks", "of pixels"), rows)


def _verdict(report: Report) -> str:
    if not report.errors + report.warnings:
        return "no problems found"
    counts = ((report.errors, "error"), (report.warnings, "warning"))
    return ", ".join(f"{count} {what}{'s' * (count > 1)}" for count, what in counts if count)


def _contradicted(rows: Sequence[dict[str, Any]], masks: str, model: str) -> Iterator[str]:
    yield f"\n{masks} are contradicted by {model}{', worst first:' if rows else ''}"
    head = ("image", "of its labels", "most often: label -> prediction", "of its labels")
    text = ("{image}", "{share:.2%}", "{label} -> {prediction}", "{most:.2%}")
    yield from table(head, [[part.format(**row) for part in text] for row in rows])
