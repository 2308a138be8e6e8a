"""The function that CVAT's auto-annotation loads, called as its driver does, without a server."""

import logging

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cvat_sdk", reason="needs cvat-sdk: pip install fuzzyseg[annotate]")

from cvat_sdk import models
from cvat_sdk.auto_annotation import driver
from cvat_sdk.masks import decode_mask
from pycocotools import mask as coco_masks

from fuzzyseg.data import DataError
from fuzzyseg.inference import Predictor, save_model
from fuzzyseg.integrations import cvat
from fuzzyseg.networks import build_network
from support.small_images import card, noise, predictor

CLASSES = ["road", "Background", "tree"]
SIZE = (21, 34)


def annotated(function, image, **asked):
    """The shapes as they would be uploaded to a task with the labels tree (7) and road (5), by its label."""
    labels = [models.Label(id=7, name="tree", type="any"), models.Label(id=5, name="road", type="any")]
    for label in labels:
        label.attributes, label.sublabels = [], []
    polygons = asked.get("conv_mask_to_poly", False)
    mapper = driver._AnnotationMapper(
        logging.getLogger(), function.spec.labels, labels, allow_unmatched_labels=False, conv_mask_to_poly=polygons
    )
    context = driver._DetectionFunctionContextImpl(frame_name="a.png", **asked)
    tags, shapes = mapper.validate_and_remap(function.detect(context, Image.fromarray(image)), 3)
    assert not tags
    assert {shape.frame for shape in shapes} == {3}
    return [({5: 0, 7: 2}[shape.label_id], shape) for shape in shapes]


@pytest.fixture
def model():
    return predictor(classes=CLASSES)


def drawn(shapes, of):
    result = np.full(SIZE, 1)
    for label, shape in shapes:
        result[of(shape.points)] = label
    return result


def test_masks_are_those_of_the_prediction(model):
    image = noise(*SIZE)
    shapes = annotated(cvat.Segmentation(model), image)
    assert len(shapes) == 2
    result = drawn(shapes, lambda points: decode_mask(points, image_width=SIZE[1], image_height=SIZE[0]))
    assert np.array_equal(result, model.labels(image).numpy())


def test_polygons_if_they_are_asked_for(model):
    pytest.importorskip("rasterio")
    image = noise(*SIZE)
    shapes = annotated(cvat.Segmentation(model), image, conv_mask_to_poly=True)
    result = drawn(shapes, lambda points: coco_masks.decode(coco_masks.frPyObjects([points], *SIZE))[..., 0] > 0)
    assert np.array_equal(result, model.labels(image).numpy())


def test_pixels_below_the_confidence_are_left_out(model):
    image = noise(*SIZE)
    shapes = annotated(cvat.Segmentation(model), image, conf_threshold=0.7)
    result = drawn(shapes, lambda points: decode_mask(points, image_width=SIZE[1], image_height=SIZE[0]))
    confidence, labels = model.logits(image).softmax(0).max(0)
    assert np.array_equal(result, np.where(confidence < 0.7, 1, labels))


def test_no_shape_of_a_class_that_is_not_there(model):
    model.network.encoder.bias.data[0] = -100
    assert {label for label, _ in annotated(cvat.Segmentation(model), noise(*SIZE))} == {2}


def test_the_run_is_a_parameter_or_in_the_environment(tmp_path, monkeypatch):
    network = build_network("FPN", "mobilenet_v2", weights="none", channels=3, classes=3)
    about = card(arch="FPN", encoder="mobilenet_v2")
    save_model(tmp_path / "run" / "model", network, card=about)
    image = noise(64, 64)
    expected = Predictor(network, about).labels(image).numpy()
    monkeypatch.delenv("FUZZYSEG_RUN", raising=False)
    with pytest.raises(DataError, match="FUZZYSEG_RUN"):
        cvat.create()
    given = cvat.create(run=str(tmp_path / "run"))
    monkeypatch.setenv("FUZZYSEG_RUN", str(tmp_path / "run"))
    for function in (given, cvat.create()):
        assert np.array_equal(function.predictor.labels(image).numpy(), expected)
        assert [label.name for label in function.spec.labels] == about.classes
