"""`fuzzyseg evaluate`: the score of a trained model on a split."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from fuzzyseg.cli.progress import counter


class Split(StrEnum):
    """Which images are scored."""

    val = "val"
    test = "test"
    train = "train"


class Mode(StrEnum):
    """How an image is predicted."""

    whole = "whole"
    sliding = "sliding"


def evaluate(
    source: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run folder, or a model/ folder alone.")],
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DIR", help="Images and masks to score on; the run's own by default."),
    ] = None,
    split: Annotated[Split, typer.Option("--split", help="Which images are scored.")] = Split.val,
    mode: Annotated[
        Mode | None,
        typer.Option("--mode", help="Each image whole, or in overlapping windows; the run's own by default."),
    ] = None,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Score a trained model on a split.

    The score is the mean IoU over all pixels of the split, at the size of the files.

    \b
    Examples:
      fuzzyseg evaluate runs/first
      fuzzyseg evaluate runs/first/model --data photos --split test --json
    """
    from fuzzyseg.experiment import evaluate as carry_out

    with counter("images") as progress:
        result = carry_out(
            source, data=data, split=split.value, mode=mode and mode.value, device=device, progress=progress
        )
    if as_json:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        for line in report(result):
            typer.echo(line)


def report(result: Mapping[str, Any]) -> Iterator[str]:
    """The result as lines; every fraction is a share, shown in per cent, and what does not exist is a dash.

    `miou_resolvable` stands beside mIoU and the ceiling of each class beside its IoU.
    """
    ceiling, least = result.get("ceiling", {}), result.get("ceiling_least", 0.0)
    beside = {("per_class", name): f"  (ceiling {_shown(value)})" for name, value in ceiling.items()}
    if ceiling:
        kept = sum((value or 0.0) >= least for value in ceiling.values())
        over = f"over the {kept} of {len(ceiling)} classes with a ceiling of at least {_shown(least)}"
        beside["miou", ""] = f"  ({_shown(result['miou_resolvable'])} {over})"
    apart = ("ceiling", "ceiling_least", "miou_resolvable")
    shown = {name: value for name, value in result.items() if name not in apart}
    width = max(len(str(name)) for value in [shown, *shown.values()] if isinstance(value, Mapping) for name in value)
    for name, value in shown.items():
        if isinstance(value, Mapping):
            yield f"{name}:"
            for key, part in value.items():
                yield f"  {key!s:<{width}}  {_shown(part)}{beside.get((name, key), '')}"
        else:
            yield f"{name!s:<{width + 2}}  {_shown(value)}{beside.get((name, ''), '')}"


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.2f} %" if isinstance(value, float) else str(value)
