"""`fuzzyseg train`: turn options and overrides into a configuration, and train."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fuzzyseg.cli.errors import INTERRUPTED, Failure
from fuzzyseg.cli.imports import Import
from fuzzyseg.config import Config, ConfigError, override, parse_override, read_yaml, validate

KEYS = {
    "data": "data.root",
    "more": "data.more",
    "unlabelled": "data.unlabelled_from",
    "method": "method.name",
    "loss": "loss.name",
    "labelled": "data.labelled",
    "steps": "train.steps",
    "seed": "seed",
    "arch": "network.arch",
    "encoder": "network.encoder",
    "weights": "network.weights",
    "crop": "train.crop",
    "batch": "train.batch",
    "init": "init",
    "out": "out",
    "stop_at": "train.stop_at",
    "eval_every": "train.eval_every",
    "save_every": "train.save_every",
    "val": "data.val",
    "image_size": "data.image_size",
    "snap": "data.snap",
    "device": "train.device",
    "workers": "train.workers",
}
"""Option (with _ for -) -> its setting, whose description is the help text."""


def flag(name: str) -> str:
    """`stop_at` -> `--stop-at`."""
    return "--" + name.replace("_", "-")


def _option(name: str, metavar: str | None) -> Any:
    """The option of a setting, with the description and default of the setting."""
    *sections, field = KEYS[name].split(".")
    model: Any = Config
    for section in sections:
        model = model.model_fields[section].annotation
    info = model.model_fields[field]
    text = info.description.replace("None:", "if not given:")
    default = info.default
    if default is not None:
        text += f" [default: {'x'.join(map(str, default)) if isinstance(default, tuple) else default}]"
    return typer.Option(flag(name), metavar=metavar, help=text)


Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RECIPE.yaml|KEY=VALUE",
        help="A file of settings, and single settings by dotted name, such as train.ema=0.998, in any order.",
    ),
]


def train(
    context: typer.Context,
    words: Words = None,
    data: Annotated[str | None, _option("data", "DIR")] = None,
    more: Annotated[str | None, _option("more", "DIR[,DIR]")] = None,
    unlabelled: Annotated[str | None, _option("unlabelled", "DIR|GLOB[,...]")] = None,
    method: Annotated[str | None, _option("method", "NAME")] = None,
    loss: Annotated[str | None, _option("loss", "NAME")] = None,
    labelled: Annotated[str | None, _option("labelled", "N|1/N|FILE")] = None,
    steps: Annotated[int | None, _option("steps", "N")] = None,
    seed: Annotated[int | None, _option("seed", "N")] = None,
    arch: Annotated[str | None, _option("arch", "NAME")] = None,
    encoder: Annotated[str | None, _option("encoder", "NAME")] = None,
    weights: Annotated[str | None, _option("weights", "imagenet|none|FILE")] = None,
    crop: Annotated[str | None, _option("crop", "HxW")] = None,
    batch: Annotated[int | None, _option("batch", "N")] = None,
    init: Annotated[str | None, _option("init", "FILE[,FILE]")] = None,
    out: Annotated[str | None, _option("out", "RUN")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue RUN if it holds a checkpoint, start it if not.")
    ] = False,
    stop_at: Annotated[int | None, _option("stop_at", "N")] = None,
    eval_every: Annotated[int | None, _option("eval_every", "N")] = None,
    no_eval: Annotated[
        bool, typer.Option("--no-eval", help="Never evaluate: no score, and no best checkpoint.")
    ] = False,
    save_every: Annotated[int | None, _option("save_every", "N")] = None,
    val: Annotated[str | None, _option("val", "SPEC")] = None,
    image_size: Annotated[str | None, _option("image_size", "HxW")] = None,
    snap: Annotated[bool | None, _option("snap", None)] = None,
    device: Annotated[str | None, _option("device", "NAME")] = None,
    workers: Annotated[int | None, _option("workers", "N")] = None,
    imports: Import = None,
) -> None:
    """Train on a folder of images of which some have masks.

    Precedence, lowest first: defaults, RECIPE.yaml, options, KEY=VALUE. Every setting of a run can be given as
    KEY=VALUE; `fuzzyseg settings` lists them.

    \b
    Examples:
      fuzzyseg train --data photos --out runs/first
      fuzzyseg train --data photos --method cps --loss fuzzy --labelled 1/8 --steps 2000 --seed 0 --out runs/fuzzy
      fuzzyseg train --data photos --batch 4 --crop 256 --out runs/small optim.name=adamw optim.lr=0.001
    """
    words = words or []
    options = {name: context.params[name] for name in KEYS if context.params[name] is not None}
    config = settings(words, options, evaluate=not no_eval)  # a mistyped setting is reported before the slow imports
    from fuzzyseg.engine import NonFiniteLoss
    from fuzzyseg.experiment import train as run_training

    try:
        result = run_training(config, resume=resume)
    except NonFiniteLoss as error:
        raise Failure(str(error)) from error
    if not result.finished and os.environ.get("RANK", "0") == "0":
        words += [f"--import={file}" for file in imports or ()]
        typer.echo(f"to continue: {continuation(words, options, no_eval=no_eval, run=result.run)}")
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)


def settings(words: Sequence[str], options: Mapping[str, Any], *, evaluate: bool = True) -> Config:
    """The configuration: defaults < recipe < options (by their names in `KEYS`) < KEY=VALUE. Raises ConfigError."""
    words = [word for word in words if not word.startswith("--import=")]
    recipes = [word for word in words if "=" not in word]
    for word in recipes:
        if not word.endswith((".yaml", ".yml")):
            raise ConfigError(f"found {word!r}; expected a recipe.yaml or key=value, such as train.ema=0.998")
    if len(recipes) > 1:
        raise ConfigError(f"found {len(recipes)} recipes, {' and '.join(recipes)}; expected one")
    values = read_yaml(recipes[0]) if recipes else {}
    if "arms" in values:
        raise ConfigError(f"{recipes[0]}: compares several runs; use `fuzzyseg sweep {recipes[0]}`")
    if "start" in values:
        raise ConfigError(
            f"{recipes[0]}: has a section 'start', which is for `fuzzyseg sweep` and `fuzzyseg compare`; for a single "
            "run remove it, and give the initial weights with --init"
        )
    for name, value in options.items():
        values = override(values, KEYS[name].split("."), value)
    if not evaluate:
        values = override(values, ["train", "evaluate"], False)
    for word in words:
        if "=" in word:
            values = override(values, *parse_override(word))
    return validate(values)


def continuation(words: Sequence[str], options: Mapping[str, Any], *, no_eval: bool, run: Path) -> str:
    """The command that continues the run: the same without --stop-at and with --resume."""
    kept = {**options, "out": str(run)}
    kept.pop("stop_at", None)
    parts = [word for word in words if not word.startswith("train.stop_at=")]
    if settings(parts, kept).train.stop_at is not None:  # a recipe's
        parts.append("train.stop_at=")
    for name, value in kept.items():
        parts += [flag(name)] if value is True else [flag(name), str(value)]
    parts += ["--no-eval"] if no_eval else []
    start = "torchrun ... -m fuzzyseg" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else "fuzzyseg"
    return f"{start} train {shlex.join(parts)} --resume"
