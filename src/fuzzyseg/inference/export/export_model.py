"""Creation of an export folder: the model in one format, its card, and the result of the comparison with PyTorch."""

from collections.abc import Sequence
from pathlib import Path

from fuzzyseg.data import DataError, Item
from fuzzyseg.data.sample import Size
from fuzzyseg.inference.export.formats import FORMATS, Run
from fuzzyseg.inference.export.graph import Deployed
from fuzzyseg.inference.export.trace import first_difference
from fuzzyseg.inference.export.verify import Agreement, ExportError, compare
from fuzzyseg.inference.model import replacing_folder
from fuzzyseg.inference.model_card import CARD_NAME
from fuzzyseg.inference.predictor import Predictor
from fuzzyseg.inference.readme import readme

USE = {
    "onnx": "`model.onnx`, for onnxruntime and others",
    "pt2": '`model.pt2`: `torch.export.load("model.pt2").module()`',
    "openvino": "`model.xml` with `model.bin`, for OpenVINO",
    "smp": '`segmentation_models_pytorch.from_pretrained("THIS_FOLDER")`; normalise as stated under Input',
}
MIN_SIDE = 64
"""Minimum side of the images on which an export with dynamic input size is compared."""


def fixed_size(predictor: Predictor, static: Size | None) -> Size | None:
    """Return the fixed input size, if any: `static`, `image_size`, or DPT's training crop. Raises DataError."""
    card = predictor.card
    if static is not None and card.image_size not in (None, static):
        raise DataError(f"--static: found {static}; this model resizes images to {card.image_size}")
    divisor = int(getattr(predictor.network, "divisor", 1))
    if static is not None and any(side % divisor for side in static):
        raise DataError(f"--static: found {static[0]}x{static[1]}; the network accepts multiples of {divisor}")
    return static or card.image_size or (card.crop if card.arch == "DPT" else None)


def export_model(
    predictor: Predictor,
    items: Sequence[Item],
    out: Path,
    *,
    form: str,
    static: Size | None = None,
    tolerance: float = 1e-4,
) -> Agreement:
    """Export a model to the folder `out`, and return its agreement with PyTorch on `items` (no masks needed).

    form: a key of `FORMATS`. static: fixed (H, W) of the input; see `fixed_size`. tolerance: maximum fraction of labels
    that may differ. Raises DataError if the model cannot be exported to this format, a package is missing, `items` is
    empty, or `out` contains something other than an earlier export; ExportError if more labels than `tolerance` differ.
    After an error, `out` is unchanged.
    """
    if out.exists() and not ((out / CARD_NAME).is_file() or (out.is_dir() and not any(out.iterdir()))):
        raise DataError(f"{out}: is not an earlier export and would be overwritten; choose another --out")
    if not items:
        raise DataError("found no images to compare the export with PyTorch; give --data DIR")
    size = fixed_size(predictor, static)
    model = Deployed(predictor, size)
    with replacing_folder(out) as part:
        run: Run = FORMATS[form](model, predictor, part)
        agreement = compare(predictor, model, run, items, (MIN_SIDE, MIN_SIDE))
        if 1 - agreement.equal > tolerance:
            place = first_difference(part / "model.onnx", model) if form == "onnx" else ""
            raise ExportError(
                f"{out}: not written: {agreement.describe()}; at most {100 * tolerance:g} % may differ. Look at image "
                f"{agreement.worst!r}, where {100 * agreement.worst_differing:.4f} % differ{place}"
            )
        predictor.card.write(part)
        shape = "height and width of your choice" if size is None else f"height x width {size[0]}x{size[1]}"
        use = [
            f"Use: {USE[form]}. Input: (batch, channels, height, width), {shape}.",
            "",
            f"Checked: {agreement.describe()}.",
        ]
        (part / "README.md").write_text(
            readme(predictor.card, predictor.network, use, in_graph=form != "smp"), encoding="utf-8"
        )
    return agreement
