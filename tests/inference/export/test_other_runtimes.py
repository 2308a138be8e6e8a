"""Exports for segmentation_models_pytorch and OpenVINO give PyTorch's labels when loaded without fuzzyseg."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import pytest
import segmentation_models_pytorch
import torch

from fuzzyseg.data import DataError
from fuzzyseg.inference import Predictor
from fuzzyseg.inference.export import export_model
from fuzzyseg.networks import build_network
from support.small_images import card, item, noise
from support.tiny_network import TinyNetwork


@pytest.fixture
def items(tmp_path):
    mask = np.zeros((1, 1), np.uint8)
    return [item(tmp_path / "data", f"im{n}", noise(64 + 11 * n, 93, n), mask) for n in range(2)]


def test_an_smp_folder_is_loaded_by_smp_and_gives_the_same_labels(items, tmp_path):
    torch.manual_seed(0)
    network = build_network("FPN", "mobilenet_v2", weights="none", channels=3, classes=4)
    network.train()(torch.rand(4, 3, 64, 64))  # batch norm's statistics are no longer those of a new network
    predictor = Predictor(network.eval(), card(4, arch="FPN", encoder="mobilenet_v2"))
    found = export_model(predictor, items, tmp_path / "out", form="smp")
    assert found.equal == 1 and found.images == 2
    loaded = segmentation_models_pytorch.from_pretrained(str(tmp_path / "out")).eval()
    described = json.loads((tmp_path / "out" / "fuzzyseg.json").read_text())
    image = noise(96, 128, 9)
    mean, std = (torch.tensor(described[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        logits = loaded((torch.from_numpy(image).permute(2, 0, 1)[None] / 255 - mean) / std)
    assert torch.equal(logits.argmax(1)[0], predictor.labels(image).long())
    assert len(logits.argmax(1).unique()) > 1
    assert "from_pretrained" in (tmp_path / "out" / "README.md").read_text()


def test_a_network_whose_weights_smp_cannot_load_has_no_smp_export(items, tmp_path, monkeypatch):
    network = build_network("FPN", "mobilenet_v2", weights="none", channels=3, classes=3)
    monkeypatch.setattr(type(network), "loads_elsewhere", False)
    with pytest.raises(DataError, match="export it as onnx or pt2"):
        export_model(Predictor(network, card()), items, tmp_path / "out", form="smp")
    assert not (tmp_path / "out").exists()


def stub_openvino():
    """An openvino on top of onnxruntime; like OpenVINO on some CPUs, it rounds to bfloat16 unless told otherwise."""
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    stub = ModuleType("openvino")
    stub.__spec__ = ModuleSpec("openvino", None)

    def save_model(model, path, compress_to_fp16=True):
        assert not compress_to_fp16
        shutil.copy(model, path)
        path.with_suffix(".bin").touch()

    def compile_model(path, device, config=None):
        session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

        def run(inputs):
            logits, labels = session.run(["logits", "labels"], {"image": inputs[0]})
            if (config or {}).get("INFERENCE_PRECISION_HINT") != "f32":
                logits = torch.from_numpy(logits).bfloat16().float().numpy()
                labels = logits.argmax(1).astype(np.uint8)
            return {"logits": logits, "labels": labels}

        return run

    stub.convert_model, stub.save_model, stub.compile_model = lambda path: path, save_model, compile_model
    return stub


@pytest.mark.parametrize("kind", ["stub", "installed"])
def test_an_openvino_model_gives_the_same_labels(items, tmp_path, monkeypatch, kind):
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name, reason="needs the extra onnx")
    if kind == "stub":
        openvino = stub_openvino()
        monkeypatch.setitem(sys.modules, "openvino", openvino)
    else:
        openvino = pytest.importorskip("openvino", reason="needs the package openvino")
    torch.manual_seed(3)  # every class is predicted
    predictor = Predictor(TinyNetwork(classes=3).eval(), card(temperature=1.7))
    found = export_model(predictor, items, tmp_path / "out", form="openvino")
    assert found.equal > 0.9999 and found.largest < 1e-3 and len(found.sizes) > 2
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"model.xml", "model.bin", "model.onnx", "fuzzyseg.json", "README.md"}
    image = noise(101, 67, 9)
    model = openvino.compile_model(tmp_path / "out" / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    result = model([np.stack([image, image[::-1]]).transpose(0, 3, 1, 2)])
    torch.testing.assert_close(
        torch.from_numpy(np.asarray(result["logits"])[0]), predictor.logits(image) / 1.7, rtol=1e-3, atol=1e-3
    )
    assert len(predictor.labels(image).unique()) == 3
    for labels, each in zip(np.asarray(result["labels"]), (image, image[::-1].copy()), strict=True):
        assert (labels == predictor.labels(each).numpy()).mean() > 0.999
