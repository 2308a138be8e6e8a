"""`fuzzyseg split`: write lists of labelled, unlabelled and validation images."""

from typing import Annotated

import typer

from fuzzyseg.cli.options import Given, Words, configuration, setting, takes


@takes(*map(setting, ("labelled", "val", "seed", "policy", "group")))
def split(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Folder with images and masks; the layout is detected.")],
    words: Words = None,
    *,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Output folder for the lists and split.json.")],
    given: Given,
) -> None:
    """Select labelled and validation images, and write the lists.

    The labelled images are the first N in an order that depends on the seed, so that larger subsets contain smaller
    ones; the first ones cover all classes. `fuzzyseg train --labelled FILE --val FILE` reads the lists. `fuzzyseg
    settings data` lists further settings.

    \b
    Examples:
      fuzzyseg split photos --labelled 46 --out splits/46
      fuzzyseg split scans --labelled 1/8 --val 0.2 --group "(patient\\d+)" --out splits/eighth
      fuzzyseg train --data photos --labelled splits/46/labelled.txt --val splits/46/val.txt --out runs/a
    """
    config = configuration(words or [], {"data": data, **given})
    from fuzzyseg.experiment.make_split import write_split

    for note in write_split(config, out)[1]:
        typer.echo(note)
