"""Predictions have the size of the file and do not depend on how the image was cut up."""

import random
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuzzyseg.data import DataError, Item, Reader
from fuzzyseg.data.io.image import Levels
from fuzzyseg.inference import ModelCard, Predictor, Protocol
from fuzzyseg.inference import predictor as room
from fuzzyseg.inference.sliding_window import average_windows, starts
from fuzzyseg.networks import build_network
from support.small_images import MEAN, STD, PointNetwork, card, noise, predictor, write


def normalised(image) -> Tensor:
    pixels = torch.tensor(image).permute(2, 0, 1)[None].float() / 255
    return (pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def test_logits_are_the_networks_on_the_normalised_image() -> None:
    network = PointNetwork()
    image = noise(20, 31)
    with torch.no_grad():
        expected = network(normalised(image))[0]
    result = predictor(network).logits(image)
    torch.testing.assert_close(result, expected)
    assert not result.requires_grad
    torch.testing.assert_close(predictor(network).logits(torch.tensor(image).permute(2, 0, 1)), expected)
    assert torch.equal(predictor(network).labels(image), expected.argmax(0))


@pytest.mark.parametrize("kind", [str, Path, PIL.Image.fromarray])
def test_a_file_and_a_pil_image_are_read_as_the_array(tmp_path, kind) -> None:
    model, image = predictor(PointNetwork()), noise(20, 31)
    PIL.Image.fromarray(image).save(tmp_path / "a.png")
    given = kind(image if kind is PIL.Image.fromarray else tmp_path / "a.png")
    assert torch.equal(model.labels(given), model.labels(image))
    assert torch.equal(model.logits(given), model.logits(image))
    assert model.classes == model.card.classes


@pytest.mark.parametrize("call", ["labels", "logits", "predict"])
@pytest.mark.parametrize("kind", [str, Path, PIL.Image.open])
def test_a_file_of_twelve_bits_for_a_model_of_eight_is_warned_of_once(tmp_path, caplog, kind, call) -> None:
    path = tmp_path / "deep.png"
    PIL.Image.fromarray(noise(20, 31)[..., 0].astype(np.uint16) << 4).save(path)
    model = predictor(PointNetwork())
    for _ in range(2):
        getattr(model, call)(kind(path))
    assert [record.message.count("(12 bits)") for record in caplog.records] == [1]
    assert str(path) in caplog.text


def test_files_like_those_of_the_training_are_not_warned_of(tmp_path, caplog) -> None:
    PIL.Image.fromarray(noise(20, 31)).save(tmp_path / "a.png")
    PIL.Image.fromarray(noise(20, 31)[..., 0].astype(np.uint16) << 8).save(tmp_path / "deep.png")
    model = predictor(PointNetwork())
    for given in (tmp_path / "a.png", tmp_path / "deep.png", PIL.Image.fromarray(noise(20, 31))):
        model.labels(given)
    assert not caplog.records


def test_values_are_measured_in_the_first_file_of_a_dtype(tmp_path, monkeypatch) -> None:
    measured = []
    monkeypatch.setattr(ModelCard, "range_warnings", lambda card, items: measured.append(items[0].image.name) or [])
    model = predictor(PointNetwork())
    for number in range(3):
        PIL.Image.fromarray(noise(20, 31)[..., 0].astype(np.uint16) << 8).save(tmp_path / f"deep{number}.png")
        PIL.Image.fromarray(noise(20, 31)).save(tmp_path / f"usual{number}.png")
        model.labels(tmp_path / f"deep{number}.png")
        model.labels(tmp_path / f"usual{number}.png")
    PIL.Image.fromarray(noise(20, 31)).save(tmp_path / "a.tga")  # of a kind that only the caller can open
    model.labels(PIL.Image.open(tmp_path / "a.tga"))
    assert measured == ["deep0.png", "usual0.png"]


@pytest.mark.parametrize("orientation", [1, 2, 6, 7])
def test_a_pil_image_is_turned_as_its_file_is(tmp_path, orientation) -> None:
    model, image = predictor(PointNetwork()), PIL.Image.fromarray(noise(20, 31))
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.jpg", exif=exif)
    with PIL.Image.open(tmp_path / "a.jpg") as opened:
        result = model.labels(opened)
    assert torch.equal(result, model.labels(tmp_path / "a.jpg"))
    assert tuple(result.shape) == ((31, 20) if orientation > 4 else (20, 31))


@pytest.mark.parametrize("mode", ["P", "RGBA", "L", "CMYK", "1", "LA", "I;16"])
def test_other_modes_are_converted_as_files_are(tmp_path, mode) -> None:
    model, image = predictor(PointNetwork()), PIL.Image.fromarray(noise(20, 31))
    image = PIL.Image.fromarray(noise(20, 31)[..., 0].astype("uint16") << 8) if mode == "I;16" else image.convert(mode)
    file = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(file)
    assert torch.equal(model.labels(image), model.labels(file))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ([[1, 2]], "type list"),
        (PIL.Image.new("F", (8, 8)), "the image: found 32-bit pixels"),
        ("no_such.png", "no_such.png"),
        (np.zeros((8, 8, 3)), "type float64"),
        (np.zeros((8, 8), np.uint8), "shape .8, 8."),
        (np.zeros((0, 8, 3), np.uint8), "shape .0, 8, 3."),
        (torch.zeros((3, 8, 0), dtype=torch.uint8), "shape .3, 8, 0."),
        (np.full((8, 8, 3), "x", object), "type object"),
    ],
)
def test_other_images_are_errors_in_our_words(image, words) -> None:
    with pytest.raises((DataError, FileNotFoundError), match=words):
        predictor(PointNetwork()).labels(image)


