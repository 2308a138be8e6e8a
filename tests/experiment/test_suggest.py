"""`fuzzyseg suggest` on tiny images: what is chosen, what is written, what is refused."""

import base64
import csv
import io
import json
import os
import re
import shutil
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fuzzyseg.cli import app
from fuzzyseg.config import ConfigError
from fuzzyseg.data import DataError
from fuzzyseg.data.io.mask import read_mask
from fuzzyseg.experiment import convert, predict, train
from fuzzyseg.experiment.suggest import suggest
from fuzzyseg.inference import load
from support.small_images import write
from support.tiny_data import settings, write_folder
from support.tiny_network import TinyNetwork

HOSTILE = "<script>alert(1)<\\script>'\"&<img src=x>{{ 7*7 }}"
NETWORK = partial(TinyNetwork, classes=3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished CPS training of a few steps."""
    root = tmp_path_factory.mktemp("suggest")
    config = settings(write_folder(root / "data"), root / "cps", train={"steps": 4, "eval_every": 4})
    return train(config, network=NETWORK, quiet=True).run


@pytest.fixture
def photos(tmp_path):
    """Six images of noise, by name, one of them hostile."""
    rng = np.random.default_rng(7)
    for name in ("a", "b", "far/b", "c", "d", HOSTILE):
        write(tmp_path / "photos" / f"{name}.png", rng.integers(0, 256, (40, 52, 3), dtype=np.uint8))
    return tmp_path / "photos"


def rows(out):
    with (out / "suggestions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_list_is_ranked_and_two_networks_disagree(run, photos, tmp_path):
    seen = []
    chosen, failures = suggest(run, [photos], tmp_path / "out", count=4, network=NETWORK, device="cpu",
                               progress=lambda done, total: seen.append((done, total)))  # fmt: skip
    result = rows(tmp_path / "out")
    assert not failures and len(chosen) == 4
    assert [row["rank"] for row in result] == ["1", "2", "3", "4"]
    assert len({row["image"] for row in result}) == 4 and all(Path(row["image"]).is_file() for row in result)
    for row in result:
        parts = [float(row[part]) for part in ("fuzzy", "entropy", "disagreement")]
        assert float(row["score"]) == pytest.approx(sum(parts) / 3, abs=2e-4)
    assert max(float(row["disagreement"]) for row in result) > 0  # CPS trains two networks
    assert seen[-1] == (6 + 6, 6 + 6)


def test_images_with_labels_are_passed_over_and_so_are_their_copies(run, tmp_path):
    """In the run's own folder: 16 training images of which 6 are labelled, one held back, and 3 for validation."""
    data = run.parent / "data" / "images"
    run = shutil.copytree(run, tmp_path / "run")
    split = json.loads((run / "split.json").read_text())
    labelled, held = split["labelled"], split["unlabelled"].pop()
    (run / "split.json").write_text(json.dumps({**split, "held_back": [held]}))
    copies = [tmp_path / "copy.png", tmp_path / "copy_val.png"]
    for copy, name in zip(copies, (labelled[0], split["val"][0]), strict=True):
        shutil.copy(next(data.rglob(f"{Path(name).name}.png")), copy)
    chosen, _ = suggest(run, [data, *copies], tmp_path / "out", count=10, network=NETWORK, device="cpu")
    names = {Path(row["image"]).stem for row in chosen}
    assert len(names) == 9 and not names & {Path(name).name for name in [*labelled, held]}
    assert not names & {"im16", "im17", "im18", "copy", "copy_val"}  # validation images, and copies of known ones


def test_a_model_alone_suggests_too(run, photos, tmp_path, caplog):
    model = shutil.copytree(run / "model", tmp_path / "alone")
    suggest(model, [photos], tmp_path / "out", count=2, network=NETWORK, device="cpu")
    assert "disagreement" not in rows(tmp_path / "out")[0]
    assert "not in a run folder" in caplog.text


def test_cvat_shows_what_the_model_predicts_and_gives_it_back(run, photos, tmp_path):
    out = tmp_path / "out"
    chosen, _ = suggest(run, [photos], out, count=6, export=["cvat"], network=NETWORK, device="cpu")
    masks = sorted((out / "masks").glob("*.png"))
    assert len(chosen) == len(masks) == len(list((out / "images").iterdir())) == 6  # two files are called b.png
    with zipfile.ZipFile(out / "cvat.zip") as archive:
        archive.extractall(tmp_path / "cvat")
    shutil.copytree(out / "images", tmp_path / "cvat" / "JPEGImages")
    convert(tmp_path / "cvat", tmp_path / "corrected", labels=out / "labels.txt")
    predict(run, out / "images", tmp_path / "again", write=[], network=NETWORK, device="cpu")
    for mask in masks:
        result = read_mask(tmp_path / "corrected" / "masks" / mask.name)
        assert np.array_equal(result, read_mask(tmp_path / "again" / "masks" / mask.name))


def test_hostile_names_are_text_in_the_page(run, photos, tmp_path):
    suggest(run, [photos], tmp_path / "out", count=6, network=NETWORK, device="cpu")
    page = (tmp_path / "out" / "suggestions.html").read_text(encoding="utf-8")
    assert page.count("<script>") == 1 and "<img src=x>" not in page and "{{ 7*7 }}" in page
    assert page.count('data-view="uncertainty"') == 6 and "default-src 'none'" in page
    names = [Path(row["image"]).name for row in rows(tmp_path / "out")]
    assert f"{HOSTILE}.png" in names


def test_pictures_lie_on_the_image(run, photos, tmp_path):
    """Decoded from the page: the layers have the image's size, and the prediction is the mask."""
    suggest(run, [photos / "a.png"], tmp_path / "out", count=1, export=["cvat"], network=NETWORK, device="cpu")
    page = (tmp_path / "out" / "suggestions.html").read_text(encoding="utf-8")
    result = re.findall(r'src="data:image/\w+;base64,([^"]+)" data-view="(\w+)"', page)
    pictures = {view: Image.open(io.BytesIO(base64.b64decode(data))) for data, view in result}
    assert {picture.size for picture in pictures.values()} == {(52, 40)} and len(pictures) == 4
    assert np.array_equal(np.asarray(pictures["prediction"]), read_mask(tmp_path / "out" / "masks" / "a.png"))
    assert np.abs(np.asarray(pictures["image"]).astype(int) - np.asarray(Image.open(photos / "a.png"))).mean() < 60


def test_pictures_of_a_wide_image_keep_its_aspect(run, tmp_path, monkeypatch):
    """Also where a band of its prediction has fewer rows than one in the picture."""
    monkeypatch.setattr("fuzzyseg.experiment.suggest.SIDE", 10)
    monkeypatch.setattr("fuzzyseg.inference.predictor.MAX_PIXELS", 100)
    monkeypatch.setattr("fuzzyseg.inference.predictor.TILE", (16, 64))
    file = write(tmp_path / "a.png", np.random.default_rng(7).integers(0, 256, (39, 121, 3), dtype=np.uint8))
    suggest(run, [file], tmp_path / "out", count=1, export=["cvat"], network=NETWORK, device="cpu")
    page = (tmp_path / "out" / "suggestions.html").read_text(encoding="utf-8")
    result = re.findall(r'src="data:image/\w+;base64,([^"]+)" data-view="(\w+)"', page)
    pictures = {view: Image.open(io.BytesIO(base64.b64decode(data))) for data, view in result}
    assert {picture.size for picture in pictures.values()} == {(11, 4)} and len(pictures) == 4
    mask = read_mask(tmp_path / "out" / "masks" / "a.png")
    assert np.array_equal(np.asarray(pictures["prediction"]), mask[::12, ::12])


def test_an_unreadable_image_is_reported_and_the_others_suggested(run, photos, tmp_path):
    (photos / "broken.png").write_bytes(b"\x89PNG no image")
    chosen, failures = suggest(run, [photos], tmp_path / "out", count=3, network=NETWORK, device="cpu")
    assert len(chosen) == 3 and len(failures) == 1 and "broken.png" in str(failures[0])


def test_what_cannot_be_exported_is_named_before_images_are_measured(run, tmp_path):
    file, seen = write(tmp_path / os.fsdecode(b"a\xff.png"), np.zeros((8, 9, 3), np.uint8)), []
    with pytest.raises(DataError, match="cannot be read back from cvat"):
        suggest(run, [file], tmp_path / "out", count=1, export=["cvat"], network=NETWORK, device="cpu",
                progress=lambda *n: seen.append(n))  # fmt: skip
    assert not seen


def test_copies_of_labelled_images_alone_are_refused(run, tmp_path):
    data = run.parent / "data" / "images"
    name = Path(json.loads((run / "split.json").read_text())["labelled"][0]).name
    shutil.copy(next(data.rglob(f"{name}.png")), tmp_path / "copy.png")
    with pytest.raises(DataError, match="near-duplicates"):
        suggest(run, [tmp_path / "copy.png"], tmp_path / "out", count=1, network=NETWORK, device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 7}, "only 6 of the images"),
        ({"export": ["cvta"]}, "cvta"),
        ({"images": ["nowhere"]}, "nowhere"),
        ({"images": ["broken.png"], "count": 1}, "can be read"),
        ({"out": "photos"}, "exists already"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(run, photos, tmp_path, change, message):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no image")
    before = sorted(tmp_path.rglob("*"))
    call = {"count": 2, "images": ["photos"], "out": "out", **change}
    images = [tmp_path / name for name in call.pop("images")]
    with pytest.raises((ConfigError, DataError), match=message):
        suggest(run, images, tmp_path / call.pop("out"), network=NETWORK, device="cpu", **call)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_without_its_network_is_an_error_for_the_user(run, photos, tmp_path):
    result = CliRunner().invoke(app, ["suggest", str(run), str(photos), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and "network" in result.stderr and "Traceback" not in result.output


def test_the_command_lists_them(run, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "fuzzyseg.experiment.suggest.load", lambda path, **more: load(path, **more | {"network": NETWORK})
    )
    monkeypatch.setattr("fuzzyseg.experiment.suggest._second", lambda *_: [])
    words = ["suggest", run, photos, "-n", 2, "--out", tmp_path / "out", "--device", "cpu"]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["rank", "image", "score", "fuzzy", "entropy"]
    assert [line.split()[0] for line in lines[1:3]] == ["1", "2"]
    assert (tmp_path / "out" / "suggestions.html").is_file()
