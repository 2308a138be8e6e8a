"""The choice of images to label: scores by area, distances, near-duplicates, the second network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fuzzyseg.data.check.files import FileInfo, fingerprint_of
from fuzzyseg.data.io.image import Levels
from fuzzyseg.inference.outputs import Fuzzy
from fuzzyseg.inference.suggest import Candidate, Surveyor, choose
from fuzzyseg.networks import build_network
from support.small_images import card, noise, write

CPU = torch.device("cpu")


def candidate(feature, score=0.5, pixels=None):
    """With a fingerprint of its own, or that of these pixels."""
    seed = abs(hash(tuple(feature)))
    number, small = fingerprint_of(noise(32, 32, seed % 2**31) if pixels is None else pixels)
    info = FileInfo(Path("image"), fingerprint=number, thumbnail=small)
    return Candidate(info, F.normalize(torch.tensor(feature, dtype=torch.float32), dim=0), {"entropy": score})


class Bright(nn.Module):
    """Certain of class 0 where the first band is bright, undecided where it is dark."""

    def __init__(self, wanted=0):
        super().__init__()
        self.weight = nn.Parameter(20.0 * F.one_hot(torch.tensor(wanted), 3).view(3, 1, 1))

    def forward(self, image):
        return image[:, :1] * self.weight


def surveyor(*networks, **changes):
    changes = {"mean": [0.0] * 3, "std": [1.0] * 3, **changes}
    return Surveyor(networks or (Bright(),), card(**changes), CPU, Fuzzy())


def picture(dark, height=24, width=30):
    """An image of which this many columns are dark."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[:, :dark] = 0
    return pixels


def test_a_larger_uncertain_area_ranks_above_a_smaller_one(tmp_path):
    """Also where the smaller one is the same number of pixels, or more, of a larger image."""
    files = {"small": picture(6), "large": picture(15), "none": picture(0), "more pixels": picture(40, 48, 240)}
    result = {name: surveyor().measure(write(tmp_path / f"{name}.png", image)) for name, image in files.items()}
    assert sorted(result, key=lambda name: -result[name].score) == ["large", "small", "more pixels", "none"]
    # T = 0.9 and three equal classes: K = 2; entropy is its maximum
    assert result["large"].parts == pytest.approx({"fuzzy": 15 / 30, "entropy": 15 / 30}, abs=1e-5)
    assert result["none"].score == pytest.approx(0, abs=1e-5)


def test_pixels_without_data_are_not_uncertain(tmp_path):
    image = np.ones((20, 40, 3), np.float32)
    image[:, :10] = np.nan  # filled with 0, which is dark
    np.save(tmp_path / "a.npy", image)
    assert surveyor(levels=Levels((0.0,) * 3, (1.0,) * 3)).measure(tmp_path / "a.npy").score == pytest.approx(
        0, abs=1e-5
    )


def test_disagreement_of_two_networks_counts(tmp_path):
    file = write(tmp_path / "a.png", picture(0))
    same, apart = surveyor(Bright(), Bright()).measure(file), surveyor(Bright(), Bright(1)).measure(file)
    assert same.parts["disagreement"] == 0 and apart.parts["disagreement"] == 1
    assert apart.score == pytest.approx(1 / 3, abs=1e-4)


def test_entropy_is_that_of_the_calibrated_probabilities(tmp_path):
    file = write(tmp_path / "a.png", picture(0))
    flat = surveyor(temperature=20.0).measure(file).parts
    p = torch.tensor([1.0, 0, 0]).softmax(0)
    assert flat["entropy"] == pytest.approx(float(-(p * p.log()).sum() / np.log(3)), abs=1e-5)
    assert flat["fuzzy"] == 0  # the sets are those of the loss, without the temperature


def test_windows_give_what_the_whole_image_gives(tmp_path, monkeypatch):
    file = write(tmp_path / "a.png", noise(90, 130))
    whole = surveyor().measure(file)
    monkeypatch.setattr("fuzzyseg.inference.predictor.MAX_PIXELS", 100)
    monkeypatch.setattr("fuzzyseg.inference.predictor.TILE", (40, 50))
    parts = surveyor().measure(file)
    assert parts.parts == pytest.approx(whole.parts, abs=1e-3)
    assert torch.allclose(parts.feature, whole.feature, atol=0.05)


@pytest.mark.parametrize(("arch", "encoder"), [("FPN", "mobilenet_v2"), ("DPT", "tu-vit_tiny_patch16_224")])
def test_features_are_the_encoders_and_do_not_change_the_prediction(tmp_path, arch, encoder):
    small = {"embed_dim": 24, "num_heads": 2, "decoder_intermediate_channels": [8, 12, 16, 20]}
    options = {**small, "decoder_fusion_channels": 8} if arch == "DPT" else {}
    network = build_network(arch, encoder, weights="none", channels=3, classes=3, options=options)
    result = Surveyor([network.eval()], card(crop=(64, 64)), CPU, Fuzzy())
    one, other = (result.measure(write(tmp_path / f"{seed}.png", noise(64, 64, seed))) for seed in (1, 2))
    assert one.feature.shape == (network.encoder_channels[-1],)
    assert float(one.feature.norm()) == pytest.approx(1, abs=1e-5)
    assert not torch.equal(one.feature, other.feature)  # of this image, not of all that were seen
    with torch.no_grad():
        image = torch.rand(1, 3, 64, 64)
        assert torch.equal(result.passes[0].predictor.network(image), network(image))


def test_the_farthest_is_chosen_next():
    angles = [0, 1, 2, 40, 41, 85]
    pool = [candidate([np.cos(np.radians(a)), np.sin(np.radians(a))]) for a in angles]
    assert [angles[place] for place in choose(pool, [], 3)] == [0, 85, 41]
    labelled = [candidate([1.0, 0.001])]
    assert [angles[place] for place in choose(pool, labelled, 2)] == [85, 41]


def test_an_uncertain_image_is_preferred_to_an_equally_far_one():
    pool = [candidate([1, 0, 0], 0.1), candidate([0, 1, 0], 0.3), candidate([0, 0, 1], 0.2)]
    assert choose(pool, [], 3) == [1, 2, 0]


def test_near_duplicates_are_left_out_whatever_their_features():
    image = noise(40, 40, 3)
    copy = np.clip(image.astype(int) + 4, 0, 255).astype(np.uint8)
    pool = [candidate([1, 0], 0.9, image), candidate([0, 1], 0.9, copy), candidate([1, 0.1], 0.1)]
    assert choose(pool, [], 3) == [0, 2]
    assert choose(pool, [candidate([1, 1], pixels=image)], 3) == [2]


def test_images_of_one_colour_are_no_duplicates_of_each_other():
    flat = np.zeros((9, 9, 3), np.uint8)
    assert choose([candidate([1, 0], pixels=flat), candidate([0, 1], pixels=flat)], [], 5) == [0, 1]