def test_a_turned_view_of_an_array_is_an_image() -> None:
    model, image = predictor(PointNetwork()), noise(20, 31)
    assert torch.equal(model.labels(image[::-1, :, ::-1]), model.labels(image[::-1, :, ::-1].copy()))


@pytest.mark.parametrize("levels", [Levels((10.0,) * 3, (200.0,) * 3), Levels((0.0,) * 3, (4095.0,) * 3), Levels()])
def test_levels_hold_for_arrays_as_for_files(tmp_path, levels) -> None:
    model, image = predictor(PointNetwork(), levels=levels), noise(20, 31)
    PIL.Image.fromarray(image).save(tmp_path / "a.png")
    expected = model.logits(tmp_path / "a.png")
    assert torch.equal(model.logits(image), expected)
    assert torch.equal(model.logits(torch.from_numpy(image).movedim(-1, 0)), expected)
    with pytest.raises(DataError, match=r"shape .20, 31."):
        model.logits(image[..., 0].astype(np.uint16))


@pytest.mark.parametrize("size", [(37, 50), (64, 32), (5, 3), (1, 1)])
def test_any_size_is_padded_for_the_network_and_cropped(size: tuple[int, int]) -> None:
    network = PointNetwork(divisor=32)
    image = noise(*size)
    result = predictor(network).logits(image)
    assert network.sizes == [tuple(-(-side // 32) * 32 for side in size)]
    with torch.no_grad():
        torch.testing.assert_close(result, 3 * network.encoder(normalised(image))[0])


def test_padding_keeps_pixels_in_place() -> None:
    """Up-sampling happens before the padding is cut off, and stretches nothing."""

    class Coarse(PointNetwork):
        def forward(self, image: Tensor) -> Tensor:
            return F.interpolate(super().forward(image), scale_factor=0.25, mode="area")

    ramp = torch.linspace(0, 255, 40).byte().expand(3, 40, 40)
    network = Coarse(divisor=16)
    result = predictor(network).logits(ramp)
    whole = F.pad(ramp, (0, 8, 0, 8), mode="replicate")
    expected = predictor(network).logits(whole)[:, :40, :40]
    torch.testing.assert_close(result, expected)


def test_segmenter_takes_odd_sizes() -> None:
    network = build_network("FPN", "mobilenet_v2", weights="none", channels=3, classes=3)
    assert predictor(network).labels(noise(45, 70)).shape == (45, 70)


def test_modes_of_parts_come_back() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5))
    network.train()
    network[0].eval()  # frozen batch norm
    model = predictor(network)
    before = network[0].running_mean.clone()
    first, second = model.logits(noise(8, 8)), model.logits(noise(8, 8))
    assert torch.equal(first, second)
    assert torch.equal(before, network[0].running_mean)
    assert (network.training, network[0].training, network[1].training) == (True, False, True)


def test_image_size_is_that_of_the_reader(tmp_path) -> None:
    """Resized as in training (PIL's rounding may differ by one level), and back to the size of the file."""
    image = noise(50, 70)
    file = write(tmp_path / "a.png", image)
    network = PointNetwork()
    seen: list[Tensor] = []
    network.encoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    logits = predictor(network, image_size=(20, 28)).logits(image)
    assert logits.shape == (3, 50, 70)
    reader = Reader(channels=3, classes=3, ignore_index=255, image_size=(20, 28))
    expected, _ = reader.read(Item(file, None, "a"), with_mask=False)
    pixels = seen[0][0] * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    assert (pixels * 255 - expected).abs().max() <= 1.01
    small = predictor(network).training_logits(expected)
    back = F.interpolate(small[None], size=(50, 70), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(logits, back, rtol=0, atol=0.1)


def test_starts_cover_the_axis_two_thirds_apart() -> None:
    assert starts(10, 10) == [0]
    assert starts(7, 10) == [0]
    assert starts(20, 9) == [0, 6, 11]
    assert starts(21, 9) == [0, 6, 12]
    assert starts(5, 1) == [0, 1, 2, 3, 4]
    for length in range(1, 60):
        for window in range(1, length + 1):
            result = starts(length, window)
            assert {p for s in result for p in range(s, s + window)} == set(range(length))
            assert len(result) == len(set(result))


@pytest.mark.parametrize("window", [(24, 30), (7, 11), (50, 10), (100, 100), (1, 64)])
def test_windows_average_by_hits_in_any_order(window: tuple[int, int]) -> None:
    """Against a literal loop over the windows in random order; what a window sees depends on the window."""
    image = torch.rand(2, 3, 50, 64)

    def predict(part: Tensor) -> Tensor:
        return torch.cat([part * part.mean((2, 3), keepdim=True), part[:, :1].cumsum(-1)], 1)

    tall, wide = min(window[0], 50), min(window[1], 64)
    total, hits = torch.zeros(2, 4, 50, 64), torch.zeros(50, 64)
    places = [(y, x) for y in starts(50, tall) for x in starts(64, wide)]
    random.Random(0).shuffle(places)
    for y, x in places:
        total[..., y : y + tall, x : x + wide] += predict(image[..., y : y + tall, x : x + wide])
        hits[y : y + tall, x : x + wide] += 1
    bands = list(average_windows((50, 64), window, lambda box: predict(image[..., box[0] : box[2], box[1] : box[3]])))
    torch.testing.assert_close(torch.cat(bands, 2), total / hits)
    assert max(band.shape[2] for band in bands) <= tall


@pytest.mark.parametrize("mode", ["logits", "labels"])
def test_sliding_equals_whole_where_pixels_are_seen_alone(mode: str) -> None:
    model, image = predictor(PointNetwork(divisor=8)), noise(70, 95)
    whole, sliding = (getattr(model, mode)(image, Protocol(m)) for m in ("whole", "sliding"))
    if mode == "logits":
        torch.testing.assert_close(sliding.softmax(0), whole.softmax(0))
    else:
        assert (sliding == whole).float().mean() > 0.999  # ties in rounding


def test_sliding_of_constant_logits_equals_whole() -> None:
    class Constant(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            logits = torch.tensor([0.3, -1.0, 2.0]).view(1, 3, 1, 1)
            return logits.expand(len(image), 3, image.shape[2] // 4 + 1, image.shape[3] // 4 + 1)

    model, image = predictor(Constant()), noise(53, 77)
    protocol = Protocol("sliding", (16, 20), (0.5, 1.0, 1.75), True)
    torch.testing.assert_close(model.logits(image, protocol).softmax(0), model.logits(image).softmax(0))
    assert (model.labels(image, protocol) == 2).all()


def test_large_images_are_cut_up_without_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_PIXELS", 40 * 40)
    monkeypatch.setattr(room, "TILE", (32, 32))
    network = PointNetwork()
    model = predictor(network)
    image = noise(90, 61)
    labels, logits = model.labels(image), model.logits(image)
    assert set(network.sizes) == {(32, 32)}
    model.labels(noise(40, 40))
    assert network.sizes[-1] == (40, 40)
    with torch.no_grad():
        expected = 3 * network.encoder(normalised(image))[0]
    torch.testing.assert_close(logits.softmax(0), expected.softmax(0))
    assert (labels == expected.argmax(0)).float().mean() > 0.999


def test_views_are_averaged_as_probabilities() -> None:
    class Sided(PointNetwork):
        def forward(self, image: Tensor) -> Tensor:
            columns = torch.arange(image.shape[-1]).float() / image.shape[-1]
            return super().forward(image) * (1 + columns) * image.shape[-2] / 20

    network = Sided()
    image = noise(20, 30)
    x = normalised(image)
    with torch.no_grad():
        flipped = (network(x).softmax(1) + network(x.flip(-1)).softmax(1).flip(-1)) / 2
        half = F.interpolate(x, size=(10, 15), mode="bilinear", antialias=True)
        scaled = F.interpolate(network(half).softmax(1), size=(20, 30), mode="bilinear")
        scaled = (network(x).softmax(1) + scaled) / 2
    model = predictor(network)
    torch.testing.assert_close(model.logits(image, Protocol(flip=True)).softmax(0), flipped[0])
    torch.testing.assert_close(model.logits(image, Protocol(scales=(1.0, 0.5))).softmax(0), scaled[0])
    assert torch.equal(model.labels(image, Protocol(flip=True)), flipped[0].argmax(0))


def test_labels_are_the_largest_logits() -> None:
    model = predictor(image_size=(16, 24))
    image = noise(50, 70)
    assert torch.equal(model.labels(image), model.logits(image).argmax(0))


def test_batches_predict_as_single_images() -> None:
    model = predictor(PointNetwork(divisor=16))
    images = torch.stack([torch.tensor(noise(20, 30, seed)).permute(2, 0, 1) for seed in range(3)])
    together = model.batch_labels(images)
    for image, labels in zip(images, together, strict=True):
        assert torch.equal(labels, model.labels(image))


def test_images_of_another_kind_are_refused() -> None:
    model = predictor()
    for image in (noise(4, 5, channels=1), noise(4, 5).astype("float32"), noise(4, 5)[..., 0]):
        with pytest.raises(DataError, match=r"expected uint8, an array \(H, W, 3\)"):
            model.logits(image)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mode": "tiles"}, "found 'tiles'"),
        ({"scales": ()}, "at least one"),
        ({"scales": (0.0,)}, "above 0"),
        ({"scales": (1.0, float("nan"))}, "finite"),
        ({"scales": (float("inf"),)}, "finite"),
    ],
)
def test_protocols_that_cannot_be(values: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Protocol(**values)


def test_protocol_in_words() -> None:
    assert Protocol().describe(card()) == "whole image, scored at original size, 1 scale, no flip"
    text = Protocol("sliding", None, (0.5, 1.0), True).describe(card(image_size=(12, 16)))
    assert text == "windows of 24x30, stride 2/3, input resized to 12x16, scored at original size, scales 0.5 1, flip"


def test_grey_images() -> None:
    network = nn.Conv2d(1, 3, 1)
    model = Predictor(network, card(channels=1, mean=[0.5], std=[0.25]))
    assert model.labels(noise(6, 7, channels=1)).shape == (6, 7)


def test_predict_gives_calibrated_probabilities_of_one_image_or_a_batch():
    model = predictor(temperature=2.5)
    images = [noise(9, 11), noise(5, 7, seed=1)]
    first, second = model.predict(images)
    logits = model.logits(images[0])
    torch.testing.assert_close(first.probabilities, (logits / 2.5).softmax(0))
    assert torch.equal(first.labels, model.labels(images[0]))
    p = first.probabilities[:, 3, 4].double()
    assert float(first.uncertainty[3, 4]) == pytest.approx(
        float(-(p * p.log()).sum() / torch.tensor(3.0).log()), abs=1e-5
    )
    assert torch.equal(second.probabilities, model.predict(images[1]).probabilities)
    assert len(model.predict(np.stack([images[0], images[0]]))) == 2
