"""`fuzzyseg train`: turn options and overrides into a configuration, and train."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fuzzyseg.cli.errors import INTERRUPTED, Failure
from fuzzyseg.cli.options import SETTINGS, Given, Import, Words, flag, overridden, setting, takes
from fuzzyseg.config import Config, ConfigError, override, read_yaml, validate

OPTIONS = [name for name in SETTINGS if name not in ("policy", "group")]
"""The settings that have an option of `fuzzyseg train`."""


@takes(*map(setting, OPTIONS))
def train(
    words: Words = None,
    *,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue RUN if it holds a checkpoint, start it if not.")
    ] = False,
    no_eval: Annotated[
        bool, typer.Option("--no-eval", help="Never evaluate: no score, and no best checkpoint.")
    ] = False,
    imports: Import = None,
    given: Given,
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
    config = settings(words, given, evaluate=not no_eval)  # a mistyped setting is reported before the slow imports
    from fuzzyseg.engine.trainer import NonFiniteLoss
    from fuzzyseg.experiment import train as run_training

    try:
        result = run_training(config, resume=resume)
    except NonFiniteLoss as error:
        raise Failure(str(error)) from error
    if not result.finished and os.environ.get("RANK", "0") == "0":
        words += [f"--import={file}" for file in imports or ()]
        typer.echo(f"to continue: {continuation(words, given, no_eval=no_eval, run=result.run)}")
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)


def settings(words: Sequence[str], options: Mapping[str, Any], *, evaluate: bool = True) -> Config:
    """The configuration: defaults < recipe < options (by their names in `SETTINGS`) < KEY=VALUE. Raises ConfigError."""
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
    if not evaluate:
        values = override(values, ["train", "evaluate"], False)
    return validate(overridden(values, options, words))


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
