"""Search for the first operation of an ONNX file that differs from PyTorch."""

from pathlib import Path
from typing import Any

import torch
from torch import fx

from fuzzyseg.inference.export.graph import INPUT, Deployed

LIMIT = 1e-2
"""Difference, relative to the largest value, above which an operation is reported."""


class _Recorder(fx.Interpreter):
    """Interpreter that keeps the result of every node."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.results: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.results[n.name] = result = super().run_node(n)
        return result


def first_difference(file: Path, model: Deployed) -> str:
    """Return `; the first operation that differs is ...`, or an empty string if none does on random values.

    The exporter names values as torch.export names its nodes, so both can be compared by name.
    """
    import onnx
    import onnxruntime

    content = onnx.load(file)
    recorder = _Recorder(model.program().module())
    image = model.example()
    with torch.no_grad():
        recorder.run(image)
    named = [(node, name) for node in content.graph.node for name in node.output if name in recorder.results]
    content.graph.output.extend(onnx.ValueInfoProto(name=name) for _, name in named)
    session = onnxruntime.InferenceSession(content.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = session.run([name for _, name in named], {INPUT: image.numpy()})
    for (node, name), value in zip(named, outputs, strict=True):
        expected = recorder.results[name]
        if isinstance(expected, torch.Tensor) and expected.is_floating_point():
            expected, value = expected.float(), torch.from_numpy(value)
            if expected.shape != value.shape or not (expected - value).abs().max() <= LIMIT * expected.abs().max():
                scope = next((each.value for each in node.metadata_props if each.key.endswith("name_scopes")), "")
                return f"; the first operation that differs is {node.op_type} {name} of {scope}"
    return ""
