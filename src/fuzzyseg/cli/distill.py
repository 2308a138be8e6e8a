"""`fuzzyseg distill`: train a small network on a trained model's predictions."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from fuzzyseg.cli.options import Given, Import, Words, configuration, option, setting, takes
from fuzzyseg.cli.progress import counter
from fuzzyseg.cli.train import check_names, finish

OPTIONS = ("unlabelled", "loss", "arch", "encoder", "weights", "steps", "seed", "crop", "batch", "image_size")


@takes(
    *(setting(name, default=name not in ("crop", "batch")) for name in (*OPTIONS, "out", "device", "workers")),
    option(
        "labels",
        Path,
        metavar="DIR",
        help="Folder of the teacher's predictions, which several students can share. [default: RUN.labels]",
    ),
)
def distill(
    teacher: Annotated[str, typer.Argument(metavar="TEACHER_RUN", help="Run folder of the teacher.")],
    words: Words = None,
    *,
    resume: Annotated[bool, typer.Option("--resume", help="Continue RUN if it has a checkpoint.")] = False,
    imports: Import = None,
    given: Given,
) -> None:
    """Train a small network on a trained model's predictions.

    The teacher predicts each unlabelled image once. The student learns from these predictions and from the labels.
    --loss selects how: soft (default: all probabilities), hard (the most probable class) or fuzzy (sets of classes).
    Data, labelled images, crop and batch are taken from the teacher's run. Repeating the command predicts only the
    missing images.

    \b
    Examples:
      fuzzyseg distill runs/teacher --arch FPN --encoder mobilenet_v2 --steps 2000 --out runs/student
      fuzzyseg distill runs/teacher --encoder mobilenet_v2 --loss fuzzy --unlabelled more/ --out runs/student
    """
    labels = given.pop("labels", None)
    check_names(configuration(words or [], given, {"method": {"name": "distill"}}), imports)
    from fuzzyseg.experiment.distill import defaults
    from fuzzyseg.experiment.distill import distill as carry_out

    config = configuration(words or [], given, defaults(teacher))
    with ExitStack() as bar:
        show = bar.enter_context(counter("images", every=30))

        def progress(done: int, total: int) -> None:
            show(done, total)
            if done == total:  # training shows a separate bar
                bar.close()

        finish(lambda: carry_out(teacher, config, labels=labels, resume=resume, progress=progress), config, imports)
