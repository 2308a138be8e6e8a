"""The same command again: what is complete is kept, what is not is predicted; nothing of another model is mixed in."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from fuzzyseg.data import DataError
from fuzzyseg.data.io.mask import read_mask
from fuzzyseg.inference import predict_files
from fuzzyseg.inference.outputs import RASTERS, Fuzzy
from support.processes import run_in_processes
from support.small_images import PointNetwork, noise, predictor, write

KINDS = ["overlay", "k", "cvat", "labelstudio"]


@pytest.fixture
def images(tmp_path):
    for seed, name in enumerate("abcde"):
        write(tmp_path / "in" / f"{name}.png", noise(8, 9 + seed, seed))
    return tmp_path / "in"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("predictions.jsonl", "cvat.zip")  # the archive holds times
    }


def predicted(model) -> int:
    """Images that went through the network since the last call."""
    count = len(model.network.sizes)
    model.network.sizes.clear()
    return count


@pytest.mark.parametrize("stopped_by", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_prediction_is_continued(images, tmp_path, monkeypatch, caplog, stopped_by):
    model = predictor()
    predict_files(model, images, tmp_path / "whole", write=KINDS)
    assert predicted(model) == 5
    calls = []

    def third(band, function=RASTERS["overlay"].pixels):
        calls.append(band)
        if len(calls) == 3:
            raise stopped_by
        return function(band)

    with monkeypatch.context() as patch:
        patch.setitem(RASTERS, "overlay", RASTERS["overlay"]._replace(pixels=third))
        with pytest.raises((KeyboardInterrupt, DataError)) as error:
            predict_files(model, images, tmp_path / "out", write=KINDS)
    assert "results of 2 of 5 images are complete; repeat the command" in f"{error.value} {caplog.text}"
    assert predicted(model) == 3
    assert set(contents(tmp_path / "out")) == {
        f"{kind}/{name}.png" for kind in ("masks", "overlays", "k") for name in "ab"
    }
    with (tmp_path / "out/predictions.jsonl").open("a") as record:
        record.write('{"image": "c.png", "fi')  # cut off
    written, failures = predict_files(model, images, tmp_path / "out", write=KINDS)
    assert predicted(model) == 3
    assert not failures
    assert len(written) == 5 * 3 + 4
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert {
        json.loads(line).get("image") for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()
    } == {
        None,
        *(f"{name}.png" for name in "abcde"),
    }


def test_changed_images_and_lost_outputs_are_predicted_again(images, tmp_path, caplog):
    model, out = predictor(), tmp_path / "out"
    predict_files(model, images, out)
    predicted(model)
    write(images / "b.png", noise(8, 10, 77))
    os.utime(images / "c.png", ns=(1, 1))
    (out / "masks/d.png").unlink()
    (images / "e.png").unlink()
    write(images / "f.png", noise(7, 7))
    predict_files(model, images, out)
    assert predicted(model) == 4
    assert "1 of 5 images are already predicted" in caplog.text
    assert np.array_equal(read_mask(out / "masks/b.png"), model.labels(images / "b.png").numpy())
    with (out / "class_shares.csv").open() as file:
        assert [row["image"] for row in csv.DictReader(file)] == [f"{name}.png" for name in "abcdf"]
    predicted(model)
    predict_files(model, images, out, overwrite=True)
    assert predicted(model) == 5


def test_an_image_that_is_deleted_meanwhile_does_not_affect_others(images, tmp_path):
    seen = []

    def delete(*numbers):
        seen.append(numbers)
        (images / "c.png").unlink(missing_ok=True)

    _, failures = predict_files(predictor(), images, tmp_path / "out", progress=delete)
    assert [str(failure) for failure in failures] == [f"{images / 'c.png'}: cannot be read (No such file or directory)"]
    assert {path.stem for path in (tmp_path / "out/masks").iterdir()} == set("abde")
    assert seen[-1] == (5, 5)


def test_an_image_that_failed_is_tried_again(images, tmp_path):
    model = predictor()
    (images / "b.png").write_bytes(b"nonsense")
    assert len(predict_files(model, images, tmp_path / "out")[1]) == 1
    predicted(model)
    write(images / "b.png", noise(8, 9))
    assert predict_files(model, images, tmp_path / "out")[1] == []
    assert predicted(model) == 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"write": ["mask", "k"]}, "outputs"),
        ({"tile": (8, 8)}, "protocol"),
        ({"flip": True}, "protocol"),
        ({"scales": (1.0, 2.0)}, "protocol"),
        ({"encoded": True}, "encoded"),
        ({"fuzzy": Fuzzy(0.8)}, "T or options of the sets"),
        ({"model": 1}, "model"),
        ({"model": 2}, "model"),
    ],
    ids=str,
)
def test_results_of_another_model_or_protocol_are_not_mixed(images, tmp_path, change, named):
    base = {"write": ["overlay", "k"]}
    predict_files(predictor(), images, tmp_path / "out", **base)
    before = contents(tmp_path / "out")
    change = dict(change)
    model = predictor(mean=[0.1, 0.2, 0.3]) if change.get("model") == 2 else predictor()
    if change.pop("model", None) == 1:
        with torch.no_grad():
            model.network.encoder.bias[1] += 1e-3
    with pytest.raises(
        DataError, match=rf"out: contains predictions of another {named}; choose another --out, or --over"
    ):
        predict_files(model, images, tmp_path / "out", **base | change)
    assert contents(tmp_path / "out") == before
    assert not predict_files(model, images, tmp_path / "out", **base | change, overwrite=True)[1]


def test_several_arguments(images, tmp_path):
    write(tmp_path / "more/x/a.png", noise(6, 6))
    given = [images, tmp_path / "more" / "*" / "*.png", images / "a.png"]
    predict_files(predictor(), given, tmp_path / "out", write=["mask"])
    assert set(contents(tmp_path / "out")) == {
        "class_shares.csv",
        "masks/more/x/a.png",
        *(f"masks/in/{name}.png" for name in "abcde"),
    }


def share(rank: int, folder: str) -> list[int]:
    """Images that this process predicted, files and errors that it returned."""
    torch.manual_seed(0)
    network = PointNetwork()
    written, failures = predict_files(
        predictor(network), Path(folder) / "in", Path(folder) / "out", write=KINDS, progress=lambda *n: None
    )
    return [len(network.sizes), len(written), len(failures)]


def test_two_processes_share_the_images(images, tmp_path):
    (images / "f.png").write_bytes(b"nonsense")
    (tmp_path / "meet").mkdir()
    first, second = run_in_processes(share, tmp_path / "meet", str(tmp_path))
    assert first == [3, 5 * 3 + 4, 1]  # a, c, e; the errors of both
    assert second == [2, 0, 0]
    predict_files(predictor(), images, tmp_path / "whole", write=KINDS)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    records = list((tmp_path / "out").glob("predictions*"))
    assert [path.name for path in records] == ["predictions.jsonl"]
    model = predictor()
    predict_files(model, images, tmp_path / "out", write=KINDS)
    assert predicted(model) == 0


FOREIGN = ["masks/c.png", "overlays/c.png", "class_shares.csv", "coco.json", "labelme/a.json", "labels.txt"]


@pytest.mark.parametrize("name", FOREIGN)
def test_files_that_are_no_results_are_kept(images, tmp_path, name):
    """Such as the masks and annotations of a dataset whose folder is given as --out."""
    pytest.importorskip("rasterio")
    out = images.parent
    kinds = ["overlay", "coco", "labelme"]
    file = out / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"ground truth")
    model = predictor()
    with pytest.raises(DataError, match=rf"(labelme|{name}): exists and is not an earlier result"):
        predict_files(model, sorted(images.iterdir()), out, write=kinds)
    assert file.read_bytes() == b"ground truth"
    assert predicted(model) == 0
    assert not predict_files(model, sorted(images.iterdir()), out, write=kinds, overwrite=True)[1]
    assert file.read_bytes() != b"ground truth"


def test_a_mask_of_an_image_that_is_predicted_later_is_kept(images, tmp_path):
    model, out = predictor(), images.parent
    predict_files(model, images / "a.png", out)
    write(out / "masks/b.png", noise(8, 10)[..., 0])
    before = contents(out)
    with pytest.raises(DataError, match=r"masks/b\.png: exists and is not an earlier result"):
        predict_files(model, sorted(images.iterdir()), out)
    assert contents(out) == before


def test_images_of_another_folder_are_not_mixed_in(images, tmp_path):
    write(tmp_path / "other/a.png", noise(8, 9, 99))
    predict_files(predictor(), images, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(DataError, match="out: contains predictions of another image folder; choose another --out"):
        predict_files(predictor(), tmp_path / "other", tmp_path / "out")
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_result_written_before_an_interruption_is_replaced(images, tmp_path, monkeypatch, overwrite):
    """The disk is full after some outputs of the third image."""
    model, out = predictor(), tmp_path / "out"
    if overwrite:
        predict_files(model, images, out)
    real, written = os.replace, []

    def full(source, target):
        if target == out / "masks/c.png":  # its overlay is there
            raise OSError(28, "No space left on device")
        real(source, target)
        written.append(target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(DataError, match="results of 2 of 5 images are complete"):
            predict_files(model, images, out, overwrite=overwrite)
    assert out / "overlays/c.png" in written
    predicted(model)
    assert not predict_files(model, images, out)[1]
    assert predicted(model) == 3


def test_options_can_be_changed_before_anything_is_predicted(images, tmp_path):
    for file in images.iterdir():
        file.write_bytes(b"nonsense")
    assert len(predict_files(predictor(), images, tmp_path / "out")[1]) == 5
    write(images / "a.png", noise(8, 9))
    assert len(predict_files(predictor(), images, tmp_path / "out", flip=True)[1]) == 4


def test_an_edited_mask_is_kept_and_an_empty_one_predicted_again(images, tmp_path, caplog):
    model, out = predictor(), tmp_path / "out"
    predict_files(model, images, out, write=["cvat"])
    before = read_mask(out / "masks/b.png")
    (out / "masks/b.png").write_bytes(b"")
    write(out / "masks/c.png", np.zeros((8, 11), np.uint8))  # corrected by hand
    write(out / "masks/d.png", np.ones((8, 12), np.uint8))
    write(images / "d.png", noise(8, 12, 55))  # also when the image is a new one
    predicted(model)
    caplog.clear()
    assert not predict_files(model, images, out, write=["cvat"])[1]
    assert predicted(model) == 1
    assert f"{out / 'masks/c.png'}, {out / 'masks/d.png'}: edited after the prediction" in caplog.text
    assert np.array_equal(read_mask(out / "masks/b.png"), before)
    assert not read_mask(out / "masks/c.png").any() and read_mask(out / "masks/d.png").all()
    (out / "masks/c.png").unlink()
    predict_files(model, images, out, write=["cvat"])
    assert predicted(model) == 1
