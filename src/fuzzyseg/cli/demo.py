"""`fuzzyseg demo`: the main job on generated images, from nothing to a table and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for data, runs, pictures.")] = Path("demo"),
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed of data and training.")] = 0,
) -> None:
    """Learn generated images in three ways, and compare.

    Supervised, CPS, and CPS with FPL (fuzzy positive learning) start from the same supervised weights and take the same
    labelled steps. Prints a table of the three; draws predictions and K maps, in which a pixel is the brighter the more
    classes its fuzzy set holds. Takes a few minutes on two cores.
    """
    from fuzzyseg.experiment.demo import demo as carry_out

    carry_out(out, seed=seed, say=typer.echo)
