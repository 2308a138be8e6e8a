"""`fuzzyseg split`: lists of labelled, unlabelled and validation images."""

from __future__ import annotations

from typing import Annotated

import typer

from fuzzyseg.config import Config, override, validate


def split(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Folder with images and masks; the layout is detected.")],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder for the lists and split.json.")],
    labelled: Annotated[
        str | None,
        typer.Option("--labelled", metavar="N|1/N|FILE", help="Labelled images: number or list; default: all."),
    ] = None,
    val: Annotated[
        str | None,
        typer.Option(
            "--val", metavar="SPEC", help="Validation: fraction, count, list, folder or none; default: as found."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of the order.")] = 0,
    policy: Annotated[
        str, typer.Option("--policy", metavar="NAME", help="cover: rarest classes first; random: reads no mask.")
    ] = "cover",
    group: Annotated[
        str | None,
        typer.Option(
            "--group",
            metavar="RULE",
            help="Keep images together: folder, prefix (the name without its trailing number), or a regular expression "
            "whose first group is the video, patient or scene.",
        ),
    ] = None,
) -> None:
    """Select labelled and validation images, and write the lists.

    The labelled images are the first N of one order per seed, so that smaller subsets are part of larger ones; the
    first ones cover all classes. `fuzzyseg train --labelled FILE --val FILE` reads the lists. `fuzzyseg settings data`
    lists further settings.

    \b
    Examples:
      fuzzyseg split photos --labelled 46 --out splits/46
      fuzzyseg split scans --labelled 1/8 --val 0.2 --group "(patient\\d+)" --out splits/eighth
      fuzzyseg train --data photos --labelled splits/46/labelled.txt --val splits/46/val.txt --out runs/a
    """
    from fuzzyseg.experiment.make_split import write_split

    settings = {"root": data, "labelled": labelled, "val": val, "policy": policy, "group": group}
    config: Config = validate(override({"seed": seed}, ["data"], settings))
    for note in write_split(config, out)[1]:
        typer.echo(note)
