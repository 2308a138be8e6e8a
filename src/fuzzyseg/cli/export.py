"""`fuzzyseg export`: export a trained model for use without fuzzyseg."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from fuzzyseg.cli.errors import Failure
from fuzzyseg.cli.options import Given, option, parse, takes
from fuzzyseg.config import parse_size


@takes(
    option("format", Literal["onnx", "pt2", "openvino", "smp"], "onnx", help="Format."),
    option("out", Path, metavar="DIR", help="Output folder. [default: export/FORMAT in the run folder]"),
    option("static", str, metavar="HxW", help="Fixed input size. [default: any; vision transformers: the crop]"),
    option("data", str, metavar="DIR", help="Images for the comparison. [default: the run's validation images]"),
    option("images", int, 50, min=1, metavar="N", help="Maximum number of images to compare."),
    option("tolerance", float, 0.01, min=0, metavar="PERCENT", help="Maximum fraction of labels that may differ."),
)
def export(
    source: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run folder or a model/ folder.")],
    *,
    given: Given,
) -> None:
    """Export a trained model, and compare it with PyTorch.

    Normalisation and upsampling are part of the file. If its labels on your images differ from PyTorch's, the export
    fails and nothing is written.

    \b
    Examples:
      fuzzyseg export runs/first
      fuzzyseg export runs/first --format pt2 --static 512x512 --out shipped
    """
    parse(given, "static", parse_size)
    from fuzzyseg.experiment import export as carry_out
    from fuzzyseg.inference.export import ExportError

    given["tolerance"] /= 100
    try:
        out, agreement = carry_out(source, form=given.pop("format"), **given)
    except ExportError as error:
        raise Failure(str(error)) from None
    typer.echo(f"{agreement.describe()}; written to {out}")
