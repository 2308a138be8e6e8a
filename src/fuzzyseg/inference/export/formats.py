"""Writers for the export formats. Each writes a model to a folder and returns a function that runs it."""

import importlib.util
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fuzzyseg.data import DataError
from fuzzyseg.inference.export.graph import INPUT, OUTPUTS, Deployed, min_size
from fuzzyseg.inference.predictor import Predictor
from fuzzyseg.networks import Segmenter
from fuzzyseg.networks.weights import save_network

OPSET = 18
Run = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Function from image values (B,Cin,H,W) to logits (B,C,H,W) and labels (B,H,W)."""


def metadata(model: Deployed, predictor: Predictor, minimum_size: list[int]) -> dict[str, str]:
    """Return the metadata to store in the exported file, as JSON strings by name."""
    card = predictor.card
    ranged = card.levels is not None and card.levels.low is not None
    float_values = "the values of the image files" if ranged else "values in [0, 1]"
    values: dict[str, Any] = {
        **{name: value for name, value in asdict(card).items() if name not in ("record", "value_range")},
        "licences": (card.record or {}).get("licences"),
        "window": model.size,
        "least_size": minimum_size,
        "input": "uint8, 0 to 255" if model.dtype == torch.uint8 else f"float32, {float_values}",
        "outputs": "logits (their softmax gives the probabilities) and labels, both with the size of the input",
        "resizing": card.resizing,
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}


def write_onnx(model: Deployed, predictor: Predictor, folder: Path) -> Run:
    """Write model.onnx with torch's dynamo exporter. Returns a function that runs it."""
    require("onnx", "onnxscript", "onnxruntime", extra="onnx")
    if torch.__version__ < "2.8":  # its exporter fails on batch norm and dynamic sizes
        raise ValueError(f"export to ONNX: found PyTorch {torch.__version__}; expected 2.8 or newer")
    import onnx
    import onnxruntime

    program, file = model.program(), folder / "model.onnx"
    written = torch.onnx.export(
        program, dynamo=True, opset_version=OPSET, input_names=[INPUT], output_names=OUTPUTS, verbose=False
    )
    assert written is not None
    written.model.metadata_props.update(metadata(model, predictor, min_size(program)))
    written.save(file)
    onnx.checker.check_model(file)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> tuple[Tensor, Tensor]:
        logits, labels = session.run(list(OUTPUTS), {INPUT: image.numpy()})
        return torch.from_numpy(logits), torch.from_numpy(labels)

    return run


def write_pt2(model: Deployed, predictor: Predictor, folder: Path) -> Run:
    """Write model.pt2, a torch.export archive. Returns a function that runs it."""
    program, file = model.program(), folder / "model.pt2"
    extra = {"fuzzyseg.json": json.dumps(metadata(model, predictor, min_size(program)), ensure_ascii=False)}
    torch.export.save(program, file, extra_files=extra)
    loaded = torch.export.load(file).module()

    def run(image: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return loaded(image)  # type: ignore[no-any-return]

    return run


def write_openvino(model: Deployed, predictor: Predictor, folder: Path) -> Run:
    """Write model.onnx, and model.xml and model.bin converted from it. Returns a function that runs the latter."""
    require("openvino", extra=None)
    import openvino

    write_onnx(model, predictor, folder)
    converted = openvino.convert_model(folder / "model.onnx")
    openvino.save_model(converted, folder / "model.xml", compress_to_fp16=False)
    # on CPUs with bfloat16, OpenVINO otherwise rounds to it, and some labels differ
    compiled = openvino.compile_model(folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(image: Tensor) -> tuple[Tensor, Tensor]:
        outputs = compiled([image.numpy()])
        logits, labels = (torch.from_numpy(np.asarray(outputs[name])) for name in OUTPUTS)
        return logits, labels

    return run


def write_smp(model: Deployed, predictor: Predictor, folder: Path) -> Run:
    """Write a folder for smp's `from_pretrained`, without pre- and postprocessing. Returns a function that runs it."""
    from segmentation_models_pytorch import from_pretrained

    network = predictor.network
    if not isinstance(network, Segmenter) or not network.loads_elsewhere:
        what = "has patches of a size that smp's DPT" if isinstance(network, Segmenter) else "is your own, which smp"
        raise DataError(f"the network {what} cannot load; export it as onnx or pt2")
    save_network(network, folder)
    loaded = Segmenter(from_pretrained(str(folder)).eval())
    deployed = Deployed(Predictor(loaded, predictor.card), model.size)

    def run(image: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return deployed(image)  # type: ignore[no-any-return]

    return run


FORMATS: dict[str, Callable[[Deployed, Predictor, Path], Run]] = {
    "onnx": write_onnx,
    "pt2": write_pt2,
    "openvino": write_openvino,
    "smp": write_smp,
}


def require(*packages: str, extra: str | None) -> None:
    """Raise DataError with the install command if a package is missing."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        command = f"pip install 'fuzzyseg[{extra}]'" if extra else f"pip install {' '.join(missing)}"
        raise DataError(f"this export needs {', '.join(missing)}, which is not installed: {command}")
