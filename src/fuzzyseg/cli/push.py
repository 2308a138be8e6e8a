"""`fuzzyseg push`: upload a trained model to the Hugging Face hub."""

from pathlib import Path
from typing import Annotated

import typer


def push(
    source: Annotated[Path, typer.Argument(metavar="RUN|MODEL", help="A run folder or a model/ or best/ folder.")],
    name: Annotated[str, typer.Argument(metavar="USER/NAME", help="Model repository on the hub; created if missing.")],
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
) -> None:
    """Upload a trained model to the Hugging Face hub.

    Uploads the weights and the model card, and no data. `fuzzyseg.load("USER/NAME")` loads it on another machine.

    \b
    Example:
      fuzzyseg push runs/first anna/street-scenes --private
    """
    from fuzzyseg.inference.hub import upload

    typer.echo(f"uploaded to {upload(source, name, private=private)}")
