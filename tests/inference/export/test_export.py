"""Exports compute what PyTorch computes, and one that does not is not left behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fuzzyseg.data import DataError
from fuzzyseg.data.io.image import Levels
from fuzzyseg.inference import Predictor
from fuzzyseg.inference.export import ExportError, export_model, formats
from fuzzyseg.inference.export.graph import Deployed
from support.small_images import card, item, noise
from support.tiny_network import TinyNetwork

RECORD = {"licences": {"code": "Apache-2.0", "backbone": "not declared", "data": "CC BY 4.0 (declared)"}}


class Divided(TinyNetwork):
    """Takes multiples of 4 only, as architectures with skip connections do."""

    divisor = 4

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[-2:]
        if height % 4 or width % 4:
            raise ValueError("multiples of 4")
        return 20 * super().forward(image)  # far from ties


@pytest.fixture
def predictor():
    torch.manual_seed(0)
    network = Divided(classes=3).eval()
    return Predictor(network, card(temperature=1.7, colours=[(1, 2, 3), (4, 5, 6), (7, 8, 9)], record=RECORD))


@pytest.fixture
def items(tmp_path):
    mask = np.zeros((1, 1), np.uint8)
    return [item(tmp_path / "data", f"im{n}", noise(70 + 11 * n, 93, n), mask) for n in range(2)]


def session_of(folder: Path):
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    return runtime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])


def needs_onnx():
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="needs the extra onnx")


@pytest.mark.skipif(torch.__version__ < "2.8", reason="export to ONNX needs PyTorch 2.8")
def test_one_onnx_file_serves_every_size_and_holds_the_facts(predictor, items, tmp_path):
    needs_onnx()
    found = export_model(predictor, items, tmp_path / "out", form="onnx")
    assert found.equal == 1 and found.largest < 1e-3 and found.sizes == [(70, 93), (64, 70), (64, 64), (81, 93)]
    session = session_of(tmp_path / "out")
    for size in ((5, 7), (64, 64), (101, 67)):
        image = noise(*size)
        logits, labels = session.run(None, {"image": np.stack([image, image[::-1]]).transpose(0, 3, 1, 2)})
        expected = predictor.logits(image)
        torch.testing.assert_close(torch.from_numpy(logits[0]), expected / 1.7, rtol=1e-3, atol=1e-3)
        assert (labels[0] == expected.argmax(0).numpy()).mean() > 0.999
        assert (labels[1] == predictor.labels(image[::-1].copy()).numpy()).mean() > 0.999
    facts = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert facts["classes"] == ["class0", "class1", "class2"] and facts["colours"][1] == [4, 5, 6]
    assert facts["mean"] == predictor.card.mean and facts["window"] is None and facts["temperature"] == 1.7
    assert facts["licences"] == RECORD["licences"] and facts["input"].startswith("uint8")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "CC BY 4.0 (declared)" in text and "100.0000 % of the labels" in text
    assert "softmax(logits)" in text  # the graph has divided them


@pytest.mark.skipif(torch.__version__ < "2.8", reason="export to ONNX needs PyTorch 2.8")
def test_a_static_export_takes_one_size_and_is_compared_in_windows(predictor, items, tmp_path):
    needs_onnx()
    found = export_model(predictor, items, tmp_path / "out", form="onnx", static=(32, 48))
    assert found.sizes == [(32, 48)] and found.equal == 1
    assert [side for side in session_of(tmp_path / "out").get_inputs()[0].shape if isinstance(side, int)] == [3, 32, 48]
    with pytest.raises(DataError, match="multiples of 4"):
        export_model(predictor, items, tmp_path / "other", form="onnx", static=(30, 48))


def test_the_size_that_images_are_resized_to_is_the_size_of_the_export(predictor, items, tmp_path):
    resized = Predictor(predictor.network, replace(predictor.card, image_size=(40, 52)))
    found = export_model(resized, items, tmp_path / "out", form="pt2")
    assert found.sizes == [(40, 52)] and found.equal == 1
    with pytest.raises(DataError, match="resizes images to"):
        export_model(resized, items, tmp_path / "other", form="pt2", static=(32, 48))


def test_a_pt2_archive_runs_without_fuzzyseg(predictor, items, tmp_path):
    export_model(predictor, items, tmp_path / "out", form="pt2")
    extra = {"fuzzyseg.json": ""}
    program = torch.export.load(tmp_path / "out" / "model.pt2", extra_files=extra).module()
    image = noise(50, 81)
    logits, labels = program(torch.from_numpy(image).permute(2, 0, 1)[None].contiguous())
    torch.testing.assert_close(logits[0], predictor.logits(image) / 1.7)
    assert torch.equal(labels[0].long(), predictor.labels(image))
    assert json.loads(json.loads(extra["fuzzyseg.json"])["std"]) == predictor.card.std


def test_values_of_the_files_are_scaled_inside(tmp_path):
    levels = Levels((100.0, 0.0, 50.0), (900.0, 4000.0, 51.0))
    torch.manual_seed(1)
    predictor = Predictor(Divided(classes=3).eval(), card(levels=levels))
    values = np.random.default_rng(0).uniform(0, 1000, (12, 16, 3)).astype(np.float64)
    values[2, 3, 1] = np.nan
    logits, _ = Deployed(predictor, None)(torch.tensor(values, dtype=torch.float32).permute(2, 0, 1)[None])
    expected = predictor.logits(levels.units(values, Path("x")))
    torch.testing.assert_close(logits[0], expected, rtol=1e-3, atol=1e-2)


@pytest.mark.skipif(torch.__version__ < "2.8", reason="export to ONNX needs PyTorch 2.8")
def test_an_export_that_differs_is_not_left_behind_and_its_operation_is_named(predictor, items, tmp_path, monkeypatch):
    needs_onnx()
    import onnx
    from onnx import numpy_helper

    write = formats.FORMATS["onnx"]

    def damaged(model, source, folder):
        write(model, source, folder)
        content = onnx.load(folder / "model.onnx")
        (weight,) = [each for each in content.graph.initializer if each.name.endswith("head.weight")]
        weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
        onnx.save(content, folder / "model.onnx")
        session = session_of(folder)
        return lambda image: tuple(map(torch.from_numpy, session.run(None, {"image": image.numpy()})))

    monkeypatch.setitem(formats.FORMATS, "onnx", damaged)
    with pytest.raises(ExportError, match=r"may differ. Look at image 'im\d'.*first operation.*network.head") as error:
        export_model(predictor, items, tmp_path / "out", form="onnx")
    assert not [path for path in tmp_path.iterdir() if path.name != "data"]
    assert "differs is Conv" in str(error.value)
    found = export_model(predictor, items, tmp_path / "out", form="onnx", tolerance=1.0)
    assert found.equal < 0.9999


def test_a_folder_of_the_users_is_not_replaced(predictor, items, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").touch()
    with pytest.raises(DataError, match="not an earlier export"):
        export_model(predictor, items, tmp_path / "out", form="pt2")
    assert (tmp_path / "out" / "thesis.txt").is_file()


def test_what_is_missing_is_said_before_anything_is_written(predictor, items, tmp_path, monkeypatch):
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"onnxruntime.*fuzzyseg\[onnx\]"):
        export_model(predictor, items, tmp_path / "out", form="onnx")
    with pytest.raises(DataError, match="pip install openvino"):
        export_model(predictor, items, tmp_path / "out", form="openvino")
    with pytest.raises(DataError, match="your own, which smp cannot load"):
        export_model(predictor, items, tmp_path / "out", form="smp")
    assert not (tmp_path / "out").exists()


def test_a_network_that_cannot_be_traced_is_told_what_to_do(items, tmp_path):
    class Reading(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Conv2d(3, 3, 1)

        def forward(self, image):
            return self.encoder(image) * float(image.sum().item() > 0)

    with pytest.raises(ValueError, match=r"cannot trace the network .*--static HxW"):
        export_model(Predictor(Reading(), card()), items, tmp_path / "out", form="pt2")
