"""Files in, files out: names, sizes, contents; one bad file is not the end."""

import csv
import errno
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from fuzzyseg.cli.errors import explained
from fuzzyseg.data import DataError
from fuzzyseg.data.io.mask import read_mask
from fuzzyseg.inference import predict_files
from support.small_images import noise, predictor, write


def names(folder: Path) -> set[str]:
    """The files below a folder, without the record of the prediction."""
    result = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    return result - {"predictions.jsonl"}


def test_a_file_gives_mask_overlay_and_probabilities(tmp_path: Path) -> None:
    image = noise(21, 34)
    file = write(tmp_path / "in" / "a.png", image)
    model = predictor(colours=[(255, 0, 0), (0, 255, 0), (0, 0, 255)])
    written, failures = predict_files(model, file, tmp_path / "out", write=["overlay", "probabilities"])
    assert failures == []
    expected = {"masks/a.png", "overlays/a.png", "probabilities/a.npz", "class_shares.csv"}
    assert {str(p.relative_to(tmp_path / "out")) for p in written} == names(tmp_path / "out") == expected
    mask = read_mask(tmp_path / "out" / "masks" / "a.png")
    assert np.array_equal(mask, model.labels(image).numpy())
    probabilities = np.load(tmp_path / "out" / "probabilities" / "a.npz")["probabilities"]
    assert (probabilities.shape, probabilities.dtype) == ((3, 21, 34), np.float16)
    assert np.allclose(probabilities, model.logits(image).softmax(0).numpy(), atol=1e-3)
    shown = np.array(Image.open(tmp_path / "out" / "overlays" / "a.png")).astype(int)
    assert shown.shape[0] > 21  # with a legend below
    shown = shown[:21, :34]
    colours = 255 * np.eye(3, dtype=int)[mask]
    assert np.abs(shown - (image.astype(int) + colours) / 2).max() <= 1


def test_folders_keep_their_structure(tmp_path: Path) -> None:
    for name in ("a.jpg", "north/a.png", "north/far/b.tif"):
        write(tmp_path / "in" / name, noise(8, 9))
    (tmp_path / "in" / "notes.txt").write_text("no image")
    counts: list[tuple[int, int]] = []
    written, failures = predict_files(
        predictor(), tmp_path / "in", tmp_path / "out", write=["mask"], progress=lambda *n: counts.append(n)
    )
    assert names(tmp_path / "out" / "masks") == {"a.png", "north/a.png", "north/far/b.png"}
    assert (len(written), failures, counts) == (4, [], [(1, 3), (2, 3), (3, 3)])


def test_patterns(tmp_path: Path) -> None:
    for name in ("x/a.png", "x/b.png", "y/c.png"):
        write(tmp_path / "in" / name, noise(8, 9))
    predict_files(predictor(), tmp_path / "in" / "*" / "[ac].png", tmp_path / "out", write=["mask"])
    assert names(tmp_path / "out" / "masks") == {"x/a.png", "y/c.png"}


@pytest.mark.parametrize("files", [["a.jpg", "a.png"], ["a.png", "A.jpg"]])
def test_names_that_collide(tmp_path: Path, files: list[str]) -> None:
    for number, name in enumerate(files):
        write(tmp_path / "in" / name, noise(8, 9 + number))
    written, _ = predict_files(predictor(), tmp_path / "in", tmp_path / "out")
    for folder in ("masks", "overlays"):
        assert names(tmp_path / "out" / folder) == {f"{name}.png" for name in files}
    assert len(written) == len(set(written)) == 5
    for number, name in enumerate(files):
        assert read_mask(tmp_path / "out" / "masks" / f"{name}.png").shape == (8, 9 + number)


def test_inputs_are_never_replaced(tmp_path: Path) -> None:
    file = write(tmp_path / "masks" / "a.png", noise(8, 9))
    before = file.read_bytes()
    with pytest.raises(DataError, match=r"a\.png: is one of the images and would be overwritten"):
        predict_files(predictor(), file, tmp_path)
    with pytest.raises(DataError, match="is the folder of the images"):
        predict_files(predictor(), tmp_path, tmp_path)
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(DataError, match="would be overwritten"):
        predict_files(predictor(), file, tmp_path / "link")
    assert file.read_bytes() == before
    assert names(tmp_path) == {"masks/a.png"}


