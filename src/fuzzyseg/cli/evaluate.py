"""`fuzzyseg evaluate`: evaluate a trained model on a split."""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import typer

from fuzzyseg.cli.options import DEVICE, Given, Import, Json, option, takes
from fuzzyseg.cli.progress import counter
from fuzzyseg.run.environment import first_process
from fuzzyseg.run.logs import SCORE


@takes(
    option("data", str, metavar="DIR", help="Folder of images and masks, or an imported dataset. [default: the run's]"),
    option(
        "split",
        Literal["val", "test", "train"],
        help="Split to score. [default: val, or all images of --data if it has no val]",
    ),
    option("mode", Literal["whole", "sliding"], help="Predict whole images, or sliding windows. [default: the run's]"),
    option("gallery", int, min=0, metavar="N", help="Store N images, confusions and calibration for the report."),
    DEVICE,
)
def evaluate(
    source: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run folder or a model/ folder.")],
    *,
    as_json: Json = False,
    imports: Import = None,
    given: Given,
) -> None:
    """Score a trained model on a split.

    The score is the mean IoU over all pixels of the split, at the size of the files. torchrun splits the images across
    processes.

    \b
    Examples:
      fuzzyseg evaluate runs/first
      fuzzyseg evaluate runs/first/model --data photos --split test --json
    """
    from fuzzyseg.experiment import evaluate as score

    first = first_process()
    with counter("images") as progress:
        result = score(source, progress=progress if first else None, **given)
    if not first:
        return
    if as_json:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        for line in report(result):
            typer.echo(line)


def report(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the result as lines of text, with percentages, a dash for None, and ceilings next to the scores."""
    resolvable = f"{SCORE}_resolvable"
    ceiling, minimum = result.get("ceiling", {}), result.get("ceiling_least", 0.0)
    remarks = {("per_class", name): f"  (ceiling {_shown(value)})" for name, value in ceiling.items()}
    if ceiling:
        kept = sum((value or 0.0) >= minimum for value in ceiling.values())
        over = f"over the {kept} of {len(ceiling)} classes with a ceiling of at least {_shown(minimum)}"
        remarks[SCORE, ""] = f"  ({_shown(result[resolvable])} {over})"
    excluded = ("ceiling", "ceiling_least", "calibration", resolvable)
    shown = {name: value for name, value in result.items() if name not in excluded}
    width = max(len(str(name)) for value in [shown, *shown.values()] if isinstance(value, Mapping) for name in value)
    for name, value in shown.items():
        if isinstance(value, Mapping):
            yield f"{name}:"
            for key, part in value.items():
                yield f"  {key!s:<{width}}  {_shown(part)}{remarks.get((name, key), '')}"
        else:
            yield f"{name!s:<{width + 2}}  {_shown(value)}{remarks.get((name, ''), '')}"
    if "ece" in (calibration := result.get("calibration") or {}):
        yield from _calibration(calibration)
    absent = [name for name, value in ceiling.items() if value is None]
    if absent:
        yield f"not in the masks: {', '.join(absent)}; the score excludes these classes"


def _calibration(calibration: Mapping[str, Any]) -> Iterator[str]:
    fit = f"temperature {calibration['temperature']:.3f}, fitted on {calibration['fitted_on'] or 'nothing'}"
    ece, calibrated = _shown(calibration["ece"]), _shown(calibration["ece_calibrated"])
    yield f"calibration error (ECE) {ece}, {calibrated} with {fit}"
    yield f"  measured on {calibration['pixels']} pixels of {calibration['images']} images"
    size, coverage = calibration["set_size"], _shown(calibration["coverage"])
    yield f"prediction sets ({_shown(calibration['level'])}): mean size {size:.2f}, coverage {coverage}; per class:"
    for name, value in calibration["coverage_per_class"].items():
        yield f"  {name}  {_shown(value)}"


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.2f} %" if isinstance(value, float) else str(value)
