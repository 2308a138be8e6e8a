"""`fuzzyseg train`: build the configuration from options and overrides, and train."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from fuzzyseg.cli.errors import INTERRUPTED, Failure
from fuzzyseg.cli.methods import known
from fuzzyseg.cli.options import Given, Import, Words, configuration, setting, takes
from fuzzyseg.config import Config, ConfigError, check_known, unknown
from fuzzyseg.config.short_names import SETTINGS
from fuzzyseg.run.environment import process_number

OPTIONS = [name for name in SETTINGS if name not in ("policy", "group")]
"""Settings that have an option in `fuzzyseg train`."""


@takes(*map(setting, OPTIONS))
def train(
    words: Words = None,
    *,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue RUN if it has a checkpoint; otherwise start it.")
    ] = False,
    no_eval: Annotated[bool, typer.Option("--no-eval", help="Never evaluate: no score, no best checkpoint.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Run three steps, report time and memory, and write no run folder.")
    ] = False,
    imports: Import = None,
    given: Given,
) -> None:
    """Train on a folder of images, some of which have masks.

    Precedence, lowest first: defaults, RECIPE.yaml, options, KEY=VALUE. Every setting of a run can be given as
    KEY=VALUE; `fuzzyseg settings` lists them, docs/which-settings.md explains which to choose.

    \b
    Examples:
      fuzzyseg train --data photos --out runs/first
      fuzzyseg train --data photos --method cps --loss fuzzy --labelled 1/8 --steps 2000 --seed 0 --out runs/fuzzy
      fuzzyseg train --data photos --batch 4 --crop 256 --out runs/small optim.name=adamw optim.lr=0.001
    """
    words = [*(["train.evaluate=false"] if no_eval else []), *(words or [])]
    config = configuration(words, given)
    check_names(config, imports)
    from fuzzyseg.experiment import train as run_training

    if dry_run:
        run_training(config, resume=resume, dry_run=True)
        return
    finish(lambda: run_training(config, resume=resume), config, imports)


def check_names(config: Config, imports: list[Path] | None) -> None:
    """Raise ConfigError for an unknown method, loss or method setting, before torch is imported."""
    methods, losses = known(imports)
    check_known("method", config.method.name, methods)
    check_known("loss", config.loss.name, losses)
    for key in config.method.options:
        if key not in (known_settings := methods[config.method.name]["settings"]):
            raise ConfigError(unknown(f"method.{key}", known_settings))


def finish(training: Callable[[], Any], config: Config, imports: list[Path] | None) -> None:
    """Run `training`. If it stops early, print the command that resumes it."""
    from fuzzyseg.engine import NonFiniteLoss

    try:
        result = training()
    except NonFiniteLoss as error:
        raise Failure(str(error)) from error
    if not result.finished and process_number("RANK") == 0:
        start = "torchrun ... -m fuzzyseg" if process_number("WORLD_SIZE", 1) > 1 else "fuzzyseg"
        goal = [] if config.train.stop_at is None else ["train.stop_at="]
        files = [f"--import={file}" for file in imports or ()]
        again = [str(result.run / "config.yaml"), f"--out={result.run}", *goal, *files, "--resume"]
        typer.echo(f"to continue: {start} train {shlex.join(again)}")
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)