def test_results_inside_the_folder_are_not_predicted_again(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", noise(8, 9))
    for _ in range(2):
        written, _ = predict_files(predictor(), tmp_path, tmp_path / "out")
        assert [str(p.relative_to(tmp_path / "out")) for p in written] == [
            "masks/a.png",
            "overlays/a.png",
            "class_shares.csv",
        ]


def test_one_bad_file_does_not_lose_the_rest(tmp_path: Path) -> None:
    for name in ("a.png", "c.png"):
        write(tmp_path / "in" / name, noise(8, 9))
    (tmp_path / "in" / "b.png").write_bytes(b"nonsense")
    written, failures = predict_files(predictor(), tmp_path / "in", tmp_path / "out", write=["mask"])
    assert names(tmp_path / "out") == {"masks/a.png", "masks/c.png", "class_shares.csv"}
    assert len(written) == 3
    assert len(failures) == 1
    assert "b.png" in str(failures[0])


@pytest.mark.parametrize("name", ["gone.png", "gone/*.png", "empty"])
def test_no_images(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"there (is no such file|are no image files)"):
        predict_files(predictor(), tmp_path / name, tmp_path / "out")


def test_tiles(tmp_path: Path) -> None:
    file = write(tmp_path / "a.png", noise(50, 60))
    model = predictor()
    predict_files(model, file, tmp_path / "out", tile=(16, 24))
    assert set(model.network.sizes) == {(16, 24)}
    assert read_mask(tmp_path / "out" / "masks" / "a.png").shape == (50, 60)


def test_pages_that_are_read_as_bands_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(3, 8).swapaxes(1, 2).copy(), photometric="minisblack")
    written, _ = predict_files(predictor(), tmp_path / "a.tif", tmp_path / "out", write=("mask",))
    assert written and "1 of 1 TIFF images have several pages" in caplog.text


def test_files_that_are_not_read_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.png", "._a.png", "__MACOSX/b.png", ".ipynb_checkpoints/a.png"):
        write(tmp_path / "in" / name, noise(8, 9))
    for name in ("b.heic", "c.heic", "d.xyz"):
        (tmp_path / "in" / name).write_bytes(b"x")
    predict_files(predictor(), tmp_path / "in", tmp_path / "out", write=["mask"])
    assert names(tmp_path / "out" / "masks") == {"a.png"}
    assert "not read as images: 2 .heic, 1 .xyz" in caplog.text
    with pytest.raises(DataError, match=r"there is no such file, but 1 \.xyz"):
        predict_files(predictor(), tmp_path / "in" / "*.xyz", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_shares_of_classes(tmp_path: Path) -> None:
    for name in ("a.png", "far/b, c.png"):
        write(tmp_path / "in" / name, noise(8, 9))
    predict_files(predictor(), tmp_path / "in", tmp_path / "out", write=["mask"])
    with (tmp_path / "out" / "class_shares.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["image", "class0", "class1", "class2", "no data"]
    assert [row[0] for row in rows] == ["a.png", "far/b, c.png"]
    for name, *shares in rows:
        mask = read_mask(tmp_path / "out" / "masks" / name)
        assert np.allclose([float(share) for share in shares], [*(np.mean(mask == k) for k in range(3)), 0], atol=1e-6)


def test_the_legend_names_the_classes_that_occur_in_their_colours(tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    model = predictor(colours=colours)
    image = noise(60, 200)
    predict_files(model, write(tmp_path / "a.png", image), tmp_path / "out")
    strip = np.array(Image.open(tmp_path / "out" / "overlays" / "a.png"))[60:]
    result = {colour for colour in colours if (strip == colour).all(-1).sum() > 50}
    assert result == {colours[k] for k in np.unique(read_mask(tmp_path / "out" / "masks" / "a.png"))}


def test_a_folder_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    file, model = write(tmp_path / "a.png", noise(8, 9)), predictor()
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match=r"taken: cannot be written"):
        predict_files(model, file, tmp_path / "taken")
    assert model.network.sizes == []


@pytest.mark.parametrize("at", ["mask", "overlay", "shares"])
def test_a_full_disk_leaves_no_cut_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    for name in ("a.png", "b.png"):
        write(tmp_path / "in" / name, noise(8, 9))
    real, count = os.replace, {"mask": 2, "overlay": 3, "shares": 4}[at]
    calls: list[object] = []

    def full(source: object, target: object) -> None:
        calls.append(target)
        if len(calls) > count:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(
        DataError, match=r"cannot be written \(No space left.*results of [12] of 2 images are complete"
    ) as e:
        predict_files(predictor(), tmp_path / "in", tmp_path / "out")
    assert explained(e.value, "predict") == (str(e.value), 1)
    assert str(e.value).startswith(str(calls[-1]))  # the file itself
    assert len(names(tmp_path / "out")) == count
    for name in names(tmp_path / "out"):
        assert "part" not in name
        Image.open(tmp_path / "out" / name).load()
